//! The suite by which Kubernetes' own developers tell whether a runtime can be used: critest 1.36, on a host that is a
//! network namespace of the test's own, with images that are pulled from a registry there.
//!
//! Two tests run a half each, for the suite mostly waits. The same on containerd 2.3.4, to compare with:
//! `cargo test -p e2e --test critest -- --ignored containerd`.

mod images;
mod report;

use std::process::Command;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use berth_sys::thread::in_new_network;
use e2e::crictl;
use testkit::registry::DockerRegistry;
use testkit::{Daemon, Invocation, Kind, Setup, cgroups, mounts, need, programs};

use report::Report;

/// The longest that a half may take.
const LIMIT: Duration = Duration::from_secs(1200);
/// The first words of what the first half does.
const SECURITY: &str = "Security Context";
/// The networks of the pods.
const NETWORK: &str = r#"{"cniVersion":"1.0.0","name":"pods","plugins":[{"type":"bridge","bridge":"pods0",
"isGateway":true,"ipMasq":false,"ipam":{"type":"host-local","ranges":[[{"subnet":"10.88.0.0/16"}]],
"routes":[{"dst":"0.0.0.0/0"}],"dataDir":"DATA"}},{"type":"portmap","capabilities":{"portMappings":true}}]}"#;
/// The images' names on the internet begin with these.
const REGISTRIES: [&str; 3] = ["registry.k8s.io", "k8s.gcr.io", "gcr.io"];

/// Which specs run.
enum Half {
    /// Those whose text has the words.
    With(&'static str),
    /// The others.
    Without(&'static str),
}

/// Runs a half of the suite on a daemon of that kind, and lets `judge` see what came of it; says what is missing and
/// gives nothing where something is.
fn run<T: Send>(kind: Kind, half: &Half, judge: impl FnOnce(Report) -> T + Send) -> Option<T> {
    let critest = need::program("critest").ok()?;
    need::program("crictl").ok()?;
    kind.program().ok()?;
    need::program("ip").and(need::program("ipcmk")).and(need::program("docker-registry")).ok()?;
    need::path(&images::shell().display().to_string()).and(need::program("ldd")).ok()?;
    need::path(&programs::peers().join("cni-1.1.1/usr/lib/cni/bridge").display().to_string()).ok()?;
    need::root().ok()?;
    let host = || {
        assert!(Command::new("ip").args(["link", "set", "lo", "up"]).status()?.success());
        let Ok(registry) = DockerRegistry::start() else { return Ok(None) };
        let digest = images::push(&registry);
        let daemon = start(kind, &registry);
        let report = daemon.scratch().path("report.json");
        let program = with_digest(&critest, &digest, &daemon);
        let socket = format!("unix://{}", daemon.address().display());
        let _cgroups = Cgroups::taken();
        let segments = segments();
        let own = daemon.scratch().path("tmp");
        std::fs::create_dir_all(&own).expect("the scratch folder takes folders");
        let half = match half {
            Half::With(words) => format!("-ginkgo.focus={words}"),
            Half::Without(words) => format!("-ginkgo.skip={words}"),
        };
        // Its exit code says no more than the report does.
        let outcome = Invocation::new(program)
            .args(["-runtime-endpoint", &socket, "-image-endpoint", &socket, "-ginkgo.no-color"])
            .arg(half)
            .arg(format!("-ginkgo.json-report={}", report.display()))
            .current_dir(daemon.scratch().folder())
            .env("TMPDIR", &own)
            .within(LIMIT)
            .outcome();
        remove_segments(&segments);
        mounts::unmount_beneath(&own);
        let report = Report::read(&report).unwrap_or_else(|| panic!("there is no report: {outcome}"));
        let judged = judge(report);
        // A spec that failed may have left its pod.
        crictl(&daemon, "rmp --all --force").ok();
        if kind == Kind::Berth {
            daemon.finish();
        }
        Ok(Some(judged))
    };
    in_new_network(host).expect("a network namespace can be made")
}

fn start(kind: Kind, registry: &DockerRegistry) -> Daemon {
    let config = "[plugins.'io.containerd.grpc.v1.cri']\nnetns_mounts_under_state_dir = true\n\
                  sandbox_image = 'registry.k8s.io/pause:3.10.1'\n\
                  [plugins.'io.containerd.grpc.v1.cri'.cni]\nconf_dir = 'SCRATCH/net.d'\nbin_dir = 'PEERS/cni-1.1.1/usr/lib/cni'\nIN_PROCESS\n\
                  [plugins.'io.containerd.grpc.v1.cri'.registry]\nconfig_path = 'SCRATCH/certs.d'\n";
    // Debian's portmap wants iptables, which a host that has nftables alone lacks.
    let in_process = if kind == Kind::Berth { "berth_in_process = true" } else { "" };
    let config =
        config.replace("PEERS", &programs::peers().display().to_string()).replace("IN_PROCESS", in_process);
    let setup = Setup { kubernetes: true, config, before: Some(prepare), ..Setup::default() };
    let daemon = Daemon::with(kind, setup).expect("what it needs was looked for");
    for name in REGISTRIES {
        let address = format!("http://{}", registry.address());
        let text = format!("server = '{address}'\n[host.'{address}']\ncapabilities = ['pull', 'resolve']\n");
        daemon.scratch().file(&format!("certs.d/{name}/hosts.toml"), text);
    }
    daemon
}

fn prepare(scratch: &testkit::Scratch) {
    let folders = REGISTRIES.map(|name| format!("certs.d/{name}"));
    for folder in folders.iter().map(String::as_str).chain(["net.d"]) {
        std::fs::create_dir_all(scratch.path(folder)).expect("the scratch folder takes folders");
    }
    let network = NETWORK.replace("DATA", &scratch.path("leases").display().to_string());
    scratch.file("net.d/10-pods.conflist", network);
}

/// critest asks for one image by the digest that it has on the internet; this gives a critest that asks for the digest of
/// the one that is here.
fn with_digest(critest: &std::path::Path, digest: &str, daemon: &Daemon) -> std::path::PathBuf {
    use std::os::unix::fs::PermissionsExt as _;
    let mut program = std::fs::read(critest).expect("a program that was found can be read");
    let before = b"test-image-digest@";
    let at = program.windows(before.len()).position(|bytes| bytes == before);
    let at = at.expect("critest names an image by its digest") + before.len();
    program[at..at + digest.len()].copy_from_slice(digest.as_bytes());
    let path = daemon.scratch().file("critest", program);
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).expect("it is the test's own");
    path
}

/// The segments of shared memory of the host: critest makes some, and leaves them.
fn segments() -> Vec<String> {
    let table = std::fs::read_to_string("/proc/sysvipc/shm").unwrap_or_default();
    table.lines().skip(1).filter_map(|line| line.split_whitespace().nth(1).map(str::to_owned)).collect()
}

fn remove_segments(before: &[String]) {
    for segment in segments().into_iter().filter(|segment| !before.contains(segment)) {
        // Somebody else's may have gone in this moment.
        Invocation::new("ipcrm").args(["-m", &segment]).outcome();
    }
}

/// The cgroup that pods without a parent are in. The runtime leaves it, as every runtime does; whoever is its last user
/// here removes it, unless it was there before.
struct Cgroups;

/// The name that Kubernetes' namespace gives it.
const CGROUP: &str = "k8s.io";
/// How many use it, and whether it was there before the first of them.
static USERS: Mutex<(u32, bool)> = Mutex::new((0, false));

impl Cgroups {
    fn taken() -> Self {
        let mut users = USERS.lock().unwrap_or_else(PoisonError::into_inner);
        if users.0 == 0 {
            users.1 = !cgroups::tagged(CGROUP).is_empty();
        }
        users.0 += 1;
        Self
    }
}

impl Drop for Cgroups {
    fn drop(&mut self) {
        let mut users = USERS.lock().unwrap_or_else(PoisonError::into_inner);
        users.0 -= 1;
        if *users == (0, false) {
            cgroups::remove_tagged(CGROUP);
        }
    }
}

#[test]
fn the_security_contexts_of_pods_and_containers_are_as_kubernetes_wants_them() {
    run(Kind::Berth, &Half::With(SECURITY), |report| report.demand(35));
}

#[test]
fn everything_else_is_as_kubernetes_wants_it() {
    run(Kind::Berth, &Half::Without(SECURITY), |report| report.demand(65));
}

#[test]
#[ignore = "the oracle: minutes, and nothing of berth's is in it"]
fn containerd_passes_no_more_than_berth_does() {
    for half in [Half::With(SECURITY), Half::Without(SECURITY)] {
        let Some(containerd) = run(Kind::Containerd, &half, |report| report) else { return };
        let Some(berth) = run(Kind::Berth, &half, |report| report) else { return };
        let more: Vec<_> = containerd.passed.difference(&berth.passed).collect();
        eprintln!("containerd failed {:#?}", containerd.failed);
        assert!(more.is_empty(), "these pass with containerd and not with berth: {more:#?}");
    }
}
