//! The documents against what containerd and runc write.

use super::*;

#[test]
fn what_go_writes_comes_back_the_same() {
    let text = r#"{"ociVersion":"1.2.0","process":{"user":{"uid":0,"gid":0,"additionalGids":[1,2]},"args":["sh"],"env":["A=b"],"cwd":"/","capabilities":{"bounding":["CAP_KILL"]},"rlimits":[{"type":"RLIMIT_NOFILE","hard":1024,"soft":1024}],"noNewPrivileges":true},"root":{"path":"rootfs"},"hostname":"h","mounts":[{"destination":"/proc","type":"proc","source":"proc","options":["nosuid"]}],"annotations":{"a":"b"},"linux":{"resources":{"devices":[{"allow":false,"access":"rwm"}],"memory":{"limit":-1},"blockIO":{"weight":10}},"cgroupsPath":"/default/x","namespaces":[{"type":"pid"},{"type":"network","path":"/run/n"},{"type":"moon"}],"seccomp":{"defaultAction":"SCMP_ACT_ERRNO","syscalls":[{"names":["clone"],"action":"SCMP_ACT_ALLOW","args":[{"index":0,"value":18446744073709551615,"valueTwo":1,"op":"SCMP_CMP_EQ"}]}]}}}"#;
    let spec = Spec::from_slice(text.as_bytes()).unwrap();
    assert_eq!(String::from_utf8(spec.to_vec()).unwrap(), text);
    let linux = spec.linux.unwrap();
    assert_eq!(linux.namespace(&NamespaceKind::Network).unwrap().path, "/run/n");
    assert_eq!(linux.namespaces[2].kind, NamespaceKind::Other("moon".into()));
}

#[test]
fn null_and_unknown_fields_are_passed_over() {
    let text = r#"{"ociVersion":null,"mounts":null,"process":{"args":null,"user":null,"cwd":"/","future":[1]},"linux":{"namespaces":null,"resources":null},"later":{}}"#;
    let spec = Spec::from_slice(text.as_bytes()).unwrap();
    assert!(spec.mounts.is_empty());
    assert_eq!(spec.process.unwrap().cwd, "/");
}

#[test]
fn the_default_filter_refuses_what_it_must() {
    let capabilities = default::capabilities();
    let filter = default_seccomp(Some(&capabilities));
    let allowed = |name: &str| {
        filter.syscalls.iter().any(|r| r.action == "SCMP_ACT_ALLOW" && r.names.iter().any(|n| n == name))
    };
    for name in ["io_uring_setup", "io_uring_enter", "io_uring_register", "mount", "bpf", "setns", "keyctl"] {
        assert!(!allowed(name), "{name}");
    }
    assert!(allowed("chroot") && allowed("read") && allowed("clone"));
    let socket: Vec<_> = filter.syscalls.iter().filter(|r| r.names == ["socket"]).collect();
    assert_eq!(socket.len(), 3);
}

#[test]
fn the_default_configuration_has_what_containerd_gives() {
    let spec = default::spec("default", "x");
    assert_eq!(spec.mounts.len(), 7);
    let linux = spec.linux.unwrap();
    assert_eq!(linux.cgroups_path, "/default/x");
    assert!(linux.masked_paths.iter().any(|p| p == "/proc/interrupts"));
    assert!(spec.process.unwrap().capabilities.unwrap().inheritable.is_empty());
}
