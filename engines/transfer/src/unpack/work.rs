//! One layer at a time, on its parent.

use std::sync::Arc;

use berth_core::{ApplyRequest, Catalog, ContentStore, Differ, Leases, NewSnapshot, Scope, Snapshotter};
use berth_types::{
    Error, ErrorKind, FieldMask, Labels, LeaseId, LeaseResource, Mount, Result, SnapshotKey, SnapshotterName,
};

use super::{Layer, Unpack, Waiting, exists};
use crate::content::UNCOMPRESSED;
use crate::hold::{present, unique};
use crate::progress::{Object, Reported, Reporter, State};

const SNAPSHOT_REF: &str = "containerd.io/snapshot.ref";

/// The capability of a snapshotter whose layers can be filled before those below them: `rebase`, and a differ that
/// says when that cannot be done.
const APART: &str = "berth.apart";

/// How often a key that somebody has is replaced by another.
const TRIES: usize = 3;

/// The seams under the lease.
pub(super) struct Work<'a> {
    hold: (Arc<dyn Leases>, Option<LeaseId>, &'a SnapshotterName),
    store: Arc<dyn ContentStore>,
    pub(super) snapshots: Arc<dyn Snapshotter>,
    differ: Arc<dyn Differ>,
    progress: &'a Reporter,
    pub(super) waiting: &'a Waiting,
    /// Whether layers can be filled before those below them.
    apart: bool,
}

impl<'a> Work<'a> {
    pub(super) async fn open(
        catalog: &dyn Catalog,
        scope: &Scope,
        request: &'a Unpack,
        waiting: &'a Waiting,
    ) -> Result<Self> {
        Ok(Self {
            hold: (catalog.leases(scope), scope.lease.clone(), &request.snapshotter),
            store: catalog.content(scope),
            snapshots: catalog.snapshotter(&request.snapshotter, scope)?,
            differ: catalog.differ(scope),
            progress: &request.progress,
            waiting,
            apart: is_apart(catalog, &request.snapshotter).await,
        })
    }

    pub(super) async fn all(&self, layers: &[Layer]) -> Result<()> {
        // The highest layer that is there has all those beneath it.
        let mut first = layers.len();
        while first > 0 && !exists(&*self.snapshots, &layers[first - 1].chain).await? {
            first -= 1;
        }
        if let Some(found) = first.checked_sub(1) {
            self.keep(&layers[found].chain).await?;
        }
        for layer in &layers[..first] {
            self.report(layer).whole(State::Unpacked);
        }
        if self.apart && layers.len() - first > 1 {
            return self.at_once(layers, first).await;
        }
        for (at, layer) in layers.iter().enumerate().skip(first) {
            self.waiting.wait(&layer.descriptor.digest).await?;
            self.one(layer, below(layers, at)).await?;
            self.report(layer).whole(State::Unpacked);
        }
        Ok(())
    }

    /// Puts a snapshot that was there under the lease: nothing else may refer to it any more.
    async fn keep(&self, chain: &SnapshotKey) -> Result<()> {
        let (leases, lease, snapshotter) = &self.hold;
        let Some(lease) = lease else { return Ok(()) };
        let resource = LeaseResource { id: chain.to_string(), kind: format!("snapshots/{snapshotter}") };
        present(leases.add_resource(lease, resource).await)
    }

    pub(super) fn report(&self, layer: &Layer) -> Reported {
        self.progress.object(layer.descriptor.digest.as_str(), Object::Layer, layer.descriptor.size)
    }

    /// Unpacks a layer on its parent, which is there.
    pub(super) async fn one(&self, layer: &Layer, parent: Option<SnapshotKey>) -> Result<()> {
        let Some((key, mounts)) = self.prepare(layer, parent).await? else { return Ok(()) };
        self.report(layer).whole(State::Unpacking);
        let filled = async {
            self.apply(layer, mounts).await?;
            self.snapshots.commit(&layer.chain, &key, reference(layer)).await
        };
        let filled = filled.await;
        self.committed(layer, &key, filled).await
    }

    /// What follows a commit: the blob's label; after a failure the active snapshot goes.
    pub(super) async fn committed(&self, layer: &Layer, key: &SnapshotKey, done: Result<()>) -> Result<()> {
        if let Err(error) = done {
            // The lease's end would remove it too, but the disk may be what ran full.
            self.snapshots.remove(key).await.ok();
            let done =
                error.kind() == ErrorKind::AlreadyExists && exists(&*self.snapshots, &layer.chain).await?;
            return if done { Ok(()) } else { Err(error) };
        }
        let uncompressed = Labels::from([(UNCOMPRESSED.to_owned(), layer.diff_id.to_string())]);
        let mask = FieldMask::new([format!("labels.{UNCOMPRESSED}")]);
        match self.store.update(&layer.descriptor.digest, uncompressed, &mask).await {
            // A differ may have taken the layer from elsewhere.
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
            result => result.map(drop),
        }
    }

    /// A snapshot to fill, unless a remote snapshotter or somebody else has the layer already.
    pub(super) async fn prepare(
        &self,
        layer: &Layer,
        parent: Option<SnapshotKey>,
    ) -> Result<Option<(SnapshotKey, Vec<Mount>)>> {
        let mut last = None;
        for _ in 0..TRIES {
            let key: SnapshotKey = format!("{} {}", unique("extract"), layer.chain).parse()?;
            let new = NewSnapshot { key: key.clone(), parent: parent.clone(), labels: reference(layer) };
            match self.snapshots.prepare(new).await {
                Ok(mounts) => return Ok(Some((key, mounts))),
                Err(error) if error.kind() == ErrorKind::AlreadyExists => {
                    if exists(&*self.snapshots, &layer.chain).await? {
                        return Ok(None);
                    }
                    last = Some(error);
                }
                Err(error) => return Err(error),
            }
        }
        Err(last.unwrap_or_else(|| Error::internal("no try was made")))
    }

    /// Applies the layer and looks whether it is what the image says.
    pub(super) async fn apply(&self, layer: &Layer, mounts: Vec<Mount>) -> Result<()> {
        let request = ApplyRequest {
            layer: layer.descriptor.clone(),
            mounts,
            payloads: std::collections::BTreeMap::new(),
            sync: false,
        };
        let applied = self
            .differ
            .apply(request)
            .await
            .map_err(|error| error.context(format!("cannot unpack layer {}", layer.descriptor.digest)))?;
        if applied.digest != layer.diff_id {
            return Err(Error::failed_precondition(format!(
                "layer {} unpacked to {} and not to {} as its image says",
                layer.descriptor.digest, applied.digest, layer.diff_id
            )));
        }
        Ok(())
    }
}

/// The snapshot on which a layer stands.
pub(super) fn below(layers: &[Layer], at: usize) -> Option<SnapshotKey> {
    at.checked_sub(1).map(|below| layers[below].chain.clone())
}

/// The label by which a remote snapshotter knows what is meant.
pub(super) fn reference(layer: &Layer) -> Labels {
    Labels::from([(SNAPSHOT_REF.to_owned(), layer.chain.to_string())])
}

/// Whether layers can be filled before those below them. A daemon that does not say so is taken to be unable.
async fn is_apart(catalog: &dyn Catalog, snapshotter: &SnapshotterName) -> bool {
    let filter = format!("type==io.containerd.snapshotter.v1,id=={snapshotter}");
    let found = catalog.introspection().plugins(&[filter]).await.unwrap_or_default();
    found.iter().any(|plugin| plugin.capabilities.iter().any(|word| word == APART))
}
