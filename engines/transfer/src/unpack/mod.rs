//! An image's layers as snapshots.
//!
//! ```text
//!   layer 0   (comes) prepare(extract-… ⟨chain 0⟩) → apply → diff id? → (is there) ─▶ commit(⟨chain 0⟩)
//!   layer 1   (comes) prepare(extract-… ⟨chain 1⟩) → apply → diff id? → (is there) ─┄─▶ commit(⟨chain 1⟩, onto ⟨chain 0⟩)
//! ```
//! Where the differ can, a layer is applied as its bytes come; should they break off, it is applied anew once it is
//! there. Its snapshot is only committed when its blob is, which is verified then.
//!
//! Where the snapshotter lets a parent come with the commit, layers are filled at once and committed in their order. Anywhere else, and for a layer that needs what is below it, one is prepared
//! on the other. Snapshots are named by chain id, so whatever images share is unpacked once, whoever came first; two at the same
//! time both work and the second takes the first one's snapshot. What is committed stays: a later call goes on
//! from there.

mod arrivals;
mod order;
mod remote;
mod work;

use std::collections::HashSet;

use berth_core::{Catalog, ContentStore, Scope, Snapshotter};
use berth_oci::image::{PlatformMatch, chain_ids};
use berth_types::{Descriptor, Digest, Error, ErrorKind, Labels, Result, SnapshotKey, SnapshotterName};

pub(crate) use self::arrivals::{Arrival, Arrivals, Waiting};
pub(crate) use self::remote::{offer, wants_labels};
use self::work::Work;
pub(crate) use self::work::can_differ;
use crate::content;
use crate::hold::Hold;
use crate::image::{Loaded, load};
use crate::progress::Reporter;
use crate::recipes;

/// The label by which a configuration keeps a snapshot, followed by the snapshotter.
pub(crate) const GC_SNAPSHOT: &str = "containerd.io/gc.ref.snapshot.";

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
    arriving(catalog, scope, request, &Waiting::for_nothing()).await
}

/// Unpacks an image of which manifest and configuration are there, and each layer once it is.
pub(crate) async fn arriving(
    catalog: &dyn Catalog,
    scope: &Scope,
    request: &Unpack,
    waiting: &Waiting,
) -> Result<Unpacked> {
    let store = catalog.content(scope);
    let image = load(&*store, &request.target, &request.platform).await?;
    let layers = layers(&image)?;
    let snapshots = catalog.snapshotter(&request.snapshotter, scope)?;
    let chain = image.chain()?;
    let Some(top) = chain.clone() else { return Ok(Unpacked { image, chain }) };
    // The short way, without a lease: something refers to the snapshot, so it stays.
    if is_there(&*store, &*snapshots, &image, &request.snapshotter).await? {
        return Ok(Unpacked { image, chain });
    }
    let hold = Hold::begin(catalog, scope).await?;
    let work = Work::open(catalog, hold.scope(), request, waiting).await;
    let done = async {
        let work = work?;
        if !waiting.is_needed() {
            // For another snapshotter than the one that has the files.
            recipes::restore_image(catalog, hold.scope(), &image).await?;
        }
        work.all(&layers).await?;
        // The image's configuration keeps the snapshot from now on.
        let label = Labels::from([(gc_label(&request.snapshotter), top.to_string())]);
        content::add_labels(&*store, &image.manifest.config.digest, label).await
    };
    let done = done.await;
    hold.over(done).await?;
    Ok(Unpacked { image, chain })
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

/// Whether a snapshot is there.
pub(crate) async fn exists(snapshots: &dyn Snapshotter, key: &SnapshotKey) -> Result<bool> {
    match snapshots.stat(key).await {
        Ok(_) => Ok(true),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

/// The layers whose blobs an image does without, because it is unpacked.
pub(crate) async fn spared(
    catalog: &dyn Catalog,
    scope: &Scope,
    request: &Unpack,
) -> Result<HashSet<Digest>> {
    let store = catalog.content(scope);
    let image = match load(&*store, &request.target, &request.platform).await {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(HashSet::new()),
        image => image?,
    };
    let snapshots = catalog.snapshotter(&request.snapshotter, scope)?;
    if !is_there(&*store, &*snapshots, &image, &request.snapshotter).await? {
        return Ok(HashSet::new());
    }
    let mut spared = HashSet::new();
    for layer in &image.manifest.layers {
        if !content::exists(&*store, &layer.digest).await? {
            spared.insert(layer.digest.clone());
        }
    }
    Ok(spared)
}

/// Whether all of an image is unpacked, and its configuration keeps that.
async fn is_there(
    store: &dyn ContentStore,
    snapshots: &dyn Snapshotter,
    image: &Loaded,
    snapshotter: &SnapshotterName,
) -> Result<bool> {
    let Some(top) = image.chain()? else { return Ok(true) };
    let labels = store.info(&image.manifest.config.digest).await?.labels;
    let is_kept = labels.get(&gc_label(snapshotter)).is_some_and(|value| value == top.as_str());
    Ok(is_kept && exists(snapshots, &top).await?)
}
