//! What others' runtimes got wrong (security.md, the low-level runtime).

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

mod support;

use std::os::unix::fs::symlink;
use std::sync::atomic::{AtomicBool, Ordering};

use support::{Bundle, Sleeping, exec, exec_process, mount, there};
use testkit::Leftovers;

#[track_caller]
fn refused(bundle: &Bundle) -> String {
    let error = bundle.run().map(|o| panic!("it ran: {o:?}")).unwrap_err().chain();
    Leftovers::none(&bundle.scratch);
    error
}

/// CVE-2024-21626.
#[test]
fn a_working_directory_through_a_descriptor_is_refused() {
    let Some(mut bundle) = Bundle::new() else { return };
    bundle.args(&["/bin/true"]);
    for number in 0..64 {
        for path in ["/proc/self/fd", "/proc/thread-self/fd"] {
            bundle.process().cwd = format!("{path}/{number}");
            assert!(bundle.run().is_err(), "{path}/{number}");
        }
    }
    bundle.process().cwd = "/".into();
    let mut sleeping = Sleeping::start(bundle);
    let container = sleeping.get();
    for number in 0..64 {
        let mut process = container.default_process(&["/bin/true".into()]);
        process.cwd = format!("/proc/self/fd/{number}");
        assert!(exec_process(container, process).is_err(), "{number}");
    }
    assert_eq!(exec(container, "ls /proc/self/fd | sort -n | head -4").stdout, "0\n1\n2\n3\n");
    assert_eq!(exec(container, "ls -l /proc/self/fd | grep -c -E '/(tmp|run|var)/'").stdout, "0\n");
}

#[test]
fn only_the_streams_are_open_inside() {
    let Some(mut bundle) = Bundle::new() else { return };
    // ls itself opens the fourth.
    assert_eq!(bundle.says("ls /proc/self/fd | wc -l"), "4\n");
}

/// CVE-2019-5736.
#[test]
fn the_runtimes_own_program_cannot_be_overwritten() {
    let Some(mut bundle) = Bundle::new() else { return };
    let own = || std::fs::read("/proc/self/exe").unwrap();
    let before = own();
    let evil = bundle.rootfs().join("evil");
    std::fs::write(&evil, "#!/proc/self/exe\n").unwrap();
    std::fs::set_permissions(&evil, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    // Whatever it runs, it must not change the program.
    let _ = bundle.args(&["/evil", "--list"]).run();
    let mut sleeping = Sleeping::start(bundle);
    let container = sleeping.get();
    let process = container.default_process(&["/evil".into(), "--list".into()]);
    let _ = exec_process(container, process);
    assert!(own() == before, "the program has changed");
}

/// CVE-2019-16884, -19921, CVE-2023-27561 and their like.
#[test]
fn proc_and_sys_cannot_be_replaced() {
    let Some(mut bundle) = Bundle::new() else { return };
    bundle.args(&["/bin/true"]);
    let mounts = bundle.spec.mounts.clone();
    let volume = bundle.path("volume");
    std::fs::create_dir(&volume).unwrap();
    let volume = volume.to_str().unwrap();
    for (destination, kind, source) in [
        ("/proc", "bind", volume),
        ("/proc", "tmpfs", "tmpfs"),
        ("/proc/self/attr", "bind", volume),
        ("/proc/sys/kernel", "tmpfs", "tmpfs"),
        ("/tmp/../proc/sys", "bind", volume),
    ] {
        bundle.spec.mounts = mounts.clone();
        bundle.spec.mounts.push(mount(destination, kind, source, &["rbind"]));
        let error = refused(&bundle);
        assert!(error.contains("cannot be mounted because"), "{error}");
    }
    bundle.spec.mounts = mounts;
    for name in ["proc", "sys"] {
        let place = bundle.rootfs().join(name);
        std::fs::remove_dir(&place).unwrap();
        symlink("/tmp", &place).unwrap();
        let error = refused(&bundle);
        assert!(error.contains("not an ordinary directory"), "{error}");
        std::fs::remove_file(&place).unwrap();
        std::fs::create_dir(&place).unwrap();
    }
    // Through a link in the image, without naming it.
    symlink("/proc/sys", bundle.rootfs().join("innocent")).unwrap();
    bundle.spec.mounts.push(mount("/innocent/kernel", "bind", volume, &["rbind"]));
    let error = refused(&bundle);
    assert!(error.contains("leads into /proc"), "{error}");
}

/// CVE-2024-45310, CVE-2025-62161 and their like.
#[test]
fn links_in_the_image_make_nothing_on_the_host() {
    let Some(mut bundle) = Bundle::new() else { return };
    let outside = bundle.path("outside");
    std::fs::create_dir(&outside).unwrap();
    let file = bundle.scratch.file("file", b"content");
    let rootfs = bundle.rootfs();
    symlink(outside.join("new"), rootfs.join("dangling")).unwrap();
    symlink("../../../../../../../../..", rootfs.join("up")).unwrap();
    symlink(&outside, rootfs.join("out")).unwrap();
    for destination in ["/dangling", "/dangling/deeper", "/up/up/made", "/out/made"] {
        bundle.spec.mounts.truncate(7);
        bundle.spec.mounts.push(mount(destination, "bind", file.to_str().unwrap(), &["bind"]));
        let out = bundle.says(&format!("cat {destination}"));
        assert_eq!(out, "content", "{destination}");
        // A file is in the way of the second.
        let _ = std::fs::remove_dir_all(rootfs.join(outside.strip_prefix("/").unwrap()));
    }
    assert_eq!(std::fs::read_dir(&outside).unwrap().count(), 0);
    // /dev itself as a link: its devices stay inside as well.
    bundle.spec.mounts.truncate(7);
    std::fs::remove_dir(rootfs.join("dev")).unwrap();
    symlink(&outside, rootfs.join("dev")).unwrap();
    let _ = bundle.script("true").run();
    assert_eq!(std::fs::read_dir(&outside).unwrap().count(), 0);
    // A masked path and the terminal as links.
    assert!(there(&outside));
    Leftovers::none(&bundle.scratch);
}

/// CVE-2021-30465, CVE-2025-31133, -52565, -52881.
#[test]
fn a_racing_swapper_gains_nothing() {
    let Some(mut bundle) = Bundle::new() else { return };
    let outside = bundle.path("outside");
    let volume = bundle.path("volume");
    let payload = bundle.path("payload");
    for folder in [&outside, &volume, &payload] {
        std::fs::create_dir(folder).unwrap();
    }
    for name in ["a", "b"] {
        std::fs::create_dir(volume.join(name)).unwrap();
    }
    symlink(outside.join("x"), volume.join("link")).unwrap();
    bundle.spec.mounts.extend([
        mount("/volume", "bind", volume.to_str().unwrap(), &["rbind"]),
        mount("/volume/a/inner", "bind", payload.to_str().unwrap(), &["rbind"]),
        mount("/volume/a/file", "bind", "/etc/hostname", &["bind"]),
    ]);
    bundle.linux().masked_paths.push("/volume/a/masked".into());
    bundle.linux().readonly_paths.push("/volume/a".into());
    bundle.args(&["/bin/true"]);
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            use rustix::fs::{CWD, RenameFlags, renameat_with};
            let (a, link) = (volume.join("a"), volume.join("link"));
            while !stop.load(Ordering::Relaxed) {
                let _ = renameat_with(CWD, &a, CWD, &link, RenameFlags::EXCHANGE);
            }
        });
        for _ in 0..150 {
            // Either works or is refused.
            let _ = bundle.run();
        }
        stop.store(true, Ordering::Relaxed);
    });
    assert_eq!(std::fs::read_dir(&outside).unwrap().count(), 0, "something was made on the host");
    Leftovers::none(&bundle.scratch);
}

#[test]
fn a_security_label_without_its_module_is_an_error() {
    let Some(mut bundle) = Bundle::new() else { return };
    bundle.args(&["/bin/true"]);
    if !std::path::Path::new("/sys/module/apparmor").exists() {
        bundle.process().apparmor_profile = "docker-default".into();
        let text = refused(&bundle);
        assert!(text.contains("docker-default") && text.contains("boot with AppArmor"), "{text}");
        bundle.process().apparmor_profile.clear();
    }
    if !std::path::Path::new("/sys/fs/selinux").exists() {
        let label = "system_u:system_r:container_t:s0";
        bundle.process().selinux_label = label.into();
        let text = refused(&bundle);
        assert!(text.contains(label) && text.contains("leave process.selinuxLabel out"), "{text}");
        bundle.process().selinux_label.clear();
        bundle.linux().mount_label = label.into();
        let text = refused(&bundle);
        assert!(text.contains(label) && text.contains("leave linux.mountLabel out"), "{text}");
    }
}

#[test]
fn what_would_act_on_the_host_is_refused() {
    let Some(mut bundle) = Bundle::new() else { return };
    bundle.args(&["/bin/true"]);
    let good = bundle.spec.clone();
    let mut with = |change: &dyn Fn(&mut Bundle)| {
        bundle.spec = good.clone();
        change(&mut bundle);
        refused(&bundle)
    };
    use berth_oci::runtime::NamespaceKind;
    with(&|b| {
        b.without(&NamespaceKind::Mount);
    });
    with(&|b| {
        b.spec.hostname = "x".into();
        b.without(&NamespaceKind::Uts);
    });
    with(&|b| drop(b.linux().sysctl.insert("vm.swappiness".into(), "1".into())));
    with(&|b| drop(b.linux().sysctl.insert("net/../vm/swappiness".into(), "1".into())));
    with(&|b| b.linux().cgroups_path = "/".into());
    with(&|b| b.linux().masked_paths.push("relative".into()));
    with(&|b| b.process().args.clear());
    with(&|b| b.process().cwd = "relative".into());
    for id in ["", ".", "..", "a/b", "a b", "\u{e4}"] {
        let request = bundle.request(id, berth_container::Stdio::Inherit);
        assert!(berth_container::Container::create(request).is_err(), "{id:?}");
    }
}
