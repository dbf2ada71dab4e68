//! A daemon's surroundings for the engine: records in memory, the events' socket, and shims.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use berth_core::{Containers, ContentStore, CreateTask, Events, Namespaces, Scope, Snapshotter, Tasks};
use berth_proto as proto;
use berth_runtime::{Config, Deps, Exchange, Runtime};
use berth_ttrpc::tokio::{Handler, Server};
use berth_ttrpc::{Code, Metadata, Status};
use berth_types::filter::Filters;
use berth_types::{
    Any, Container, ContainerId, ContainerUpdate, Envelope, Error, FieldMask, Labels, Namespace,
    NamespaceRecord, Result, RuntimeInfo, SnapshotterName, Stdio,
};
use futures::StreamExt;
use prost::Message;
use testkit::{Leftovers, Scratch};
use tokio::net::UnixListener;
use tokio::task::AbortHandle;

/// Container records of one namespace.
#[derive(Clone, Default)]
pub(crate) struct Records(Arc<Mutex<BTreeMap<ContainerId, Container>>>);

#[async_trait]
impl Containers for Records {
    async fn container(&self, id: &ContainerId) -> Result<Container> {
        let found = self.0.lock().unwrap().get(id).cloned();
        found.ok_or_else(|| Error::not_found(format!("container {id:?} not found")))
    }

    async fn list(&self, filters: &Filters) -> Result<Vec<Container>> {
        Ok(self.0.lock().unwrap().values().filter(|one| filters.matches(*one)).cloned().collect())
    }

    async fn create(&self, container: Container) -> Result<Container> {
        self.0.lock().unwrap().insert(container.id.clone(), container.clone());
        Ok(container)
    }

    async fn update(&self, update: ContainerUpdate) -> Result<Container> {
        let mut records = self.0.lock().unwrap();
        let record = records.get_mut(&update.container.id).unwrap();
        for path in update.mask.paths() {
            let key = path.strip_prefix("labels.").expect("only labels are changed here");
            record.labels.insert(key.to_owned(), update.container.labels[key].clone());
        }
        Ok(record.clone())
    }

    async fn delete(&self, id: &ContainerId) -> Result<()> {
        self.0.lock().unwrap().remove(id);
        Ok(())
    }
}

/// One namespace.
struct OneNamespace(Namespace);

#[async_trait]
impl Namespaces for OneNamespace {
    async fn namespace(&self, _: &Namespace) -> Result<NamespaceRecord> {
        Err(Error::not_found("none"))
    }

    async fn list(&self) -> Result<Vec<NamespaceRecord>> {
        Ok(vec![NamespaceRecord { name: self.0.clone(), labels: Labels::new() }])
    }

    async fn create(&self, record: NamespaceRecord) -> Result<NamespaceRecord> {
        Ok(record)
    }

    async fn update(&self, _: &Namespace, _: Labels, _: &FieldMask) -> Result<NamespaceRecord> {
        Err(Error::not_found("none"))
    }

    async fn delete(&self, _: &Namespace) -> Result<()> {
        Ok(())
    }
}

/// The daemon's ttrpc socket.
struct EventsSocket(Arc<Exchange>);

impl Handler for EventsSocket {
    async fn call(&self, _: &str, method: &str, _: Metadata, payload: Vec<u8>) -> Result<Vec<u8>, Status> {
        assert_eq!(method, "Forward");
        let request =
            proto::containerd::services::events::ttrpc::v1::ForwardRequest::decode(payload.as_slice());
        let envelope = proto::convert::from_envelope(request.unwrap().envelope.unwrap());
        match envelope {
            Ok(envelope) => self.0.forward(envelope).await.unwrap(),
            Err(error) => return Err(Status::new(Code::InvalidArgument, error.chain())),
        }
        Ok(Vec::new())
    }
}

/// A daemon's surroundings. Dropping it takes away whatever carries its tag.
pub(crate) struct World {
    pub(crate) scratch: Scratch,
    pub(crate) records: Records,
    pub(crate) exchange: Arc<Exchange>,
    pub(crate) config: Config,
    /// Rootfs of containers with a snapshot.
    pub(crate) content: Option<Arc<dyn ContentStore>>,
    socket: AbortHandle,
}

impl World {
    /// With `search_path` for shims and what they call.
    pub(crate) fn new() -> Self {
        let scratch = Scratch::new();
        let (root, state) = (scratch.path("root"), scratch.path("state"));
        let (grpc, ttrpc) = (scratch.path("d.sock"), scratch.path("d.sock.ttrpc"));
        let mut config = Config::new(&root, &state, &grpc, &ttrpc, &fake_shim());
        config.timeouts.start = Duration::from_secs(20);
        config.restart_interval = Duration::from_millis(20);
        let exchange = Exchange::new();
        let listener = UnixListener::bind(&ttrpc).unwrap();
        let server = Server::new(EventsSocket(Arc::clone(&exchange)));
        let socket = tokio::spawn(server.serve(listener, std::future::pending())).abort_handle();
        Self { scratch, records: Records::default(), exchange, config, content: None, socket }
    }

    pub(crate) fn scope(&self) -> Scope {
        Scope::new(self.namespace())
    }

    /// The tag: whatever is left of a test can be found by it.
    pub(crate) fn namespace(&self) -> Namespace {
        self.scratch.tag().parse().unwrap()
    }

    /// An engine over these surroundings; a second one after the first was closed is the next daemon.
    pub(crate) async fn runtime(&self) -> Arc<Runtime> {
        let (records, content) = (self.records.clone(), self.content.clone());
        let deps = Deps {
            events: Arc::clone(&self.exchange),
            namespaces: Arc::new(OneNamespace(self.namespace())),
            containers: Box::new(move |_: &Scope| Arc::new(records.clone()) as Arc<dyn Containers>),
            snapshotters: Box::new(|name: &SnapshotterName, _: &Scope| -> Result<Arc<dyn Snapshotter>> {
                Err(Error::not_found(format!("no snapshotter {name}")))
            }),
            content: Box::new(move |_: &Scope| content.clone().expect("this test has no content")),
            mounts: None,
        };
        Runtime::open(self.config.clone(), deps).await.unwrap()
    }

    /// The fake shim under a name that says how it behaves.
    pub(crate) fn fake(&self, behaviour: &str) -> PathBuf {
        let link = self.scratch.path(format!("fake-shim-{behaviour}"));
        if !link.exists() {
            std::os::unix::fs::symlink(fake_shim(), &link).unwrap();
        }
        link
    }

    /// A record of a container, with this shim.
    pub(crate) async fn container(&self, id: &str, shim: &Path, spec: &str) -> ContainerId {
        let id: ContainerId = id.parse().unwrap();
        let runtime = RuntimeInfo { name: shim.display().to_string(), options: None };
        let mut container = Container::new(id.clone(), runtime);
        container.spec = Some(Any::new("types.containerd.io/opencontainers/runtime-spec/1/Spec", spec));
        self.records.create(container).await.unwrap();
        id
    }

    /// The folder of a task's bundle.
    pub(crate) fn bundle(&self, id: &ContainerId) -> PathBuf {
        let folder = self.config.state.join(berth_runtime::FOLDER);
        folder.join(self.namespace().as_str()).join(id.as_str())
    }

    /// Everything that is told from now on.
    pub(crate) async fn listen(&self) -> Listener {
        Listener(self.exchange.subscribe(Filters::default()).await.unwrap())
    }

    /// No bundle, no work folder, no process, no mount. What is being removed has its time: the engine goes
    /// on meanwhile.
    pub(crate) async fn nothing_is_left(&self) {
        let removed = async {
            while Leftovers::of(&self.scratch) != Leftovers::default() || !self.folders().is_empty() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        let _ = tokio::time::timeout(testkit::wait::SOON, removed).await;
        let folders = self.folders();
        assert!(folders.is_empty(), "left: {folders:?}");
        assert_eq!(Leftovers::of(&self.scratch), Leftovers::default());
    }

    /// Bundles and work folders.
    fn folders(&self) -> Vec<PathBuf> {
        let parents = [&self.config.state, &self.config.root];
        let parents = parents.map(|at| at.join(berth_runtime::FOLDER).join(self.namespace().as_str()));
        let entries = parents.iter().flat_map(std::fs::read_dir).flatten().flatten();
        entries.map(|entry| entry.path()).collect()
    }
}

impl Drop for World {
    fn drop(&mut self) {
        self.socket.abort();
    }
}

/// A subscriber.
pub(crate) struct Listener(berth_core::EventStream);

impl Listener {
    /// The next event under `topic`.
    pub(crate) async fn next(&mut self, topic: &str) -> Envelope {
        let found = async {
            loop {
                let envelope = self.0.next().await.unwrap().unwrap();
                if envelope.event.topic() == topic {
                    return envelope;
                }
            }
        };
        tokio::time::timeout(Duration::from_secs(30), found).await.unwrap_or_else(|_| panic!("no {topic}"))
    }

    /// What was told and not looked at yet, by topic.
    pub(crate) fn topics_so_far(&mut self) -> Vec<String> {
        let mut topics = Vec::new();
        while let Some(Some(Ok(envelope))) = futures::FutureExt::now_or_never(self.0.next()) {
            topics.push(envelope.event.topic().to_owned());
        }
        topics
    }
}

/// A task without streams.
pub(crate) fn plain(container: &ContainerId) -> CreateTask {
    CreateTask {
        container: container.clone(),
        rootfs: Vec::new(),
        stdio: Stdio::default(),
        checkpoint: None,
        options: None,
        runtime_path: String::new(),
        endpoint: None,
    }
}

/// Creates and starts a task; answers its pid.
pub(crate) async fn run(tasks: &Arc<dyn Tasks>, container: &ContainerId) -> u32 {
    tasks.create(plain(container)).await.unwrap();
    tasks.start(&berth_types::ProcessRef::init(container.clone())).await.unwrap()
}

fn fake_shim() -> PathBuf {
    let here = std::env::current_exe().unwrap();
    let path = here.parent().unwrap().parent().unwrap().join("examples/fake_shim");
    assert!(path.exists(), "{} is not built: cargo build -p berth-runtime --examples", path.display());
    path
}
