//! What a container sees: namespaces, mounts, devices, limits, identity.

mod support;

use berth_oci::runtime::{Capabilities, ConsoleSize, IdMapping, Namespace, NamespaceKind, Rlimit};
use support::{Bundle, mount, there};
use testkit::Leftovers;

#[test]
fn namespaces_are_its_own() {
    let Some(mut bundle) = Bundle::new() else { return };
    bundle.spec.hostname = "inside".into();
    let out = bundle.says("hostname; echo $$; ls /proc | grep -c '^[0-9]'; ls /sys/class/net; for n in pid net ipc uts mnt cgroup; do readlink /proc/self/ns/$n; done");
    let lines: Vec<&str> = out.lines().collect();
    assert_eq!(&lines[..2], ["inside", "1"], "{out}");
    for name in ["pid", "net", "ipc", "uts", "mnt", "cgroup"] {
        let own = std::fs::read_link(format!("/proc/self/ns/{name}")).unwrap();
        assert!(!lines.contains(&own.to_str().unwrap()), "{name} is shared");
    }
}

#[test]
fn identity_limits_and_environment_are_those_of_the_configuration() {
    let Some(mut bundle) = Bundle::new() else { return };
    let process = bundle.process();
    process.user.uid = 1000;
    process.user.gid = 1000;
    process.user.additional_gids = vec![7, 8];
    process.user.umask = Some(0o27);
    process.cwd = "/made/by/runtime".into();
    process.oom_score_adj = Some(300);
    process.rlimits = vec![Rlimit { kind: "RLIMIT_NOFILE".into(), soft: 100, hard: 200 }];
    process.env.push("A=b c".into());
    process.env.push("A=d".into());
    let out = bundle.says("id -u; id -G; umask; pwd; echo $HOME; echo $A; ulimit -n; ulimit -Hn; cat /proc/self/oom_score_adj; grep -E 'CapEff|CapBnd|CapInh|NoNewPrivs|Seccomp:' /proc/self/status");
    let expected = "1000\n1000 7 8\n0027\n/made/by/runtime\n/home/web\nd\n100\n200\n300\nCapInh:\t0000000000000000\nCapEff:\t0000000000000000\nCapBnd:\t00000000a80425fb\nNoNewPrivs:\t1\nSeccomp:\t2\n";
    assert_eq!(out, expected);
}

#[test]
fn capabilities_are_the_sets_given() {
    let Some(mut bundle) = Bundle::new() else { return };
    let all = |names: &[&str]| names.iter().map(|n| (*n).to_owned()).collect::<Vec<_>>();
    let kill = all(&["CAP_KILL"]);
    bundle.process().user.uid = 1000;
    bundle.process().capabilities = Some(Capabilities {
        bounding: all(&["CAP_KILL", "CAP_CHOWN", "CAP_MADE_UP"]),
        permitted: kill.clone(),
        effective: kill.clone(),
        inheritable: kill.clone(),
        ambient: kill,
    });
    let (made, pipes) = bundle.script("grep Cap /proc/self/status").create().unwrap();
    assert_eq!(made.warnings.len(), 1, "{:?}", made.warnings);
    let mut container = made.container;
    container.start().unwrap();
    let pidfd = container.pidfd().unwrap().try_clone_to_owned().unwrap();
    let out = pipes.outcome(&pidfd).stdout;
    container.delete(berth_container::Deletion::Stopped).unwrap();
    let set = |name: &str| {
        out.lines().find(|l| l.starts_with(name)).unwrap().split('\t').nth(1).unwrap().to_owned()
    };
    assert_eq!(set("CapBnd"), format!("{:016x}", 0x21));
    for name in ["CapEff", "CapPrm", "CapInh", "CapAmb"] {
        assert_eq!(set(name), format!("{:016x}", 0x20), "{name}");
    }
}

#[test]
fn mounts_have_the_options_asked_for() {
    let Some(mut bundle) = Bundle::new() else { return };
    let (shared, file) = (bundle.path("shared"), bundle.scratch.file("file", b"content"));
    std::fs::create_dir_all(shared.join("sub")).unwrap();
    std::fs::write(bundle.rootfs().join("tmp/kept"), b"kept").unwrap();
    bundle.spec.mounts.extend([
        mount("/data/deep", "bind", shared.to_str().unwrap(), &["rbind", "ro", "nosuid", "nodev"]),
        mount("/data/file", "", file.to_str().unwrap(), &["bind", "rro"]),
        mount("/tmp", "tmpfs", "tmpfs", &["tmpcopyup", "size=1m", "noexec"]),
        mount("/scratch", "tmpfs", "tmpfs", &["ro"]),
        mount("/scratch/inner", "tmpfs", "tmpfs", &[]),
    ]);
    let out = bundle.says("cat /data/file /tmp/kept; echo; touch /data/deep/x /data/file /scratch/x 2>/dev/null; touch /tmp/y /scratch/inner/z && echo fine; grep -E ' (/data/deep|/data/file|/tmp|/scratch) ' /proc/self/mounts | cut -d' ' -f2,4; ls -ld /data | cut -c1-10");
    assert!(out.starts_with("contentkept\nfine\n"), "{out}");
    for line in out.lines() {
        if line.starts_with("/data/deep ") {
            assert!(line.contains("ro,nosuid,nodev"), "{line}");
        }
        if line.starts_with("/data/file ") || line.starts_with("/scratch ") {
            assert!(line.contains("ro,"), "{line}");
        }
    }
    assert!(out.ends_with("drwxr-xr-x\n"), "{out}");
    assert!(!there(shared.join("x")));
    Leftovers::none(&bundle.scratch);
}

#[test]
fn devices_masks_and_links_are_in_place() {
    let Some(mut bundle) = Bundle::new() else { return };
    bundle.linux().devices.push(berth_oci::runtime::Device {
        path: "/dev/own/zero".into(),
        kind: "c".into(),
        major: 1,
        minor: 5,
        file_mode: Some(0o600),
        uid: Some(1000),
        ..Default::default()
    });
    let out = bundle.says("stat -c '%F %t:%T %a' /dev/null /dev/tty /dev/urandom; stat -c '%F %t:%T %a %u' /dev/own/zero; readlink /dev/fd; readlink /dev/ptmx; cat /proc/kcore /proc/interrupts | wc -c; ls /sys/firmware | wc -w; echo 1 > /proc/sys/kernel/printk || echo readonly; chmod 777 /proc/kcore || echo kept; mknod /tmp/sda b 8 0 && cat /tmp/sda || echo denied");
    assert_eq!(
        out,
        "character special file 1:3 666\ncharacter special file 5:0 666\ncharacter special file 1:9 666\ncharacter special file 1:5 600 1000\n/proc/self/fd\npts/ptmx\n0\n0\nreadonly\nkept\ndenied\n",
    );
}

#[test]
fn a_readonly_root_cannot_be_written() {
    let Some(mut bundle) = Bundle::new() else { return };
    bundle.spec.root.as_mut().unwrap().readonly = true;
    assert_eq!(bundle.says("touch /x || echo refused; touch /run/y && echo fine"), "refused\nfine\n");
}

#[test]
fn the_cgroup_view_is_its_own() {
    let Some(mut bundle) = Bundle::new() else { return };
    bundle.spec.mounts.push(berth_oci::runtime::default::cgroup_mount());
    let out = bundle.says("cat /proc/self/cgroup; ls /sys/fs/cgroup; cat /sys/fs/cgroup/*/cgroup.procs | sort -u | head -3; mkdir /sys/fs/cgroup/pids/x || echo refused");
    for line in out.lines().filter(|l| l.contains("::") || l.split(':').count() == 3) {
        assert!(line.ends_with(":/"), "{line}");
    }
    assert!(out.ends_with("refused\n"), "{out}");
}

#[test]
fn a_user_namespace_maps_root_to_somebody_else() {
    let Some(mut bundle) = Bundle::new() else { return };
    bundle.linux().namespaces.push(Namespace { kind: NamespaceKind::User, path: String::new() });
    let map = IdMapping { container_id: 0, host_id: 100_000, size: 65536 };
    bundle.linux().uid_mappings = vec![map.clone()];
    bundle.linux().gid_mappings = vec![map];
    // The folder of the test must be passable for the mapped root.
    let open = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(bundle.scratch.folder(), open).unwrap();
    let out = bundle.says("id -u; cat /proc/self/uid_map; stat -c %u /bin; echo x > /dev/null && echo null; mount -t tmpfs t /tmp 2>/dev/null || echo nomount");
    let words: Vec<&str> = out.split_whitespace().collect();
    assert_eq!(words, ["0", "0", "100000", "65536", "65534", "null", "nomount"], "{out}");
}

#[test]
fn an_id_mapped_mount_shows_other_owners() {
    let Some(mut bundle) = Bundle::new() else { return };
    let shared = bundle.path("shared");
    std::fs::create_dir(&shared).unwrap();
    std::fs::write(shared.join("f"), b"").unwrap();
    let map = |host_id| vec![IdMapping { container_id: 0, host_id, size: 10 }];
    let mut mapped = mount("/data", "bind", shared.to_str().unwrap(), &["bind"]);
    (mapped.uid_mappings, mapped.gid_mappings) = (map(3000), map(4000));
    bundle.spec.mounts.push(mapped);
    assert_eq!(bundle.says("stat -c %u:%g /data/f"), "3000:4000\n");
}

#[test]
fn namespaces_can_be_joined_by_path() {
    let Some(bundle) = Bundle::new() else { return };
    let mut first = support::Sleeping::start(bundle);
    let pid = first.get().pid().unwrap();
    let Some(mut second) = Bundle::new() else { return };
    for namespace in &mut second.linux().namespaces {
        let name = match namespace.kind {
            NamespaceKind::Network => "net",
            NamespaceKind::Ipc => "ipc",
            NamespaceKind::Pid => "pid",
            _ => continue,
        };
        namespace.path = format!("/proc/{pid}/ns/{name}");
    }
    let out =
        second.says("for n in net ipc pid; do readlink /proc/self/ns/$n; done; test $$ -gt 1 && echo behind");
    let mut expected = String::new();
    for name in ["net", "ipc", "pid"] {
        let link = std::fs::read_link(format!("/proc/{pid}/ns/{name}")).unwrap();
        expected += &format!("{}\n", link.display());
    }
    assert_eq!(out, format!("{expected}behind\n"));
    // The thread that lent itself is back at home.
    let own = std::fs::read_link("/proc/thread-self/ns/pid_for_children").unwrap();
    assert_eq!(own, std::fs::read_link("/proc/self/ns/pid").unwrap());
}

#[test]
fn sysctls_and_time_offsets_are_set() {
    let Some(mut bundle) = Bundle::new() else { return };
    bundle.linux().sysctl.insert("net.ipv4.ip_forward".into(), "1".into());
    bundle.linux().sysctl.insert("kernel.shmmni".into(), "77".into());
    bundle.linux().namespaces.push(Namespace { kind: NamespaceKind::Time, path: String::new() });
    let offset = berth_oci::runtime::TimeOffset { secs: 1_000_000_000, nanosecs: 0 };
    bundle.linux().time_offsets.insert("boottime".into(), offset);
    let out =
        bundle.says("cat /proc/sys/net/ipv4/ip_forward /proc/sys/kernel/shmmni; cut -d. -f1 /proc/uptime");
    let lines: Vec<&str> = out.lines().collect();
    assert_eq!(&lines[..2], ["1", "77"]);
    assert!(lines[2].parse::<u64>().unwrap() >= 1_000_000_000, "{out}");
}

#[test]
fn a_terminal_is_the_containers_own() {
    use std::io::Read as _;
    let Some(mut bundle) = Bundle::new() else { return };
    bundle.process().terminal = true;
    bundle.process().console_size = Some(ConsoleSize { height: 33, width: 111 });
    bundle.script("tty; stty size; test -c /dev/console && echo console; test -t 2 && echo terminal");
    let request = bundle.request("c", berth_container::Stdio::Terminal);
    let made = berth_container::Container::create(request).unwrap();
    let mut container = made.container;
    let mut master = std::fs::File::from(made.terminal.unwrap());
    container.start().unwrap();
    let mut out = Vec::new();
    let mut buffer = [0; 4096];
    while let Ok(n @ 1..) = master.read(&mut buffer) {
        out.extend_from_slice(&buffer[..n]);
    }
    support::wait(&container.pidfd().unwrap().try_clone_to_owned().unwrap());
    container.delete(berth_container::Deletion::Stopped).unwrap();
    assert_eq!(String::from_utf8_lossy(&out), "/dev/pts/0\r\n33 111\r\nconsole\r\nterminal\r\n");
}

#[test]
fn hooks_run_where_they_should_and_see_the_state() {
    use berth_oci::runtime::{Hook, Hooks};
    let Some(mut bundle) = Bundle::new() else { return };
    let Ok(sh) = testkit::need::path("/bin/sh") else { return };
    let log = bundle.path("log");
    let to_host = |name: &str| Hook {
        path: sh.to_str().unwrap().into(),
        args: vec!["sh".into(), "-c".into(), format!("(echo {name}; cat; echo) >> {}", log.display())],
        ..Hook::default()
    };
    let inside = Hook {
        path: "/bin/sh".into(),
        args: vec!["sh".into(), "-c".into(), "cat > /tmp/start; echo $$ >> /tmp/start".into()],
        env: vec!["PATH=/bin".into()],
        ..Hook::default()
    };
    bundle.spec.hooks = Some(Hooks {
        prestart: vec![to_host("prestart")],
        create_runtime: vec![to_host("createRuntime")],
        create_container: vec![to_host("createContainer")],
        start_container: vec![inside],
        poststart: vec![to_host("poststart")],
        poststop: vec![to_host("poststop")],
    });
    let out = bundle.says("cat /tmp/start");
    assert!(out.contains("\"status\":\"created\""), "{out}");
    let log = std::fs::read_to_string(log).unwrap();
    let order: Vec<&str> = log.lines().filter(|l| !l.starts_with('{') && !l.is_empty()).collect();
    assert_eq!(order, ["prestart", "createRuntime", "createContainer", "poststart", "poststop"]);
    assert_eq!(log.matches("\"id\":\"c\"").count(), 5, "{log}");

    let failing = Hook {
        path: "/bin/sh".into(),
        args: vec!["sh".into(), "-c".into(), "echo no >&2; exit 4".into()],
        ..Hook::default()
    };
    bundle.spec.hooks = Some(Hooks { create_runtime: vec![failing.clone()], ..Hooks::default() });
    let error = bundle.run().unwrap_err().chain();
    assert!(
        error.contains("createRuntime hook #0") && error.contains("exit status: 4") && error.contains("no"),
        "{error}"
    );
    bundle.spec.hooks = Some(Hooks { create_container: vec![failing], ..Hooks::default() });
    let error = bundle.run().unwrap_err().chain();
    assert!(error.contains("createContainer hook #0") && error.contains("exit status 4"), "{error}");
    let slow = Hook {
        path: "/bin/sleep".into(),
        args: vec!["sleep".into(), "100".into()],
        timeout: Some(1),
        ..Hook::default()
    };
    bundle.spec.hooks = Some(Hooks { start_container: vec![slow], ..Hooks::default() });
    let error = bundle.run().unwrap_err().chain();
    assert!(error.contains("startContainer hook #0") && error.contains("too long"), "{error}");
    Leftovers::none(&bundle.scratch);
}

#[test]
fn a_detached_mount_can_be_the_root() {
    let Some(mut bundle) = Bundle::new() else { return };
    use rustix::mount::{OpenTreeFlags, open_tree};
    let elsewhere = bundle.path("elsewhere");
    std::fs::rename(bundle.rootfs(), &elsewhere).unwrap();
    std::fs::create_dir(bundle.rootfs()).unwrap();
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    let tree = open_tree(rustix::fs::CWD, &elsewhere, flags).unwrap();
    bundle.script("echo here");
    let (fds, pipes) = support::Pipes::new();
    let mut request = bundle.request("c", berth_container::Stdio::Fds(fds));
    request.root_mount = Some(tree);
    let mut container = berth_container::Container::create(request).unwrap().container;
    assert!(std::fs::read_dir(bundle.rootfs()).unwrap().next().is_none(), "the host sees no mount");
    container.start().unwrap();
    let outcome = pipes.outcome(&container.pidfd().unwrap().try_clone_to_owned().unwrap());
    container.delete(berth_container::Deletion::Stopped).unwrap();
    assert_eq!(outcome.stdout, "here\n");
}

#[test]
fn running_out_of_memory_is_told() {
    use rustix::event::{PollFd, PollFlags, Timespec, poll};
    let Some(mut bundle) = Bundle::new() else { return };
    let memory = bundle.linux().resources.get_or_insert_default().memory.get_or_insert_default();
    memory.limit = Some(16 << 20);
    memory.swap = Some(16 << 20);
    // The child is killed, the shell lives on.
    let (made, pipes) =
        bundle.script("dd if=/dev/zero of=/dev/null bs=64M count=1; echo $?").create().unwrap();
    let mut container = made.container;
    let mut oom = container.watch_oom().unwrap();
    assert!(!oom.take());
    container.start().unwrap();
    let limit = Timespec { tv_sec: 20, tv_nsec: 0 };
    poll(&mut [PollFd::from_borrowed_fd(std::os::fd::AsFd::as_fd(&oom), PollFlags::IN)], Some(&limit))
        .unwrap();
    // On v2 it rings for every event of the memory, not only for this one.
    testkit::wait::soon("news of memory running out", || oom.take());
    let pidfd = container.pidfd().unwrap().try_clone_to_owned().unwrap();
    assert_eq!(pipes.outcome(&pidfd).stdout, "137\n");
    container.delete(berth_container::Deletion::Stopped).unwrap();
    assert!(!oom.take(), "the cgroup's end is no news");
}

#[test]
fn the_filter_holds_in_a_real_process() {
    let Some(mut bundle) = Bundle::new() else { return };
    let out = bundle.says("grep Seccomp: /proc/self/status; unshare -r true 2>/dev/null || busybox unshare -n true || echo refused; mount -t tmpfs t /tmp || echo refused");
    assert_eq!(out, "Seccomp:\t2\nrefused\nrefused\n");
    bundle.process().no_new_privileges = false;
    assert!(
        bundle
            .says("grep -E 'NoNewPrivs|Seccomp:' /proc/self/status")
            .contains("NoNewPrivs:\t0\nSeccomp:\t2")
    );
}

#[test]
fn a_shared_volume_takes_mounts_in_and_gives_them_out() {
    let Some(mut bundle) = Bundle::new() else { return };
    let volume = bundle.path("volume");
    std::fs::create_dir(&volume).unwrap();
    let source = volume.to_str().unwrap().to_owned();
    // In a mount namespace of its own, whose `/` is private: only what is shared here is.
    let seen = berth_sys::thread::in_private_mounts(|| {
        rustix::mount::mount_bind(&volume, &volume)?;
        rustix::mount::mount_change(&volume, rustix::mount::MountPropagationFlags::SHARED)?;
        bundle.spec.linux.as_mut().unwrap().rootfs_propagation = "rshared".into();
        bundle.spec.mounts.push(mount("/volume", "bind", &source, &["rbind", "rshared", "rw"]));
        bundle.process().capabilities.as_mut().unwrap().effective.push("CAP_SYS_ADMIN".into());
        bundle.process().capabilities.as_mut().unwrap().permitted.push("CAP_SYS_ADMIN".into());
        bundle.process().capabilities.as_mut().unwrap().bounding.push("CAP_SYS_ADMIN".into());
        bundle.spec.linux.as_mut().unwrap().seccomp = None;
        bundle.says("mkdir /volume/etc && mount --bind /etc /volume/etc");
        Ok(volume.join("etc/passwd").exists())
    });
    assert!(seen.unwrap(), "what the container mounted is not there");
}
