//! A node of a cluster as its kubelet sees it: a daemon that runs pods, spoken to over gRPC, on a host that is a network
//! namespace of the test's own.
//!
//! The pods' network is Debian's `bridge` and `host-local` unless a test brings another; namespaces of pods are held
//! beneath the daemon's state folder, so that whatever is left behind is found there.

mod left;
mod requests;

use std::fs;
use std::future::Future;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use berth_proto::runtime::v1 as proto;
use berth_sys::thread::in_new_network;
use hyper_util::rt::TokioIo;
use proto::runtime_service_client::RuntimeServiceClient;
use testkit::{Daemon, Invocation, Kind, Setup, image, need, programs};
use tokio::net::UnixStream;
use tokio::task::JoinHandle;
use tonic::transport::{Channel, Endpoint, Uri};
use tonic::{Response, Status};

pub use requests::{container, create, give_own_users, pod, run_pod};

/// The image that is there.
const IMAGE: &str = "berth.test/busybox:1";
/// The image of first processes, for a daemon that cannot do without.
const PAUSE: &str = "berth.test/pause:1";
/// The longest that an answer may take.
const LIMIT: Duration = Duration::from_secs(120);
/// The largest message that is taken: two streams of 16 MiB and some.
const LARGEST: usize = 64 << 20;
/// The networks, until a test says otherwise.
const NETWORK: &str = r#"{"cniVersion":"1.0.0","name":"pods","plugins":[{"type":"bridge","bridge":"pods0",
"isGateway":true,"ipam":{"type":"host-local","ranges":[[{"subnet":"10.88.0.0/16"}]],
"routes":[{"dst":"0.0.0.0/0"}],"dataDir":"DATA"}}]}"#;

/// What came of a request.
pub type Answer<T> = Result<T, Status>;
/// A client of the runtime service.
pub type Client = RuntimeServiceClient<Channel>;

/// A node that runs.
#[derive(Debug)]
pub struct Node {
    /// Its daemon.
    pub daemon: Daemon,
    runtime: tokio::runtime::Runtime,
}

/// A request that is under way.
#[derive(Debug)]
pub struct Asked<T>(JoinHandle<Answer<T>>);

impl Node {
    /// Runs `test` on a node of its own, and demands that the node is as bare afterwards as before. Says what is
    /// missing and returns where something is.
    #[track_caller]
    pub fn run(test: impl FnOnce(&mut Self) + Send) {
        Self::run_with("", test);
    }

    /// The same with more of the configuration's table of the CRI, in version 2's form.
    #[track_caller]
    pub fn run_with(more: &str, test: impl FnOnce(&mut Self) + Send) {
        Self::host(Kind::Berth, more, |mut node| {
            test(&mut node);
            node.demand_bare();
            node.daemon.finish();
        });
    }

    /// Runs `test` on a node of containerd's, to see what that does.
    #[track_caller]
    pub fn oracle(test: impl FnOnce(&mut Self) + Send) {
        Self::oracle_with("", test);
    }

    /// The same with more of the configuration.
    #[track_caller]
    pub fn oracle_with(more: &str, test: impl FnOnce(&mut Self) + Send) {
        // A machine may not let its root lower scores, and the first process of a pod has a low one.
        let more = format!("restrict_oom_score_adj = true\nsandbox_image = '{PAUSE}'\n{more}");
        Self::host(Kind::Containerd, &more, |mut node| {
            let pause = image::busybox().expect("it was looked for").named(PAUSE).cmd(&["sleep", "100000"]);
            node.import(&pause);
            test(&mut node);
        });
    }

    #[track_caller]
    fn host(kind: Kind, more: &str, test: impl FnOnce(Self) + Send) {
        let host = || {
            if Self::is_possible(kind) {
                assert!(Command::new("ip").args(["link", "set", "lo", "up"]).status()?.success());
                test(Self::start(kind, more));
            }
            Ok(())
        };
        in_new_network(host).expect("a network namespace can be made");
    }

    fn is_possible(kind: Kind) -> bool {
        let plugin = programs::peers().join("cni-1.1.1/usr/lib/cni/bridge");
        need::root().is_ok()
            && need::path(&plugin.display().to_string()).is_ok()
            && kind.program().is_ok()
            && need::program("ctr").is_ok()
            && need::program("ip").is_ok()
            && image::busybox().is_ok()
    }

    fn start(kind: Kind, more: &str) -> Self {
        let config = format!(
            "[plugins.'io.containerd.grpc.v1.cri']\nnetns_mounts_under_state_dir = true\n{more}\n\
             [plugins.'io.containerd.grpc.v1.cri'.cni]\nconf_dir = 'SCRATCH/net.d'\nbin_dir = 'SCRATCH/plugins'\n"
        );
        let setup = Setup { kubernetes: true, config, before: Some(prepare), ..Setup::default() };
        let daemon = Daemon::with(kind, setup).expect("what it needs was looked for");
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
        let node = Self { daemon, runtime: runtime.expect("a thread can be started") };
        let image = image::busybox().expect("it was looked for").named(IMAGE);
        node.import(&image);
        node
    }

    /// Brings an image.
    #[track_caller]
    pub fn import(&self, image: &image::Image) {
        let archive = self.daemon.scratch().file("image.tar", image.oci_archive());
        self.ctr("images import --local").arg(archive).ok();
    }

    /// `ctr` in the namespace of Kubernetes.
    pub fn ctr(&self, line: &str) -> Invocation {
        let ctr = self.daemon.ctr().expect("it was looked for");
        ctr.args(["--namespace", "k8s.io"]).line(line)
    }

    /// A path in the node's own folder.
    pub fn path(&self, name: &str) -> PathBuf {
        self.daemon.scratch().path(name)
    }

    /// The file that describes the pods' network.
    pub fn network(&self) -> PathBuf {
        self.path("net.d/10-pods.conflist")
    }

    /// Puts a program among the network's plugins.
    pub fn plugin(&self, name: &str, script: &str) {
        use std::os::unix::fs::PermissionsExt as _;
        let path = self.path("plugins").join(name);
        let _ = fs::remove_file(&path);
        fs::write(&path, script).expect("the scratch folder takes a script");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("it is the test's own");
    }

    /// Asks, and waits for the answer.
    #[track_caller]
    pub fn ask<T, F>(&self, call: impl FnOnce(Client) -> F) -> Answer<T>
    where
        F: Future<Output = Answer<Response<T>>>,
    {
        let answer = self.runtime.block_on(async { tokio::time::timeout(LIMIT, call(self.client())).await });
        answer.unwrap_or_else(|_| panic!("no answer within {LIMIT:?}")).map(Response::into_inner)
    }

    /// Asks, and waits for nothing.
    pub fn asking<T, F>(&self, call: impl FnOnce(Client) -> F) -> Asked<T>
    where
        T: Send + 'static,
        F: Future<Output = Answer<Response<T>>> + Send + 'static,
    {
        let _context = self.runtime.enter();
        let call = call(self.client());
        Asked(self.runtime.spawn(async { call.await.map(Response::into_inner) }))
    }

    /// Waits for a request that is under way.
    #[track_caller]
    pub fn answer<T>(&self, asked: Asked<T>) -> Answer<T> {
        let answer = self.runtime.block_on(async { tokio::time::timeout(LIMIT, asked.0).await });
        answer.unwrap_or_else(|_| panic!("no answer within {LIMIT:?}")).expect("a request does not panic")
    }

    /// Waits for something of the client's own, at most as long as for an answer.
    #[track_caller]
    pub fn wait<T>(&self, what: &str, future: impl Future<Output = T>) -> T {
        let done = self.runtime.block_on(async { tokio::time::timeout(LIMIT, future).await });
        done.unwrap_or_else(|_| panic!("waited {LIMIT:?} for {what}"))
    }

    /// Lets something of the client's own go on beside the test.
    pub fn spawn(&self, work: impl Future<Output = ()> + Send + 'static) -> JoinHandle<()> {
        self.runtime.spawn(work)
    }

    /// A client with a connection of its own.
    fn client(&self) -> Client {
        let path = self.daemon.address();
        let connector = tower::service_fn(move |_: Uri| {
            let path = path.clone();
            async move { UnixStream::connect(path).await.map(TokioIo::new) }
        });
        let _context = self.runtime.enter();
        let channel = Endpoint::from_static("http://localhost").connect_with_connector_lazy(connector);
        RuntimeServiceClient::new(channel).max_decoding_message_size(LARGEST)
    }
}

impl<T> Asked<T> {
    /// Waits for the answer, but not for long.
    pub fn within(&mut self, node: &Node, limit: Duration) -> Option<Answer<T>> {
        let answer = node.runtime.block_on(async { tokio::time::timeout(limit, &mut self.0).await });
        answer.ok().map(|answer| answer.expect("a request does not panic"))
    }

    /// Hangs up, as a client does that is killed.
    pub fn hang_up(self) {
        self.0.abort();
    }

    /// Whether the answer has come.
    pub fn is_answered(&self) -> bool {
        self.0.is_finished()
    }
}

/// Makes the folders of networks and plugins.
fn prepare(scratch: &testkit::Scratch) {
    for folder in ["net.d", "plugins", "logs"] {
        fs::create_dir_all(scratch.path(folder)).expect("the scratch folder takes folders");
    }
    let network = NETWORK.replace("DATA", &scratch.path("leases").display().to_string());
    scratch.file("net.d/10-pods.conflist", network);
    for plugin in ["bridge", "host-local", "loopback", "portmap", "firewall", "tuning"] {
        let program = programs::peers().join("cni-1.1.1/usr/lib/cni").join(plugin);
        std::os::unix::fs::symlink(program, scratch.path("plugins").join(plugin))
            .expect("the scratch folder takes a link");
    }
}
