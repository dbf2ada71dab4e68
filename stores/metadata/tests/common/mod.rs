//! A metadata store over real backends, and an exchange of events that keeps them.

#![allow(dead_code, unreachable_pub, reason = "each test uses what it needs of it")]

pub mod objects;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use berth_core::{ContentStore, EventStream, Events, MountKeeper, Scope, Snapshotter};
use berth_metadata::{GcConfig, Metadata, Parts, Sharing};
use berth_types::filter::Filters;
use berth_types::{Envelope, Event, Namespace, Result, SnapshotterName};
use futures::StreamExt;
use tokio::sync::broadcast;

/// Events to whoever listens, and all of them kept.
pub struct Told {
    sender: broadcast::Sender<Envelope>,
    kept: Mutex<Vec<Envelope>>,
}

impl Default for Told {
    fn default() -> Self {
        Self { sender: broadcast::channel(4096).0, kept: Mutex::new(Vec::new()) }
    }
}

impl Told {
    /// The topics so far in a namespace.
    pub fn topics(&self, namespace: &Namespace) -> Vec<String> {
        let kept = self.kept.lock().unwrap();
        kept.iter()
            .filter(|envelope| envelope.namespace == *namespace)
            .map(|envelope| envelope.event.topic().to_owned())
            .collect()
    }
}

#[async_trait]
impl Events for Told {
    async fn publish(&self, namespace: &Namespace, event: Event) -> Result<()> {
        let envelope = Envelope { timestamp: SystemTime::now(), namespace: namespace.clone(), event };
        self.forward(envelope).await
    }

    async fn forward(&self, envelope: Envelope) -> Result<()> {
        self.kept.lock().unwrap().push(envelope.clone());
        let _ = self.sender.send(envelope);
        Ok(())
    }

    async fn subscribe(&self, filters: Filters) -> Result<EventStream> {
        let receiver = self.sender.subscribe();
        let stream = futures::stream::unfold(receiver, |mut receiver| async {
            receiver.recv().await.ok().map(|envelope| (envelope, receiver))
        });
        let chosen = stream.filter(move |envelope| std::future::ready(filters.matches(envelope)));
        Ok(Box::pin(chosen.map(Ok)))
    }
}

/// A collector that runs only when it is asked.
pub fn manual() -> GcConfig {
    GcConfig { startup_delay: Duration::from_hours(1), pause_threshold: 0.000_001, ..GcConfig::default() }
}

pub struct Store {
    pub metadata: Arc<Metadata>,
    pub content: Arc<dyn ContentStore>,
    pub native: Arc<dyn Snapshotter>,
    pub events: Arc<Told>,
}

pub fn native() -> SnapshotterName {
    "native".parse().unwrap()
}

/// A store in a folder. It collects no garbage by itself within the time of a test.
pub fn open(root: &Path) -> Store {
    open_with(root, manual(), Sharing::Shared)
}

pub fn open_with(root: &Path, gc: GcConfig, sharing: Sharing) -> Store {
    let (mut parts, events) = backends(root);
    parts.gc = gc;
    parts.sharing = sharing;
    let (content, native) = (Arc::clone(&parts.content), Arc::clone(&parts.snapshotters[&native()]));
    let metadata = Metadata::open(&root.join("meta.redb"), parts).unwrap();
    Store { metadata, content, native, events }
}

/// A store with somebody who keeps activated mounts.
pub fn open_over(root: &Path, mounts: Arc<dyn MountKeeper>) -> Store {
    let (mut parts, events) = backends(root);
    parts.mounts = Some(mounts);
    let (content, native) = (Arc::clone(&parts.content), Arc::clone(&parts.snapshotters[&native()]));
    let metadata = Metadata::open(&root.join("meta.redb"), parts).unwrap();
    Store { metadata, content, native, events }
}

/// Backends in a folder.
pub fn parts(root: &Path) -> Parts {
    backends(root).0
}

fn backends(root: &Path) -> (Parts, Arc<Told>) {
    let content: Arc<dyn ContentStore> = Arc::new(berth_content::Store::open(&root.join("content")).unwrap());
    let native = berth_snapshot::native::open(&root.join("native"), Default::default())
        .unwrap_or_else(|_| panic!("the native snapshotter opens everywhere"));
    let events = Arc::new(Told::default());
    let parts = Parts {
        content,
        snapshotters: BTreeMap::from([(self::native(), native)]),
        mounts: None,
        events: Arc::clone(&events) as Arc<dyn Events>,
        gc: manual(),
        sharing: Sharing::Shared,
    };
    (parts, events)
}

pub fn scope(namespace: &str) -> Scope {
    Scope::new(namespace.parse().unwrap())
}
