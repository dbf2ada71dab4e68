//! A catalog of real stores, with tasks that a test directs.

use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use berth_content::Store;
use berth_core::{
    Catalog, Containers, ContentStore, CreateTask, Differ, EventStream, Events, ExecProcess, Images,
    Introspection, Leases, Namespaces, Sandboxes, Scope, Snapshotter, Tasks, Transfers, UpdateTask,
};
use berth_diff::Walking;
use berth_metadata::{GcConfig, Metadata, Parts, Sharing};
use berth_snapshot::native;
use berth_types::filter::Filters;
use berth_types::{
    Any, ContainerId, Descriptor, Envelope, Error, Event, ExecId, Exit, KillTarget, Metric, Namespace,
    PluginInfo, PluginState, ProcessInfo, ProcessRef, ProcessState, ProcessStatus, Result, ServerInfo,
    SnapshotterName, Stdio, TerminalSize,
};
use futures::StreamExt;
use tokio::sync::{Notify, broadcast, watch};
use tokio_stream::wrappers::BroadcastStream;

use crate::moved::{Moved, Mover};

/// The stores of a folder.
pub(crate) struct Stores {
    metadata: Arc<Metadata>,
    pub(crate) events: Arc<Told>,
    pub(crate) tasks: Arc<Directed>,
    pub(crate) moved: Arc<Moved>,
}

impl Stores {
    pub(crate) fn open(root: &Path) -> Arc<Self> {
        let events = Arc::new(Told(broadcast::Sender::new(4096)));
        let snapshotter = native::open(&root.join("native"), native::Config::default()).unwrap();
        let metadata = Metadata::open(
            &root.join("meta.redb"),
            Parts {
                content: Arc::new(Store::open(&root.join("content")).unwrap()),
                snapshotters: [("native".parse().unwrap(), snapshotter)].into(),
                mounts: None,
                events: events.clone(),
                gc: GcConfig {
                    startup_delay: Duration::from_hours(1),
                    pause_threshold: 0.000_001,
                    ..GcConfig::default()
                },
                sharing: Sharing::Shared,
            },
        )
        .unwrap();
        Arc::new(Self { metadata, events, tasks: Arc::default(), moved: Arc::default() })
    }
}

impl Catalog for Stores {
    fn namespaces(&self) -> Arc<dyn Namespaces> {
        self.metadata.namespaces()
    }

    fn content(&self, scope: &Scope) -> Arc<dyn ContentStore> {
        self.metadata.content(scope)
    }

    fn snapshotter(&self, name: &SnapshotterName, scope: &Scope) -> Result<Arc<dyn Snapshotter>> {
        self.metadata.snapshotter(name, scope)
    }

    fn differ(&self, scope: &Scope) -> Arc<dyn Differ> {
        Arc::new(Walking::new(self.metadata.content(scope)))
    }

    fn images(&self, scope: &Scope) -> Arc<dyn Images> {
        self.metadata.images(scope)
    }

    fn containers(&self, scope: &Scope) -> Arc<dyn Containers> {
        self.metadata.containers(scope)
    }

    fn sandboxes(&self, scope: &Scope) -> Option<Arc<dyn Sandboxes>> {
        Some(self.metadata.sandboxes(scope))
    }

    fn leases(&self, scope: &Scope) -> Arc<dyn Leases> {
        self.metadata.leases(scope)
    }

    fn tasks(&self, _scope: &Scope) -> Arc<dyn Tasks> {
        self.tasks.clone()
    }

    fn events(&self) -> Arc<dyn Events> {
        self.events.clone()
    }

    fn transfers(&self, _scope: &Scope) -> Option<Arc<dyn Transfers>> {
        Some(Arc::new(Mover(self.moved.clone())))
    }

    fn introspection(&self) -> Arc<dyn Introspection> {
        Arc::new(Fixed)
    }
}

/// Events for whoever listens.
pub(crate) struct Told(broadcast::Sender<Envelope>);

#[async_trait]
impl Events for Told {
    async fn publish(&self, namespace: &Namespace, event: Event) -> Result<()> {
        self.forward(Envelope { timestamp: SystemTime::now(), namespace: namespace.clone(), event }).await
    }

    async fn forward(&self, envelope: Envelope) -> Result<()> {
        // Nobody may listen.
        let _ = self.0.send(envelope);
        Ok(())
    }

    async fn subscribe(&self, filters: Filters) -> Result<EventStream> {
        let told = BroadcastStream::new(self.0.subscribe());
        let told = told.filter_map(move |envelope| {
            let envelope = envelope.map_err(|error| Error::resource_exhausted(error.to_string()));
            let passes = envelope.as_ref().is_ok_and(|envelope| filters.matches(envelope));
            std::future::ready((passes || envelope.is_err()).then_some(envelope))
        });
        Ok(Box::pin(told))
    }
}

/// A daemon that is always the same.
struct Fixed;

#[async_trait]
impl Introspection for Fixed {
    async fn server(&self) -> Result<ServerInfo> {
        Ok(ServerInfo { uuid: "u-u-i-d".into(), pid: 7, pidns: 8, deprecations: Vec::new() })
    }

    async fn plugins(&self, filters: &[String]) -> Result<Vec<PluginInfo>> {
        Filters::parse(filters)?;
        Ok(vec![PluginInfo {
            kind: "io.containerd.snapshotter.v1".into(),
            id: "zfs".into(),
            requires: vec!["io.containerd.content.v1".into()],
            platforms: Vec::new(),
            exports: [("root".to_owned(), "/r".to_owned())].into(),
            capabilities: vec!["remap-ids".into()],
            state: PluginState::Skipped("no zfs here".into()),
        }])
    }

    async fn plugin(&self, kind: &str, id: &str, options: Option<Any>) -> Result<(PluginInfo, Option<Any>)> {
        if (kind, id) != ("io.containerd.snapshotter.v1", "zfs") {
            return Err(Error::not_found(format!("plugin {kind}.{id}")));
        }
        Ok((self.plugins(&[]).await?.remove(0), options))
    }

    async fn version(&self) -> Result<(String, String)> {
        Ok(("2.3.4".into(), "rev".into()))
    }
}

/// Tasks that do nothing but write down what they were asked, and wait where a test wants it.
#[derive(Default)]
pub(crate) struct Directed {
    pub(crate) asked: Mutex<Vec<String>>,
    /// `create` goes on when this is notified.
    pub(crate) may_create: Notify,
    /// How many `create` have come to their end.
    pub(crate) created: watch::Sender<usize>,
    /// How many waits are under way.
    pub(crate) waiting: watch::Sender<usize>,
}

/// Counts a wait for as long as it lives.
struct Waiting<'a>(&'a watch::Sender<usize>);

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.send_modify(|count| *count -= 1);
    }
}

impl Directed {
    fn note(&self, what: impl std::fmt::Display) {
        self.asked.lock().unwrap().push(what.to_string());
    }

    pub(crate) fn take(&self) -> Vec<String> {
        std::mem::take(&mut *self.asked.lock().unwrap())
    }
}

pub(crate) fn exit() -> Exit {
    Exit { pid: 12, status: 137, at: SystemTime::UNIX_EPOCH + Duration::from_secs(9) }
}

#[async_trait]
impl Tasks for Directed {
    async fn create(&self, request: CreateTask) -> Result<u32> {
        self.note(format!("create {request:?}"));
        match request.container.as_str() {
            "panics" => panic!("a test wants this panic"),
            "slow" => self.may_create.notified().await,
            _ => {}
        }
        self.created.send_modify(|count| *count += 1);
        Ok(11)
    }

    async fn start(&self, process: &ProcessRef) -> Result<u32> {
        self.note(format!("start {process}"));
        Ok(12)
    }

    async fn delete(&self, container: &ContainerId) -> Result<Exit> {
        self.note(format!("delete {container}"));
        Ok(exit())
    }

    async fn delete_process(&self, container: &ContainerId, exec: &ExecId) -> Result<Exit> {
        self.note(format!("delete {container} {exec}"));
        Ok(exit())
    }

    async fn state(&self, process: &ProcessRef) -> Result<ProcessState> {
        self.note(format!("state {process}"));
        let stdio = Stdio { stdout: "/out".into(), ..Stdio::default() };
        Ok(ProcessState {
            process: process.clone(),
            pid: 12,
            status: ProcessStatus::Running,
            stdio,
            exit: None,
        })
    }

    async fn list(&self) -> Result<Vec<ProcessState>> {
        Ok(vec![self.state(&ProcessRef::init("one".parse()?)).await?])
    }

    async fn kill(&self, process: &ProcessRef, signal: u32, target: KillTarget) -> Result<()> {
        self.note(format!("kill {process} {signal} {target:?}"));
        Ok(())
    }

    async fn exec(&self, request: ExecProcess) -> Result<()> {
        self.note(format!("exec {} {}", request.process, request.spec.type_url));
        Ok(())
    }

    async fn resize(&self, process: &ProcessRef, size: TerminalSize) -> Result<()> {
        self.note(format!("resize {process} {}x{}", size.width, size.height));
        Ok(())
    }

    async fn close_stdin(&self, process: &ProcessRef) -> Result<()> {
        self.note(format!("close {process}"));
        Ok(())
    }

    async fn pids(&self, container: &ContainerId) -> Result<Vec<ProcessInfo>> {
        self.note(format!("pids {container}"));
        Ok(vec![ProcessInfo { pid: 12, info: Some(Any::new("t", *b"v")) }])
    }

    async fn pause(&self, container: &ContainerId) -> Result<()> {
        self.note(format!("pause {container}"));
        Ok(())
    }

    async fn resume(&self, container: &ContainerId) -> Result<()> {
        self.note(format!("resume {container}"));
        Err(Error::failed_precondition("task is not paused"))
    }

    async fn checkpoint(
        &self,
        container: &ContainerId,
        _parent: Option<&Descriptor>,
        options: Option<Any>,
    ) -> Result<Vec<Descriptor>> {
        self.note(format!("checkpoint {container} {}", options.is_some()));
        Err(Error::not_implemented("no criu here"))
    }

    async fn update(&self, request: UpdateTask) -> Result<()> {
        self.note(format!("update {} {:?}", request.container, request.annotations));
        Ok(())
    }

    async fn metrics(&self, filters: &[String]) -> Result<Vec<Metric>> {
        self.note(format!("metrics {filters:?}"));
        let timestamp = exit().at;
        Ok(vec![Metric { id: "one".parse()?, timestamp, data: Some(Any::new("m", *b"d")) }])
    }

    async fn wait(&self, process: &ProcessRef) -> Result<Exit> {
        self.note(format!("wait {process}"));
        if process.exec.is_some() {
            return Ok(exit());
        }
        self.waiting.send_modify(|count| *count += 1);
        let _waiting = Waiting(&self.waiting);
        std::future::pending().await
    }
}
