//! One layer at a time, on its parent.

use std::sync::Arc;

use berth_core::{ApplyRequest, Catalog, ContentStore, Differ, Leases, NewSnapshot, Scope, Snapshotter};
use berth_types::{
    Error, ErrorKind, FieldMask, IngestRef, Labels, LeaseId, LeaseResource, Mount, PluginInfo, Result,
    SnapshotKey, SnapshotterName,
};

use tokio::sync::{Semaphore, SemaphorePermit};

use super::{Arrival, Layer, Unpack, Waiting, exists};
use crate::content::UNCOMPRESSED;
use crate::hold::{present, unique};
use crate::progress::{Object, Reported, Reporter, State};

const SNAPSHOT_REF: &str = "containerd.io/snapshot.ref";

/// The capability of a snapshotter whose layers can be filled before those below them: `rebase`, and a differ that
/// says when that cannot be done.
const APART: &str = "berth.apart";

/// The filter that finds the differs.
const DIFFERS: &str = "type==io.containerd.differ.v1";

/// The capability of a differ that applies layers as they come.
const ARRIVING: &str = "berth.arriving";

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
    /// Whether layers can be applied as they come.
    follows: bool,
}

impl<'a> Work<'a> {
    pub(super) async fn open(
        catalog: &dyn Catalog,
        scope: &Scope,
        request: &'a Unpack,
        waiting: &'a Waiting,
    ) -> Result<Self> {
        let snapshotter = format!("type==io.containerd.snapshotter.v1,id=={}", request.snapshotter);
        Ok(Self {
            hold: (catalog.leases(scope), scope.lease.clone(), &request.snapshotter),
            store: catalog.content(scope),
            snapshots: catalog.snapshotter(&request.snapshotter, scope)?,
            differ: catalog.differ(scope),
            progress: &request.progress,
            waiting,
            apart: has(catalog, &snapshotter, APART).await,
            follows: waiting.is_needed() && can_differ(catalog, ARRIVING).await,
        })
    }

    pub(super) async fn all(&self, layers: &[Layer]) -> Result<()> {
        // The highest layer that is there has all those beneath it.
        let mut first = layers.len();
        while first > 0 && !exists(&*self.snapshots, &layers[first - 1].chain).await? {
            first -= 1;
        }
        if let Some(found) = first.checked_sub(1) {
            let (leases, lease, snapshotter) = &self.hold;
            hold_snapshot(&**leases, lease.as_ref(), snapshotter, &layers[found].chain).await?;
        }
        for layer in &layers[..first] {
            self.report(layer).whole(State::Unpacked);
        }
        if self.apart && layers.len() - first > 1 {
            return self.at_once(layers, first).await;
        }
        for (at, layer) in layers.iter().enumerate().skip(first) {
            self.one(layer, below(layers, at)).await?;
            self.report(layer).whole(State::Unpacked);
        }
        Ok(())
    }

    pub(super) fn report(&self, layer: &Layer) -> Reported {
        self.progress.object(layer.descriptor.digest.as_str(), Object::Layer, layer.descriptor.size)
    }

    /// Unpacks a layer on its parent, which is there.
    pub(super) async fn one(&self, layer: &Layer, parent: Option<SnapshotKey>) -> Result<()> {
        let Some(key) = self.fill(layer, parent, None, |mounts| mounts).await? else { return Ok(()) };
        let done = self.snapshots.commit(&layer.chain, &key, reference(layer)).await;
        self.committed(layer, &key, done).await
    }

    /// Fills an active snapshot with a layer, as it comes if that can be, and answers its key once the blob is there
    /// too; nothing where somebody else has the layer. Takes a turn while it writes, where there are any. `place` makes
    /// of a snapshot's mounts what is written to.
    pub(super) async fn fill(
        &self,
        layer: &Layer,
        parent: Option<SnapshotKey>,
        turns: Option<&Semaphore>,
        place: impl Fn(Vec<Mount>) -> Vec<Mount> + Send + Sync,
    ) -> Result<Option<SnapshotKey>> {
        let digest = &layer.descriptor.digest;
        if let Arrival::Coming(ingest) = self.waiting.begun(digest).await?
            && self.follows
        {
            let filling = async {
                let _turn = turn(turns).await?;
                self.filled(layer, parent.clone(), &place, Some(ingest)).await
            };
            // A blob that does not come ends what follows it, so that is waited for either way.
            let arriving = async { Ok(self.arrived(layer).await) };
            match futures::future::try_join(filling, arriving).await {
                Ok((key, Ok(()))) => return Ok(key),
                Ok((key, Err(error))) => {
                    self.drop_snapshot(key.as_ref()).await;
                    return Err(error);
                }
                Err(error) if may_be_right(&error) => {}
                Err(error) => return Err(error),
            }
        }
        self.arrived(layer).await?;
        let _turn = turn(turns).await?;
        self.filled(layer, parent, &place, None).await
    }

    /// Resolves once the blob of a layer is there.
    async fn arrived(&self, layer: &Layer) -> Result<()> {
        self.waiting.there(&layer.descriptor.digest).await?;
        self.report(layer).whole(State::Unpacking);
        Ok(())
    }

    /// Prepares a snapshot and applies the layer. After a failure nothing is left.
    async fn filled(
        &self,
        layer: &Layer,
        parent: Option<SnapshotKey>,
        place: &(impl Fn(Vec<Mount>) -> Vec<Mount> + Send + Sync),
        arriving: Option<IngestRef>,
    ) -> Result<Option<SnapshotKey>> {
        let Some((key, mounts)) = self.prepare(layer, parent).await? else { return Ok(None) };
        let applied = self.apply(layer, place(mounts), arriving).await;
        if applied.is_err() {
            self.drop_snapshot(Some(&key)).await;
        }
        applied.map(|()| Some(key))
    }

    /// Removes an active snapshot that is of no use any more. The lease's end would remove it too, but the disk may
    /// be what ran full.
    pub(super) async fn drop_snapshot(&self, key: Option<&SnapshotKey>) {
        if let Some(key) = key {
            self.snapshots.remove(key).await.ok();
        }
    }

    /// What follows a commit: the blob's label; after a failure the active snapshot goes.
    pub(super) async fn committed(&self, layer: &Layer, key: &SnapshotKey, done: Result<()>) -> Result<()> {
        if let Err(error) = done {
            self.drop_snapshot(Some(key)).await;
            let done =
                error.kind() == ErrorKind::AlreadyExists && exists(&*self.snapshots, &layer.chain).await?;
            return if done { Ok(()) } else { Err(error) };
        }
        self.note(layer).await
    }

    /// Notes at the blob what is in it.
    pub(super) async fn note(&self, layer: &Layer) -> Result<()> {
        let uncompressed = Labels::from([(UNCOMPRESSED.to_owned(), layer.diff_id.to_string())]);
        let mask = FieldMask::new([format!("labels.{UNCOMPRESSED}")]);
        match self.store.update(&layer.descriptor.digest, uncompressed, &mask).await {
            // A differ may have taken the layer from elsewhere.
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
            result => result.map(drop),
        }
    }

    /// A snapshot to fill, unless a remote snapshotter or somebody else has the layer already.
    async fn prepare(
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
    async fn apply(&self, layer: &Layer, mounts: Vec<Mount>, arriving: Option<IngestRef>) -> Result<()> {
        let request = ApplyRequest {
            layer: layer.descriptor.clone(),
            arriving: arriving.clone(),
            mounts,
            payloads: std::collections::BTreeMap::new(),
            sync: false,
        };
        let applied = self.differ.apply(request).await.map_err(|error| {
            let way_out = match error.kind() {
                ErrorKind::NotFound => ", whose compressed form was not kept; pull the image again",
                _ => "",
            };
            error.context(format!("cannot unpack layer {}{way_out}", layer.descriptor.digest))
        })?;
        if applied.digest == layer.diff_id {
            return Ok(());
        }
        let text = format!(
            "layer {} unpacked to {} and not to {} as its image says",
            layer.descriptor.digest, applied.digest, layer.diff_id
        );
        Err(if arriving.is_some() { Error::unavailable(text) } else { Error::failed_precondition(text) })
    }
}

/// Puts a snapshot that was there under the scope's lease: nothing else may refer to it any more.
pub(super) async fn keep(
    catalog: &dyn Catalog,
    scope: &Scope,
    snapshotter: &SnapshotterName,
    chain: &SnapshotKey,
) -> Result<()> {
    hold_snapshot(&*catalog.leases(scope), scope.lease.as_ref(), snapshotter, chain).await
}

async fn hold_snapshot(
    leases: &dyn Leases,
    lease: Option<&LeaseId>,
    snapshotter: &SnapshotterName,
    chain: &SnapshotKey,
) -> Result<()> {
    let Some(lease) = lease else { return Ok(()) };
    let resource = LeaseResource { id: chain.to_string(), kind: format!("snapshots/{snapshotter}") };
    present(leases.add_resource(lease, resource).await)
}

/// Waits for a turn. There are none any more once a layer has failed: then the rest is of no use.
async fn turn(turns: Option<&Semaphore>) -> Result<Option<SemaphorePermit<'_>>> {
    let Some(turns) = turns else { return Ok(None) };
    turns.acquire().await.map(Some).map_err(|_| Error::cancelled("another layer has failed"))
}

/// The snapshot on which a layer stands.
pub(super) fn below(layers: &[Layer], at: usize) -> Option<SnapshotKey> {
    at.checked_sub(1).map(|below| layers[below].chain.clone())
}

/// The label by which a remote snapshotter knows what is meant.
pub(super) fn reference(layer: &Layer) -> Labels {
    Labels::from([(SNAPSHOT_REF.to_owned(), layer.chain.to_string())])
}

/// Whether every differ has the capability.
pub(crate) async fn can_differ(catalog: &dyn Catalog, capability: &str) -> bool {
    has(catalog, DIFFERS, capability).await
}

/// Whether every plugin that the filter finds has the capability. A daemon that does not say so is taken to be unable.
async fn has(catalog: &dyn Catalog, filter: &str, capability: &str) -> bool {
    let found = catalog.introspection().plugins(&[filter.to_owned()]).await.unwrap_or_default();
    let able = |plugin: &PluginInfo| plugin.capabilities.iter().any(|word| word == capability);
    !found.is_empty() && found.iter().all(able)
}

/// Whether a layer that failed as it came may yet be right: what had been fetched earlier may turn out wrong, and is
/// then fetched anew.
fn may_be_right(error: &Error) -> bool {
    use ErrorKind::{Cancelled, FailedPrecondition, ResourceExhausted};
    !matches!(error.kind(), Cancelled | FailedPrecondition | ResourceExhausted)
}
