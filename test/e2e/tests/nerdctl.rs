//! nerdctl 2.3 on berthd.

use testkit::registry::DockerRegistry;
use testkit::{Daemon, Invocation, Kind, image, need, wait};

const IMAGE: &str = "berth.test/busybox:1";

/// A daemon and nerdctl's folders beside it.
struct Nerdctl {
    daemon: Daemon,
    program: std::path::PathBuf,
}

impl Nerdctl {
    /// Starts a daemon and loads the image.
    fn start(kind: Kind) -> Option<Self> {
        let program = need::program("nerdctl").ok()?;
        let image = image::busybox().ok()?;
        let nerdctl = Self { daemon: Daemon::start(kind).ok()?, program };
        let archive = nerdctl.daemon.scratch().file("busybox.tar", image.oci_archive());
        let loaded = nerdctl.run("load --input").arg(archive).ok();
        assert!(loaded.contains(&format!("Loaded image: {IMAGE}\n")), "{loaded}");
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

#[test]
fn nerdctl_saves_loads_and_tags() {
    let Some(nerdctl) = Nerdctl::start(Kind::Berth) else { return };
    let archive = nerdctl.daemon.scratch().path("saved.tar");
    nerdctl.run(&format!("tag {IMAGE} berth.test/tagged:2")).ok();
    nerdctl.run("save --output").arg(&archive).arg(IMAGE).arg("berth.test/tagged:2").ok();
    nerdctl.run("tag berth.test/absent:1 berth.test/more:1").fails();
    nerdctl.run("rmi --force berth.test/tagged:2").arg(IMAGE).ok();
    nerdctl.container(&format!("--rm --pull never {IMAGE} true")).fails();
    let loaded = nerdctl.run("load --input").arg(&archive).ok();
    for name in [IMAGE, "berth.test/tagged:2"] {
        assert!(loaded.contains(&format!("Loaded image: {name}\n")), "{loaded}");
        assert_eq!(nerdctl.container(&format!("--rm {name} echo {name}")).ok(), format!("{name}\n"));
    }
    let quiet = nerdctl.run("load --quiet --input").arg(&archive).ok();
    assert!(!quiet.contains("Loaded image"), "{quiet}");
    nerdctl.run("load --input").arg(nerdctl.daemon.scratch().file("broken.tar", "no archive")).fails();

    // A root file system becomes an image.
    let Ok(image) = image::busybox() else { return };
    let Ok(gzip) = need::program("gzip") else { return };
    let compressed = nerdctl.daemon.scratch().file("root.tar.gz", &image.blobs()[0]);
    Invocation::new(gzip).arg("-d").arg(compressed).ok();
    nerdctl.run("import").arg(nerdctl.daemon.scratch().path("root.tar")).arg("berth.test/imported:1").ok();
    assert_eq!(nerdctl.container("--rm berth.test/imported:1 echo root").ok(), "root\n");
    nerdctl.daemon.finish();
}

#[test]
fn nerdctl_pushes_and_pulls() {
    let Some(nerdctl) = Nerdctl::start(Kind::Berth) else { return };
    let Ok(registry) = DockerRegistry::with_login() else { return };
    let config = nerdctl.daemon.scratch().path("docker");
    let run = |line: &str| nerdctl.run(line).env("DOCKER_CONFIG", &config);
    let name = format!("{}/team/busybox:1", registry.address());
    nerdctl.run(&format!("tag {IMAGE} {name}")).ok();
    run(&format!("push {name}")).fails();
    let (user, password) = registry.login();
    run(&format!("login --username {user} --password {password} {}", registry.address())).ok();
    // With the flag it goes through the daemon, without it nerdctl pushes itself.
    run(&format!("push --allow-nondistributable-artifacts {name}")).ok();
    run(&format!("push {name}")).ok();
    nerdctl.run(&format!("rmi --force {name} {IMAGE}")).ok();
    nerdctl.run(&format!("pull {name}")).fails();
    let told = run(&format!("pull {name}")).ok();
    assert!(told.contains("fetching image content") && told.contains("saved"), "{told}");
    let container = nerdctl.container(&format!("--rm --pull never {name} echo pulled"));
    assert_eq!(container.ok(), "pulled\n");
    // What is not there is pulled by `run` itself.
    nerdctl.run(&format!("rmi --force {name}")).ok();
    let container = nerdctl.container(&format!("--rm --quiet {name} echo again"));
    assert_eq!(container.env("DOCKER_CONFIG", &config).ok(), "again\n");
    nerdctl.daemon.finish();
}
