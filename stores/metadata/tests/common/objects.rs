//! Short words for the objects of a test.

use std::sync::Arc;

use berth_core::{CommitRequest, ContentStore, IngestRequest, NewSnapshot, Scope, Snapshotter};
use berth_types::filter::Filters;
use berth_types::{
    Any, Container, ContainerId, Descriptor, Digest, Image, Labels, LeaseId, Result, RuntimeInfo, SnapshotKey,
};
use bytes::Bytes;

use super::{Store, native};

/// The address of a text.
pub fn digest(text: &str) -> Digest {
    berth_archive::Hasher::digest(text.as_bytes())
}

pub fn labels<K: AsRef<str>, V: AsRef<str>>(pairs: &[(K, V)]) -> Labels {
    pairs.iter().map(|(key, value)| (key.as_ref().to_owned(), value.as_ref().to_owned())).collect()
}

impl Store {
    pub fn content(&self, scope: &Scope) -> Arc<dyn ContentStore> {
        self.metadata.content(scope)
    }

    pub fn snapshots(&self, scope: &Scope) -> Arc<dyn Snapshotter> {
        self.metadata.snapshotter(&native(), scope).unwrap()
    }

    /// A blob whose bytes are `text`.
    pub async fn blob(&self, scope: &Scope, text: &str, labels: Labels) -> Result<Digest> {
        let request = IngestRequest {
            reference: format!("ref-{text}").parse().unwrap(),
            total: text.len() as u64,
            expected: Some(digest(text)),
        };
        let mut ingest = self.content(scope).writer(request).await?;
        if ingest.status().await?.offset < text.len() as u64 {
            ingest.truncate(0).await?;
            ingest.write(0, Bytes::copy_from_slice(text.as_bytes())).await?;
        }
        ingest.commit(CommitRequest { size: None, expected: Some(digest(text)), labels }).await
    }

    pub async fn image(&self, scope: &Scope, name: &str, target: &Digest, labels: Labels) {
        let target = Descriptor::new("application/vnd.oci.image.manifest.v1+json", target.clone(), 1);
        let mut image = Image::new(name.parse().unwrap(), target);
        image.labels = labels;
        self.metadata.images(scope).create(image).await.unwrap();
    }

    pub async fn lease(&self, scope: &Scope, id: &str, labels: Labels) -> Scope {
        let id: LeaseId = id.parse().unwrap();
        self.metadata.leases(scope).create(Some(id.clone()), labels).await.unwrap();
        scope.with_lease(id)
    }

    pub async fn container(&self, scope: &Scope, id: &str, snapshot: &str, labels: Labels) {
        let runtime = RuntimeInfo { name: "io.containerd.runc.v2".into(), options: None };
        let id: ContainerId = id.parse().unwrap();
        let mut container = Container::new(id, runtime);
        container.spec = Some(Any::new("spec", *b"{}"));
        container.labels = labels;
        if !snapshot.is_empty() {
            container.snapshotter = "native".into();
            container.snapshot_key = snapshot.into();
        }
        self.metadata.containers(scope).create(container).await.unwrap();
    }

    pub async fn active(&self, scope: &Scope, key: &str, parent: &str, labels: Labels) -> Result<()> {
        let parent = (!parent.is_empty()).then(|| parent.parse().unwrap());
        let new = NewSnapshot { key: key.parse().unwrap(), parent, labels };
        self.snapshots(scope).prepare(new).await.map(drop)
    }

    pub async fn committed(&self, scope: &Scope, name: &str, parent: &str, labels: Labels) {
        let active: SnapshotKey = format!("{name}-active").parse().unwrap();
        self.active(scope, active.as_str(), parent, Labels::new()).await.unwrap();
        self.snapshots(scope).commit(&name.parse().unwrap(), &active, labels).await.unwrap();
    }

    /// Every blob of a namespace.
    pub async fn blobs(&self, scope: &Scope) -> Vec<Digest> {
        let found = self.content(scope).list(&Filters::default()).await.unwrap();
        found.into_iter().map(|info| info.digest).collect()
    }

    /// The names of every snapshot of a namespace.
    pub async fn snapshot_names(&self, scope: &Scope) -> Vec<String> {
        let found = self.snapshots(scope).list(&Filters::default()).await.unwrap();
        let mut names: Vec<String> = found.into_iter().map(|info| info.key.to_string()).collect();
        names.sort();
        names
    }

    /// How many blobs and snapshots the backends hold.
    pub async fn backends(&self) -> (usize, usize) {
        let blobs = self.content.list(&Filters::default()).await.unwrap().len();
        let snapshots = self.native.list(&Filters::default()).await.unwrap().len();
        (blobs, snapshots)
    }
}
