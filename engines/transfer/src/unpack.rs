//! An image's layers as snapshots.
//!
//! ```text
//!   layer 0   prepare(extract-… ⟨chain 0⟩) → apply → diff id? → commit(⟨chain 0⟩)
//!   layer 1   prepare(extract-… ⟨chain 1⟩, parent ⟨chain 0⟩) → apply → diff id? → commit(⟨chain 1⟩)
//! ```
//! Snapshots are named by chain id, so whatever images share is unpacked once, whoever came first; two at the same
//! time both work and the second takes the first one's snapshot. What is committed stays: a later call goes on
//! from there.

use berth_core::{ApplyRequest, Catalog, ContentStore, Leases, NewSnapshot, Scope, Snapshotter};
use berth_oci::image::{PlatformMatch, chain_ids};
use berth_types::{
    Descriptor, Digest, Error, ErrorKind, FieldMask, Labels, LeaseId, LeaseResource, Mount, Result,
    SnapshotKey, SnapshotterName,
};

use crate::content;
use crate::hold::{Hold, unique};
use crate::image::{Loaded, load};
use crate::progress::{Object, Reporter, State};

const SNAPSHOT_REF: &str = "containerd.io/snapshot.ref";
const UNCOMPRESSED: &str = "containerd.io/uncompressed";
const GC_SNAPSHOT: &str = "containerd.io/gc.ref.snapshot.";

/// How often a key that somebody has is replaced by another.
const TRIES: usize = 3;

/// What to unpack where.
#[derive(Clone, Debug)]
pub struct Unpack {
    /// Index or manifest.
    pub target: Descriptor,
    /// Whose image of an index.
    pub platform: PlatformMatch,
    /// Into which snapshotter.
    pub snapshotter: SnapshotterName,
    /// Where progress goes.
    pub progress: Reporter,
}

/// An image that can be run.
#[derive(Clone, Debug)]
pub struct Unpacked {
    /// Its manifest and configuration.
    pub image: Loaded,
    /// The snapshot with all its layers, to be the parent of a container's; none for an image without layers.
    pub chain: Option<SnapshotKey>,
}

/// Unpacks an image's layers. What is unpacked already is left as it is.
pub async fn unpack(catalog: &dyn Catalog, scope: &Scope, request: &Unpack) -> Result<Unpacked> {
    let store = catalog.content(scope);
    let image = load(&*store, &request.target, &request.platform).await?;
    let layers = layers(&image)?;
    let snapshots = catalog.snapshotter(&request.snapshotter, scope)?;
    let chain = image.chain()?;
    let Some(top) = chain.clone() else { return Ok(Unpacked { image, chain }) };
    // The short way, without a lease: something refers to the snapshot, so it stays.
    if is_referred(&*store, &image, &request.snapshotter, &top).await? && exists(&*snapshots, &top).await? {
        return Ok(Unpacked { image, chain });
    }
    let hold = Hold::begin(catalog, scope).await?;
    let done = unpack_held(catalog, hold.scope(), request, &image, &layers, &top).await;
    hold.over(done).await?;
    Ok(Unpacked { image, chain })
}

async fn unpack_held(
    catalog: &dyn Catalog,
    scope: &Scope,
    request: &Unpack,
    image: &Loaded,
    layers: &[Layer],
    top: &SnapshotKey,
) -> Result<()> {
    let work = Work {
        hold: (catalog.leases(scope), scope.lease.clone(), &request.snapshotter),
        store: catalog.content(scope),
        snapshots: catalog.snapshotter(&request.snapshotter, scope)?,
        differ: catalog.differ(scope),
        progress: &request.progress,
    };
    work.all(layers).await?;
    // The image's configuration keeps the snapshot from now on.
    let label = Labels::from([(gc_label(&request.snapshotter), top.to_string())]);
    content::add_labels(&*work.store, &image.manifest.config.digest, label).await
}

fn gc_label(snapshotter: &SnapshotterName) -> String {
    format!("{GC_SNAPSHOT}{snapshotter}")
}

/// A layer with what it must turn out to be.
struct Layer {
    descriptor: Descriptor,
    diff_id: Digest,
    chain: SnapshotKey,
}

fn layers(image: &Loaded) -> Result<Vec<Layer>> {
    let diff_ids = &image.config.rootfs.diff_ids;
    if diff_ids.len() != image.manifest.layers.len() {
        return Err(Error::invalid_argument(format!(
            "the manifest {} has {} layers and its configuration {}",
            image.descriptor.digest,
            image.manifest.layers.len(),
            diff_ids.len()
        )));
    }
    let chains = chain_ids(diff_ids);
    let parts = image.manifest.layers.iter().zip(diff_ids).zip(chains);
    parts
        .map(|((descriptor, diff_id), chain)| {
            let chain = chain.as_str().parse()?;
            Ok(Layer { descriptor: descriptor.clone(), diff_id: diff_id.clone(), chain })
        })
        .collect()
}

async fn exists(snapshots: &dyn Snapshotter, key: &SnapshotKey) -> Result<bool> {
    match snapshots.stat(key).await {
        Ok(_) => Ok(true),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

/// Whether the image's configuration keeps the snapshot.
async fn is_referred(
    store: &dyn ContentStore,
    image: &Loaded,
    snapshotter: &SnapshotterName,
    top: &SnapshotKey,
) -> Result<bool> {
    let labels = store.info(&image.manifest.config.digest).await?.labels;
    Ok(labels.get(&gc_label(snapshotter)).is_some_and(|value| value == top.as_str()))
}

/// The seams under the lease.
struct Work<'a> {
    hold: (std::sync::Arc<dyn Leases>, Option<LeaseId>, &'a SnapshotterName),
    store: std::sync::Arc<dyn ContentStore>,
    snapshots: std::sync::Arc<dyn Snapshotter>,
    differ: std::sync::Arc<dyn berth_core::Differ>,
    progress: &'a Reporter,
}

impl Work<'_> {
    async fn all(&self, layers: &[Layer]) -> Result<()> {
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
        for (at, layer) in layers.iter().enumerate().skip(first) {
            let parent = at.checked_sub(1).map(|below| layers[below].chain.clone());
            self.one(layer, parent).await?;
            self.report(layer).whole(State::Unpacked);
        }
        Ok(())
    }

    /// Puts a snapshot that was there under the lease: nothing else may refer to it any more.
    async fn keep(&self, chain: &SnapshotKey) -> Result<()> {
        let (leases, lease, snapshotter) = &self.hold;
        let Some(lease) = lease else { return Ok(()) };
        let resource = LeaseResource { id: chain.to_string(), kind: format!("snapshots/{snapshotter}") };
        match leases.add_resource(lease, resource).await {
            Err(error) if error.kind() == ErrorKind::AlreadyExists => Ok(()),
            result => result,
        }
    }

    fn report(&self, layer: &Layer) -> crate::progress::Reported {
        self.progress.object(layer.descriptor.digest.as_str(), Object::Layer, layer.descriptor.size)
    }

    async fn one(&self, layer: &Layer, parent: Option<SnapshotKey>) -> Result<()> {
        let Some((key, mounts)) = self.prepare(layer, parent).await? else { return Ok(()) };
        self.report(layer).whole(State::Unpacking);
        if let Err(error) = self.fill(layer, &key, mounts).await {
            // The lease's end would remove it too, but the disk may be what ran full.
            self.snapshots.remove(&key).await.ok();
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
    async fn prepare(
        &self,
        layer: &Layer,
        parent: Option<SnapshotKey>,
    ) -> Result<Option<(SnapshotKey, Vec<Mount>)>> {
        let labels = Labels::from([(SNAPSHOT_REF.to_owned(), layer.chain.to_string())]);
        let mut last = None;
        for _ in 0..TRIES {
            let key: SnapshotKey = format!("{} {}", unique("extract"), layer.chain).parse()?;
            let new = NewSnapshot { key: key.clone(), parent: parent.clone(), labels: labels.clone() };
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

    async fn fill(&self, layer: &Layer, key: &SnapshotKey, mounts: Vec<Mount>) -> Result<()> {
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
        let labels = Labels::from([(SNAPSHOT_REF.to_owned(), layer.chain.to_string())]);
        self.snapshots.commit(&layer.chain, key, labels).await
    }
}
