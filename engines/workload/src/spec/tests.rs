use super::*;
use crate::parse::{MountKind, MountRequest, restart_policy};
use crate::{Config, HostConfig};
use berth_oci::runtime::NamespaceKind;

fn inputs<'a>(definition: &'a Definition, id: &'a ContainerId, namespace: &'a Namespace) -> Inputs<'a> {
    Inputs {
        network: None,
        id,
        namespace,
        definition,
        folder: Path::new("/state/c"),
        init: Path::new("/usr/bin/berth"),
        peer: &|name| if name == "other" { Ok(7) } else { Err(berth_types::Error::not_found("no")) },
    }
}

fn try_built(definition: &Definition) -> Result<Spec> {
    build(&inputs(definition, &"c1".parse().unwrap(), &"default".parse().unwrap()))
}

fn built(change: impl FnOnce(&mut Definition)) -> Spec {
    try_built(&definition(change)).unwrap()
}

fn definition(change: impl FnOnce(&mut Definition)) -> Definition {
    let mut definition = Definition {
        config: Config { cmd: Some(vec!["sh".into()]), hostname: "box".into(), ..Config::default() },
        host: HostConfig::default(),
        ..Definition::default()
    };
    change(&mut definition);
    definition
}

fn mount<'a>(spec: &'a Spec, destination: &str) -> Option<&'a berth_oci::runtime::Mount> {
    spec.mounts.iter().find(|mount| mount.destination == destination)
}

#[test]
fn a_plain_container_is_isolated() {
    let spec = built(|_| {});
    let process = spec.process.as_ref().unwrap();
    assert_eq!(process.args, ["sh"]);
    assert_eq!(process.env.last().unwrap(), "HOME=/");
    assert!(process.env.contains(&"HOSTNAME=box".to_owned()));
    let linux = spec.linux.as_ref().unwrap();
    for kind in [NamespaceKind::Pid, NamespaceKind::Network, NamespaceKind::Cgroup, NamespaceKind::Mount] {
        assert!(linux.namespace(&kind).is_some_and(|namespace| namespace.path.is_empty()), "{kind:?}");
    }
    assert!(linux.seccomp.is_some() && !linux.masked_paths.is_empty());
    assert_eq!(linux.cgroups_path, "/default/c1");
    assert!(mount(&spec, "/etc/hosts").is_some() && mount(&spec, "/run").is_none());
    assert!(mount(&spec, "/sys/fs/cgroup").unwrap().options.contains(&"ro".to_owned()));
    assert!(!linux.resources.as_ref().unwrap().devices.is_empty());
}

#[test]
fn privileged_means_everything() {
    let spec = built(|definition| definition.host.privileged = true);
    let linux = spec.linux.as_ref().unwrap();
    assert!(linux.seccomp.is_none() && linux.masked_paths.is_empty() && linux.readonly_paths.is_empty());
    assert!(linux.resources.as_ref().unwrap().devices[0].allow);
    assert!(!mount(&spec, "/sys").unwrap().options.contains(&"ro".to_owned()));
    assert!(!mount(&spec, "/sys/fs/cgroup").unwrap().options.contains(&"ro".to_owned()));
    assert!(spec.process.unwrap().capabilities.unwrap().bounding.contains(&"CAP_SYS_ADMIN".to_owned()));
}

#[test]
fn the_hosts_namespaces_are_shared_when_asked_for() {
    let spec = built(|definition| {
        definition.host.network_mode = "host".into();
        definition.host.pid_mode = "container:other".into();
        definition.host.ipc_mode = "host".into();
        definition.host.uts_mode = "host".into();
        definition.host.cgroupns_mode = "host".into();
    });
    let linux = spec.linux.as_ref().unwrap();
    assert!(linux.namespace(&NamespaceKind::Network).is_none());
    assert!(linux.namespace(&NamespaceKind::Ipc).is_none());
    assert_eq!(linux.namespace(&NamespaceKind::Pid).unwrap().path, "/proc/7/ns/pid");
    assert!(spec.hostname.is_empty() && linux.sysctl.is_empty());
    assert_eq!(mount(&spec, "/dev/shm").unwrap().kind, "bind");
    let missing = definition(|definition| definition.host.pid_mode = "container:none".into());
    assert!(try_built(&missing).is_err());
    let bridge = definition(|definition| definition.host.network_mode = "bridge0".into());
    assert!(try_built(&bridge).unwrap_err().to_string().contains("bridge0"));
}

#[test]
fn parameters_of_the_host_cannot_be_set() {
    let with = |name: &str, value: &str, network: &str| {
        let (name, value, network) = (name.to_owned(), value.to_owned(), network.to_owned());
        try_built(&definition(|definition| {
            definition.host.sysctls.insert(name, value);
            definition.host.network_mode = network;
        }))
    };
    assert_eq!(
        with("net/ipv4/ip_forward", "1", "").unwrap().linux.unwrap().sysctl["net.ipv4.ip_forward"],
        "1"
    );
    for (name, value, network) in [
        ("net.ipv4.ip_forward", "1", "host"),
        ("kernel.panic", "1", ""),
        ("net.ipv4.x", "1\nkernel.panic=1", ""),
        ("net..x", "1", ""),
        ("net.x=y", "1", ""),
        ("vm.overcommit_memory", "1", ""),
    ] {
        assert!(with(name, value, network).is_err(), "{name}={value}");
    }
}

#[test]
fn an_own_mount_takes_the_place_of_a_default_one() {
    let spec = built(|definition| {
        for destination in ["/etc/hosts", "/dev/shm", "/a/b/c", "/a"] {
            definition.mounts.push(crate::MountPoint {
                kind: MountKind::Bind,
                source: "/host".into(),
                destination: destination.into(),
                options: vec!["rbind".into()],
                ..crate::MountPoint::default()
            });
        }
    });
    assert_eq!(mount(&spec, "/etc/hosts").unwrap().source, "/host");
    assert_eq!(spec.mounts.iter().filter(|mount| mount.destination == "/dev/shm").count(), 1);
    let place = |path: &str| spec.mounts.iter().position(|mount| mount.destination == path).unwrap();
    assert!(place("/a") < place("/a/b/c"));
}

#[test]
fn a_tmpfs_option_beats_its_opposite() {
    let spec = built(|definition| {
        definition.mounts.push(crate::MountPoint {
            kind: MountKind::Tmpfs,
            destination: "/t".into(),
            options: vec!["exec".into(), "size=1m".into()],
            ..crate::MountPoint::default()
        });
    });
    assert_eq!(mount(&spec, "/t").unwrap().options, ["nosuid", "nodev", "exec", "size=1m"]);
}

#[test]
fn a_command_is_needed_and_init_comes_before_it() {
    let none = definition(|definition| definition.config.cmd = None);
    assert!(try_built(&none).unwrap_err().to_string().contains("no command"));
    let spec = built(|definition| definition.host.init = Some(true));
    assert_eq!(spec.process.as_ref().unwrap().args, [INIT, "--", "sh"]);
    assert!(mount(&spec, INIT).unwrap().options.contains(&"ro".to_owned()));
}

#[test]
fn working_directories_cannot_lead_out() {
    for bad in ["/proc/self/fd/7", "relative", "/x/../proc/self/fd/8"] {
        let one = definition(|definition| definition.config.working_dir = bad.into());
        assert!(try_built(&one).is_err(), "{bad}");
    }
}

#[test]
fn exec_takes_the_containers_process_and_changes_it() {
    let container = built(|definition| definition.config.env = vec!["A=1".into(), "B=2".into()]);
    let options = ExecOptions {
        args: vec!["id".into()],
        env: vec!["B=3".into(), "C=4".into()],
        tty: true,
        user: Some(berth_rootfs::Identity { uid: 33, gid: 33, groups: vec![33], home: "/srv".into() }),
        ..ExecOptions::default()
    };
    let process = exec_process(&container, &options).unwrap();
    assert_eq!(process.user.uid, 33);
    for entry in ["A=1", "B=3", "C=4", "HOME=/srv", "TERM=xterm"] {
        assert!(process.env.contains(&entry.to_owned()), "{entry} in {:?}", process.env);
    }
    assert!(exec_process(&container, &ExecOptions::default()).is_err());
}

#[test]
fn descriptions_survive_being_kept() {
    let definition = definition(|definition| {
        definition.host.restart_policy = restart_policy("on-failure:2").unwrap();
        definition.host.mounts.push(MountRequest { target: "/x".into(), ..MountRequest::default() });
        definition.host.memory_swappiness = Some(10);
    });
    let mut container =
        berth_types::Container::new("c".parse().unwrap(), berth_types::RuntimeInfo::default());
    container.extensions.insert(crate::labels::DEFINITION.to_owned(), definition.to_any());
    assert_eq!(Definition::of(&container).unwrap().unwrap(), definition);
}
