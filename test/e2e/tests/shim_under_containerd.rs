//! Our shim under Go's containerd: 2.3.4, which starts it by the bootstrap protocol, and Debian's 1.6, which reads
//! the bare address. ctr of the same age is the client. With the built-in runtime, and with runc behind it.

use std::path::PathBuf;

use rustix::process::Signal;
use testkit::{Daemon, Invocation, Kind, Setup, image, need, programs, wait};

/// Which low-level runtime the shim is told to use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Runtime {
    Native,
    Runc,
}

/// A containerd that finds our shim where it looks for its own.
struct Host {
    daemon: Daemon,
    runtime: Runtime,
    runc: PathBuf,
    /// Holds the shim under containerd's name; goes after the daemon.
    _shims: tempfile::TempDir,
}

macro_rules! everywhere {
    ($($name:ident),* $(,)?) => {
        everywhere!(@ containerd_23_native Containerd Native $($name)*);
        everywhere!(@ containerd_23_runc Containerd Runc $($name)*);
        everywhere!(@ containerd_16_native Debian Native $($name)*);
        everywhere!(@ containerd_16_runc Debian Runc $($name)*);
    };
    (@ $module:ident $kind:ident $runtime:ident $($name:ident)*) => {
        mod $module {
            $(#[test] fn $name() {
                if let Ok(host) = super::Host::start(super::Kind::$kind, super::Runtime::$runtime) { super::$name(host); }
            })*
        }
    };
}

everywhere!(
    a_command_runs_and_its_output_and_code_come_back,
    a_task_is_started_looked_at_killed_and_deleted,
    more_processes_run_in_a_task,
    a_terminal_is_one_inside,
    a_task_survives_the_daemon,
    a_killed_shim_is_cleared_away,
    a_missing_program_is_named,
);

impl Host {
    fn start(kind: Kind, runtime: Runtime) -> Result<Self, need::Missing> {
        let shim = programs::own("berth-shim").map_or_else(|| need::program("berth-shim"), Ok)?;
        let runc = need::program("runc")?;
        let shims = tempfile::tempdir().expect("a folder");
        std::os::unix::fs::symlink(shim, shims.path().join("containerd-shim-runc-v2")).expect("a link");
        let setup = Setup { path: vec![shims.path().to_owned()], ..Setup::default() };
        let daemon = Daemon::with(kind, setup)?;
        let host = Self { daemon, runtime, runc, _shims: shims };
        let archive = host.daemon.scratch().file("image.tar", image::busybox()?.oci_archive());
        host.ctr().line("image import --digests=true").arg(archive).ok();
        Ok(host)
    }

    /// The client of the daemon's age.
    fn ctr(&self) -> Invocation {
        let client = match self.daemon.kind() {
            Kind::Debian => self.daemon.old_ctr(),
            Kind::Containerd | Kind::Berth => self.daemon.ctr(),
        };
        client.expect("the client came with the daemon")
    }

    /// `ctr run FLAGS IMAGE ID SCRIPT`.
    fn run(&self, flags: &str, id: &str, script: &str) -> Invocation {
        let mut run = self.ctr().arg("run").line(flags);
        if self.runtime == Runtime::Runc {
            run = run.arg("--runc-binary").arg(&self.runc);
        }
        run.args(["berth.test/busybox:1", id, "/bin/sh", "-c", script])
    }

    /// The STATUS column of `ctr task ls`.
    fn status(&self, id: &str) -> Option<String> {
        let list = self.ctr().line("task ls").ok();
        let line = list.lines().find(|line| line.split_whitespace().next() == Some(id))?;
        line.split_whitespace().nth(2).map(str::to_owned)
    }

    fn shim_pids(&self) -> Vec<u32> {
        let tagged = testkit::processes::tagged(self.daemon.tag());
        tagged
            .iter()
            .filter(|one| one.command.contains("containerd-shim-runc-v2"))
            .map(|one| one.pid)
            .collect()
    }

    fn finish(self) {
        let Self { daemon, _shims, .. } = self;
        daemon.finish();
    }
}

fn a_command_runs_and_its_output_and_code_come_back(host: Host) {
    let outcome = host.run("--rm", "a", "echo out; echo err >&2; exit 7").outcome();
    assert_eq!((outcome.code(), outcome.stdout_text().as_str()), (7, "out\n"), "{outcome}");
    assert!(outcome.stderr_text().contains("err\n"), "{outcome}");
    let long = host.run("--rm", "b", "yes 0123456789 | head -c 1000000").ok();
    assert_eq!(long.len(), 1_000_000);
    host.finish();
}

fn a_task_is_started_looked_at_killed_and_deleted(host: Host) {
    host.run("-d", "a", "trap 'exit 9' TERM; echo ready; while :; do sleep 0.05; done").ok();
    assert_eq!(host.status("a").as_deref(), Some("RUNNING"));
    let program = std::fs::read_link(format!("/proc/{}/exe", host.shim_pids()[0])).expect("the shim runs");
    assert!(program.ends_with("berth-shim"), "{}", program.display());
    assert!(host.ctr().line("task ps a").ok().lines().count() >= 2);
    let metrics = host.ctr().line("task metrics a").ok();
    assert!(metrics.contains("memory.usage") || metrics.contains("memory"), "{metrics}");
    host.ctr().line("task pause a").ok();
    assert_eq!(host.status("a").as_deref(), Some("PAUSED"));
    host.ctr().line("task resume a").ok();
    assert_eq!(host.status("a").as_deref(), Some("RUNNING"));
    host.ctr().line("task kill --signal TERM a").ok();
    wait::soon("the end of the task", || host.status("a").as_deref() == Some("STOPPED"));
    let deleted = host.ctr().line("task rm a").outcome();
    assert!(deleted.code() == 0 || deleted.code() == 9, "{deleted}");
    assert_eq!(host.status("a"), None);
    host.ctr().line("container rm a").ok();
    wait::soon("the end of the shim", || host.shim_pids().is_empty());
    host.finish();
}

fn more_processes_run_in_a_task(host: Host) {
    host.run("-d", "a", "sleep 1000").ok();
    let exec = |id: &str, script: &str| {
        host.ctr().line("task exec --exec-id").arg(id).args(["a", "/bin/sh", "-c", script])
    };
    let seen = exec("e1", "echo in; cat /proc/1/cmdline | tr '\\0' ' '").ok();
    assert!(seen.starts_with("in\n") && seen.contains("sleep 1000"), "{seen}");
    assert_eq!(exec("e2", "exit 5").outcome().code(), 5);
    assert_eq!(exec("e3", "cat").input("typed\n").ok(), "typed\n");
    host.ctr().line("task kill --signal KILL a").ok();
    wait::soon("the end of the task", || host.status("a").as_deref() == Some("STOPPED"));
    host.ctr().line("task rm a").outcome();
    host.ctr().line("container rm a").ok();
    host.finish();
}

fn a_terminal_is_one_inside(host: Host) {
    // script(1) gives ctr the terminal that it asks for.
    let Ok(script) = need::program("script") else { return };
    let ctr = match host.daemon.kind() {
        Kind::Debian => programs::debian("ctr"),
        Kind::Containerd | Kind::Berth => programs::containerd("ctr"),
    };
    let line = format!(
        "{} --address {} --namespace {} run --rm -t {} berth.test/busybox:1 a /bin/sh -c 'tty; stty size'",
        ctr.expect("it was found").display(),
        host.daemon.address().display(),
        host.daemon.tag(),
        if host.runtime == Runtime::Runc {
            format!("--runc-binary {}", host.runc.display())
        } else {
            String::new()
        },
    );
    let text = Invocation::new(script).args(["-qec", &line, "/dev/null"]).ok();
    assert!(text.contains("/dev/pts/") || text.contains("/dev/console"), "{text}");
    host.finish();
}

fn a_task_survives_the_daemon(mut host: Host) {
    host.run("-d", "a", "sleep 1000").ok();
    host.run("-d", "b", "sleep 1; exit 4").ok();
    host.daemon.kill();
    host.daemon.restart();
    assert_eq!(host.status("a").as_deref(), Some("RUNNING"));
    wait::soon("b's end", || host.status("b").as_deref() == Some("STOPPED"));
    let exec = host.ctr().line("task exec --exec-id e a /bin/echo still here").ok();
    assert_eq!(exec, "still here\n");
    for id in ["a", "b"] {
        host.ctr().line("task kill --signal KILL").arg(id).outcome();
        wait::soon("the end of the task", || host.status(id).as_deref() == Some("STOPPED"));
        host.ctr().line("task rm").arg(id).outcome();
        host.ctr().line("container rm").arg(id).ok();
    }
    host.finish();
}

fn a_killed_shim_is_cleared_away(host: Host) {
    host.run("-d", "a", "sleep 1000").ok();
    let pids = host.shim_pids();
    assert_eq!(pids.len(), 1, "one shim");
    wait::Watched::open(pids[0]).expect("it runs").signal(Signal::KILL);
    wait::soon("the end of the task", || host.status("a").is_none_or(|status| status == "STOPPED"));
    host.ctr().line("task rm -f a").outcome();
    host.ctr().line("container rm a").ok();
    host.finish();
}

fn a_missing_program_is_named(host: Host) {
    let mut run = host.ctr().line("run --rm");
    if host.runtime == Runtime::Runc {
        run = run.arg("--runc-binary").arg(&host.runc);
    }
    let error = run.args(["berth.test/busybox:1", "a", "/bin/nothing"]).fails();
    assert!(error.contains("/bin/nothing") && error.contains("no such file or directory"), "{error}");
    wait::soon("the end of the shim", || host.shim_pids().is_empty());
    host.finish();
}
