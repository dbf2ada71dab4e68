//! The life of a container: create, start, exec, signals, pause, update, stats, delete.

mod support;

use berth_container::{Checkpoint, Container, Deletion, Error, ErrorKind, Restore, Stdio, Target};
use berth_oci::runtime::Status;
use support::{Bundle, Sleeping, exec, there, wait};
use testkit::Leftovers;

#[test]
fn a_container_runs_its_program_and_leaves_nothing() {
    let Some(mut bundle) = Bundle::new() else { return };
    let outcome = bundle.script("echo out; echo err >&2; exit 7").run().unwrap();
    assert_eq!((outcome.code, outcome.stdout.as_str(), outcome.stderr.as_str()), (7, "out\n", "err\n"));
    assert!(std::fs::read_dir(bundle.path("state")).unwrap().next().is_none());
    Leftovers::none(&bundle.scratch);
}

#[test]
fn states_follow_one_another() {
    let Some(mut bundle) = Bundle::new() else { return };
    bundle.args(&["/bin/sleep", "1000"]);
    let (made, _pipes) = bundle.create().unwrap();
    let mut container = made.container;
    let root = bundle.path("state");
    let status = || Container::load(&root, "c").unwrap().status().unwrap();
    assert_eq!(status(), Status::Created);
    let again = bundle.create().map(drop).unwrap_err();
    assert_eq!(again.kind(), ErrorKind::AlreadyExists);
    assert_eq!(status(), Status::Created, "the second creation has not touched the first");
    container.start().unwrap();
    assert_eq!(status(), Status::Running);
    assert!(container.start().unwrap_err().to_string().contains("already running"));
    assert_eq!(container.pids().unwrap(), [container.pid().unwrap()]);
    container.pause().unwrap();
    assert_eq!(status(), Status::Paused);
    container.resume().unwrap();
    assert_eq!(status(), Status::Running);
    let pidfd = container.pidfd().unwrap().try_clone_to_owned().unwrap();
    let refused = Container::load(&root, "c").unwrap().delete(Deletion::Stopped).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::FailedPrecondition);
    container.kill(libc::SIGKILL, Target::Init).unwrap();
    assert_eq!(wait(&pidfd), 128 + libc::SIGKILL);
    assert_eq!(status(), Status::Stopped);
    assert_eq!(container.kill(libc::SIGTERM, Target::Init).unwrap_err().kind(), ErrorKind::NotFound);
    container.delete(Deletion::Stopped).unwrap();
    assert_eq!(Container::load(&root, "c").unwrap_err().kind(), ErrorKind::NotFound);
    Leftovers::none(&bundle.scratch);
}

#[test]
fn exec_joins_everything_of_the_container() {
    let Some(mut bundle) = Bundle::new() else { return };
    bundle.spec.hostname = "inside".into();
    let mut sleeping = Sleeping::start(bundle);
    let container = sleeping.get();
    let outcome = exec(
        container,
        "hostname; echo $HOME; for p in 1 self; do for n in pid net cgroup; do readlink /proc/$p/ns/$n; done; done; cat /proc/self/cgroup; grep -E 'Seccomp:|NoNewPrivs|CapEff' /proc/self/status; exit 3",
    );
    assert_eq!(outcome.code, 3, "{outcome:?}");
    let lines: Vec<&str> = outcome.stdout.lines().collect();
    assert_eq!(&lines[..2], ["inside", "/root"]);
    assert_eq!(lines[2..5], lines[5..8], "the namespaces of process 1");
    for line in &lines[8..] {
        let fine = line.ends_with(":/")
            || line.starts_with("Seccomp:\t2")
            || line.starts_with("NoNewPrivs:\t1")
            || line.starts_with("CapEff:\t00000000a80425fb");
        assert!(fine, "{line}");
    }
    // From another process' view of it as well.
    let mut loaded = Container::load(&sleeping.bundle.path("state"), "c").unwrap();
    assert_eq!(exec(&mut loaded, "hostname").stdout, "inside\n");
}

#[test]
fn a_missing_program_is_told_in_runcs_words() {
    let Some(mut bundle) = Bundle::new() else { return };
    let mut error = |args: &[&str]| bundle.args(args).run().unwrap_err().chain();
    assert_eq!(
        error(&["nope"]),
        "unable to start container process: exec: \"nope\": executable file not found in $PATH"
    );
    assert_eq!(
        error(&["/nope"]),
        "unable to start container process: exec: \"/nope\": stat /nope: no such file or directory"
    );
    assert_eq!(
        error(&["/etc/passwd"]),
        "unable to start container process: exec: \"/etc/passwd\": permission denied"
    );
    assert_eq!(error(&["/etc"]), "unable to start container process: exec: \"/etc\": is a directory");
    std::fs::write(bundle.rootfs().join("bin/rubbish"), [0u8; 64]).unwrap();
    let path = bundle.rootfs().join("bin/rubbish");
    std::fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let error = bundle.args(&["rubbish"]).run().unwrap_err().chain();
    assert_eq!(error, "unable to start container process: exec rubbish: exec format error");
    Leftovers::none(&bundle.scratch);
}

#[test]
fn limits_are_set_and_changed_and_usage_is_told() {
    let Some(mut bundle) = Bundle::new() else { return };
    let resources = bundle.linux().resources.get_or_insert_default();
    resources.memory.get_or_insert_default().limit = Some(64 << 20);
    resources.cpu.get_or_insert_default().shares = Some(512);
    resources.pids.get_or_insert_default().limit = Some(50);
    let mut sleeping = Sleeping::start(bundle);
    let container = sleeping.get();
    let limits = |container: &Container| match container.stats().unwrap() {
        berth_cgroup::Metrics::V1(m) => (m.memory.unwrap().usage.unwrap().limit, m.pids.unwrap().limit),
        berth_cgroup::Metrics::V2(m) => (m.memory.unwrap().usage_limit, m.pids.unwrap().limit),
    };
    assert_eq!(limits(container), (64 << 20, 50));
    let mut change = berth_oci::runtime::Resources::default();
    change.memory.get_or_insert_default().limit = Some(32 << 20);
    change.pids.get_or_insert_default().limit = Some(20);
    container.update(&change).unwrap();
    assert_eq!(limits(container), (32 << 20, 20));
    let kept = Container::load(&sleeping.bundle.path("state"), "c").unwrap();
    assert_eq!(
        kept.spec().linux.as_ref().unwrap().resources.as_ref().unwrap().pids.as_ref().unwrap().limit,
        Some(20)
    );
}

#[test]
fn a_checkpoint_without_criu_names_the_package_and_the_container_goes_on() {
    if ["/usr/sbin/criu", "/usr/bin/criu", "/usr/local/sbin/criu", "/usr/local/bin/criu"].iter().any(there) {
        // The guest has it, and a test of its own.
        return;
    }
    let Some(bundle) = Bundle::new() else { return };
    let mut sleeping = Sleeping::start(bundle);
    let images = sleeping.bundle.path("images");
    let container = sleeping.get();
    let request = Checkpoint { images: images.clone(), ..Checkpoint::default() };
    let error = container.checkpoint(&request).unwrap_err();
    assert!(error.chain().contains("package criu"), "{}", error.chain());
    assert_eq!(error.kind(), ErrorKind::Unsupported);
    assert_eq!(container.status().unwrap(), Status::Running);
    assert!(!there(&images));

    let other =
        Restore { create: sleeping.bundle.request("other", Stdio::Inherit), images, ..Restore::default() };
    let error = Container::restore(other).unwrap_err();
    assert!(error.chain().contains("package criu"), "{}", error.chain());
    assert!(matches!(Container::load(&sleeping.bundle.path("state"), "other"), Err(Error::NotFound { .. })));
}
