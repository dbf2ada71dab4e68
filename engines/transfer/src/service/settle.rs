//! A catalog whose changes to snapshots, and the beginnings of ingests, come to their end although nobody waits for
//! them.
//!
//! A transfer whose requester has gone is dropped where it stands. What a thread writes into a snapshot goes on, and
//! only when that is over may the snapshot go; an ingest that is just being opened would be there a moment after the
//! others were aborted. [`Settling::settled`] waits for both.

use std::sync::Arc;

use async_trait::async_trait;
use berth_core::{
    ApplyRequest, BlobReader, Catalog, CompareRequest, Containers, ContentStore, Differ, Events, Images,
    Ingest, IngestRequest, Introspection, Leases, Namespaces, NewSnapshot, Scope, SnapshotCommit,
    Snapshotter, Tasks,
};
use berth_types::filter::Filters;
use berth_types::{
    BlobInfo, Descriptor, Digest, Error, FieldMask, IngestRef, IngestStatus, Labels, Mount, Result,
    SnapshotInfo, SnapshotKey, SnapshotterName, Usage,
};
use tokio::sync::{Semaphore, watch};

/// The catalog.
pub(super) struct Settling {
    catalog: Arc<dyn Catalog>,
    changes: Changes,
    /// Room for layers that are unpacked at once, where it is bounded.
    room: Option<Arc<Semaphore>>,
}

/// The changes under way.
#[derive(Clone)]
struct Changes(Arc<watch::Sender<usize>>);

/// Counts one change for as long as it lives.
struct Underway(Arc<watch::Sender<usize>>);

impl Drop for Underway {
    fn drop(&mut self) {
        self.0.send_modify(|count| *count -= 1);
    }
}

impl Changes {
    /// Makes a change in a task of its own.
    async fn run<T: Send + 'static>(
        &self,
        change: impl Future<Output = Result<T>> + Send + 'static,
    ) -> Result<T> {
        self.0.send_modify(|count| *count += 1);
        let underway = Underway(Arc::clone(&self.0));
        let task = tokio::spawn(async move {
            let result = change.await;
            drop(underway);
            result
        });
        task.await.map_err(|error| Error::internal("a change failed inside").caused_by(error))?
    }
}

impl Settling {
    pub(super) fn over(catalog: Arc<dyn Catalog>, room: Option<Arc<Semaphore>>) -> Self {
        Self { catalog, changes: Changes(Arc::new(watch::Sender::new(0))), room }
    }

    /// Resolves when no change is under way.
    pub(super) async fn settled(&self) {
        let mut count = self.changes.0.subscribe();
        // The sender lives in `self`, so the wait cannot fail.
        let _ = count.wait_for(|count| *count == 0).await;
    }
}

impl Catalog for Settling {
    fn namespaces(&self) -> Arc<dyn Namespaces> {
        self.catalog.namespaces()
    }

    fn content(&self, scope: &Scope) -> Arc<dyn ContentStore> {
        let (content, changes) = (self.catalog.content(scope), self.changes.clone());
        Arc::new(Contents { content, changes })
    }

    fn snapshotter(&self, name: &SnapshotterName, scope: &Scope) -> Result<Arc<dyn Snapshotter>> {
        let snapshotter = self.catalog.snapshotter(name, scope)?;
        Ok(Arc::new(Snapshots { snapshotter, changes: self.changes.clone() }))
    }

    fn differ(&self, scope: &Scope) -> Arc<dyn Differ> {
        let (differ, changes, room) = (self.catalog.differ(scope), self.changes.clone(), self.room.clone());
        Arc::new(Layers { differ, changes, room })
    }

    fn images(&self, scope: &Scope) -> Arc<dyn Images> {
        self.catalog.images(scope)
    }

    fn containers(&self, scope: &Scope) -> Arc<dyn Containers> {
        self.catalog.containers(scope)
    }

    fn leases(&self, scope: &Scope) -> Arc<dyn Leases> {
        self.catalog.leases(scope)
    }

    fn tasks(&self, scope: &Scope) -> Arc<dyn Tasks> {
        self.catalog.tasks(scope)
    }

    fn events(&self) -> Arc<dyn Events> {
        self.catalog.events()
    }

    fn introspection(&self) -> Arc<dyn Introspection> {
        self.catalog.introspection()
    }
}

struct Contents {
    content: Arc<dyn ContentStore>,
    changes: Changes,
}

#[async_trait]
impl ContentStore for Contents {
    async fn info(&self, digest: &Digest) -> Result<BlobInfo> {
        self.content.info(digest).await
    }

    async fn update(&self, digest: &Digest, labels: Labels, mask: &FieldMask) -> Result<BlobInfo> {
        self.content.update(digest, labels, mask).await
    }

    async fn list(&self, filters: &Filters) -> Result<Vec<BlobInfo>> {
        self.content.list(filters).await
    }

    async fn delete(&self, digest: &Digest) -> Result<()> {
        self.content.delete(digest).await
    }

    async fn reader(&self, digest: &Digest) -> Result<Arc<dyn BlobReader>> {
        self.content.reader(digest).await
    }

    async fn follow(&self, reference: &IngestRef) -> Result<Arc<dyn BlobReader>> {
        self.content.follow(reference).await
    }

    async fn document(&self, digest: &Digest, limit: u64) -> Result<Vec<u8>> {
        self.content.document(digest, limit).await
    }

    async fn ingest(&self, reference: &IngestRef) -> Result<IngestStatus> {
        self.content.ingest(reference).await
    }

    async fn ingests(&self, filters: &Filters) -> Result<Vec<IngestStatus>> {
        self.content.ingests(filters).await
    }

    async fn abort(&self, reference: &IngestRef) -> Result<()> {
        self.content.abort(reference).await
    }

    async fn writer(&self, request: IngestRequest) -> Result<Box<dyn Ingest>> {
        let content = Arc::clone(&self.content);
        self.changes.run(async move { content.writer(request).await }).await
    }
}

struct Layers {
    differ: Arc<dyn Differ>,
    changes: Changes,
    room: Option<Arc<Semaphore>>,
}

#[async_trait]
impl Differ for Layers {
    async fn apply(&self, request: ApplyRequest) -> Result<Descriptor> {
        let _place = match &self.room {
            Some(room) => {
                let place = Arc::clone(room).acquire_owned().await;
                Some(
                    place
                        .map_err(|error| Error::internal("the room for layers is closed").caused_by(error))?,
                )
            }
            None => None,
        };
        let differ = Arc::clone(&self.differ);
        self.changes.run(async move { differ.apply(request).await }).await
    }

    async fn compare(&self, request: CompareRequest) -> Result<Descriptor> {
        self.differ.compare(request).await
    }
}

struct Snapshots {
    snapshotter: Arc<dyn Snapshotter>,
    changes: Changes,
}

#[async_trait]
impl Snapshotter for Snapshots {
    async fn stat(&self, key: &SnapshotKey) -> Result<SnapshotInfo> {
        self.snapshotter.stat(key).await
    }

    async fn update(&self, key: &SnapshotKey, labels: Labels, mask: &FieldMask) -> Result<SnapshotInfo> {
        let (snapshotter, key, mask) = (Arc::clone(&self.snapshotter), key.clone(), mask.clone());
        self.changes.run(async move { snapshotter.update(&key, labels, &mask).await }).await
    }

    async fn usage(&self, key: &SnapshotKey) -> Result<Usage> {
        self.snapshotter.usage(key).await
    }

    async fn mounts(&self, key: &SnapshotKey) -> Result<Vec<Mount>> {
        self.snapshotter.mounts(key).await
    }

    async fn prepare(&self, new: NewSnapshot) -> Result<Vec<Mount>> {
        let snapshotter = Arc::clone(&self.snapshotter);
        self.changes.run(async move { snapshotter.prepare(new).await }).await
    }

    async fn view(&self, new: NewSnapshot) -> Result<Vec<Mount>> {
        let snapshotter = Arc::clone(&self.snapshotter);
        self.changes.run(async move { snapshotter.view(new).await }).await
    }

    async fn commit(&self, name: &SnapshotKey, key: &SnapshotKey, labels: Labels) -> Result<()> {
        let (snapshotter, name, key) = (Arc::clone(&self.snapshotter), name.clone(), key.clone());
        self.changes.run(async move { snapshotter.commit(&name, &key, labels).await }).await
    }

    async fn commit_onto(
        &self,
        name: &SnapshotKey,
        key: &SnapshotKey,
        parent: &SnapshotKey,
        labels: Labels,
    ) -> Result<()> {
        let (snapshotter, name, key) = (Arc::clone(&self.snapshotter), name.clone(), key.clone());
        let parent = parent.clone();
        self.changes.run(async move { snapshotter.commit_onto(&name, &key, &parent, labels).await }).await
    }

    async fn commit_all(&self, commits: Vec<SnapshotCommit>) -> Result<()> {
        let snapshotter = Arc::clone(&self.snapshotter);
        self.changes.run(async move { snapshotter.commit_all(commits).await }).await
    }

    async fn remove(&self, key: &SnapshotKey) -> Result<()> {
        let (snapshotter, key) = (Arc::clone(&self.snapshotter), key.clone());
        self.changes.run(async move { snapshotter.remove(&key).await }).await
    }

    async fn list(&self, filters: &Filters) -> Result<Vec<SnapshotInfo>> {
        self.snapshotter.list(filters).await
    }

    async fn cleanup(&self) -> Result<()> {
        self.snapshotter.cleanup().await
    }
}
