//! nerdctl 2.3 on berthd.

use testkit::{Daemon, Invocation, Kind, image, need, wait};

const IMAGE: &str = "berth.test/busybox:1";

/// A daemon and nerdctl's folders beside it.
struct Nerdctl {
    daemon: Daemon,
    program: std::path::PathBuf,
}

impl Nerdctl {
    /// Starts a daemon and imports the image with ctr: nerdctl's own `load` goes through the transfer service.
    fn start(kind: Kind) -> Option<Self> {
        let program = need::program("nerdctl").ok()?;
        let image = image::busybox().ok()?;
        let nerdctl = Self { daemon: Daemon::start(kind).ok()?, program };
        let archive = nerdctl.daemon.scratch().file("busybox.tar", image.oci_archive());
        nerdctl.daemon.ctr().ok()?.line("images import --local").arg(archive).ok();
        Some(nerdctl)
    }

    /// `nerdctl` with the words of `line`.
    fn run(&self, line: &str) -> Invocation {
        let scratch = self.daemon.scratch();
        self.daemon
            .client(&self.program)
            .arg("--data-root")
            .arg(scratch.path("nerdctl"))
            .args(["--cgroup-manager", "cgroupfs"])
            .env("NERDCTL_TOML", scratch.path("none.toml"))
            .env("XDG_RUNTIME_DIR", scratch.path("run"))
            .line(line)
    }

    /// The part of a `run` that all tests share.
    fn container(&self, line: &str) -> Invocation {
        self.run(&format!("run --network none --cgroup-parent /{}", self.daemon.tag())).line(line)
    }
}

#[test]
fn nerdctl_runs_and_inspects_containers() {
    let Some(nerdctl) = Nerdctl::start(Kind::Berth) else { return };
    assert_eq!(nerdctl.container(&format!("--rm {IMAGE} echo hello")).ok(), "hello\n");
    assert_eq!(nerdctl.container(&format!("--rm {IMAGE} sh -c")).arg("exit 42").outcome().code(), 42);
    // nerdctl itself forgets to close standard input at the end of a file, so the reader knows where to stop.
    let six = nerdctl.container(&format!("--rm -i {IMAGE} head -c 6")).input("in\0out");
    assert_eq!(six.ok(), "in\0out");
    nerdctl.container(&format!("-d --name one {IMAGE} sh -c")).arg("echo started; exec sleep 1000").ok();
    wait::soon("the first line", || nerdctl.run("logs one").ok() == "started\n");
    let listed = nerdctl.run("ps --format {{.Names}};{{.Status}};{{.Image}}").ok();
    assert_eq!(listed.trim(), format!("one;Up;{IMAGE}"));
    assert_eq!(nerdctl.run("exec one hostname").outcome().code(), 0);
    let complaint = nerdctl.run("exec one sh -c").arg("exit 9").fails();
    assert!(complaint.contains("exit code 9"), "{complaint}");
    nerdctl.run("pause one").ok();
    nerdctl.run("unpause one").ok();
    assert_eq!(nerdctl.run("inspect --format {{.State.Status}} one").ok().trim(), "running");
    nerdctl.run("kill one").ok();
    assert_eq!(nerdctl.run("wait one").ok().trim(), "137");
    nerdctl.run("rm one").ok();
    nerdctl.daemon.finish();
}

#[test]
fn nerdctl_copies_and_commits() {
    let Some(nerdctl) = Nerdctl::start(Kind::Berth) else { return };
    let scratch = nerdctl.daemon.scratch();
    nerdctl.container(&format!("-d --name two {IMAGE} sleep 1000")).ok();
    let file = scratch.file("note", "from the host");
    nerdctl.run("cp").arg(&file).arg("two:/note").ok();
    assert_eq!(nerdctl.run("exec two cat /note").ok(), "from the host");
    let back = scratch.path("back");
    nerdctl.run("cp two:/note").arg(&back).ok();
    assert_eq!(std::fs::read(&back).expect("cp wrote it"), b"from the host");
    nerdctl.run("commit two berth.test/committed:1").ok();
    assert_eq!(nerdctl.container("--rm berth.test/committed:1 cat /note").ok(), "from the host");
    nerdctl.run("rm -f two").ok();
    nerdctl.daemon.finish();
}
