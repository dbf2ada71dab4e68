//! Taking a layer off two trees.
//!
//! ```text
//!   [walk, tar] ──▶ plain bytes ──▶ [hash, compress, hash] ──▶ parts ──▶ ingest
//! ```
//! The first two are threads, the last is the caller's task; each waits for the next, so that the memory
//! in use is a few parts whatever the layer's size.

mod changes;
mod layer;
mod same;
mod stream;
mod upper;
mod walk;

use std::time::SystemTime;

use berth_archive::Compression;
use berth_core::{CommitRequest, CompareRequest, ContentStore, Ingest, IngestRequest};
use berth_oci::image::media;
use berth_types::{Descriptor, Digest, Error, ErrorKind, FieldMask, IngestRef, Labels, Mount, Result};
use bytes::Bytes;
use tokio::sync::mpsc;

use crate::mounted::{self, Overlay, bound};
use layer::Layer;
pub(crate) use stream::Parts;
use stream::{Packed, Plain};

/// The label that tells a layer's diff id.
const UNCOMPRESSED: &str = "containerd.io/uncompressed";

/// Parts on their way to the ingest.
pub(crate) const DEPTH: usize = 4;

/// Compares two trees and stores the layer.
pub(crate) async fn compare(content: &dyn ContentStore, request: CompareRequest) -> Result<Descriptor> {
    let CompareRequest { lower, upper, media_type, reference, labels, source_date_epoch } = request;
    let media_type = if media_type.is_empty() { media::OCI_LAYER_GZIP.to_owned() } else { media_type };
    let compression = match &*media_type {
        media::OCI_LAYER => Compression::Plain,
        media::OCI_LAYER_GZIP => Compression::Gzip,
        media::OCI_LAYER_ZSTD => Compression::Zstd,
        other => {
            return Err(Error::not_implemented(format!("{other:?} is not a layer that can be made")));
        }
    };
    let given = reference.is_some();
    let reference = reference.map_or_else(fresh_reference, Ok)?;
    let mut ingest = content.writer(IngestRequest::new(reference.clone())).await?;
    let written = async {
        ingest.truncate(0).await?;
        let packed =
            write(&mut *ingest, Trees { lower, upper, latest: source_date_epoch }, compression).await?;
        store(content, &mut *ingest, &packed, labels).await?;
        Ok(Descriptor::new(media_type, packed.digest, packed.size))
    };
    let written = written.await;
    drop(ingest);
    if written.is_err()
        && !given
        && let Err(error) = content.abort(&reference).await
        && error.kind() != ErrorKind::NotFound
    {
        tracing::warn!(%reference, error = error.chain(), "cannot throw the unfinished layer away");
    }
    written
}

/// What is compared.
struct Trees {
    lower: Vec<Mount>,
    upper: Vec<Mount>,
    /// No file is younger than that in the layer.
    latest: Option<SystemTime>,
}

async fn write(ingest: &mut dyn Ingest, trees: Trees, compression: Compression) -> Result<Packed> {
    let (plain, chunks) = Plain::channel();
    let (parts, mut packed_parts) = mpsc::channel(DEPTH);
    let walked = tokio::task::spawn_blocking(move || walk(&trees, plain));
    let packed = tokio::task::spawn_blocking(move || stream::pack(&chunks, parts, compression));
    let sent = send(ingest, &mut packed_parts).await;
    // Whoever still writes for a failed ingest ends when nobody takes the parts.
    drop(packed_parts);
    let lost = |error| Error::internal("the comparison ended early").caused_by(error);
    let walked = walked.await.map_err(lost)?;
    let packed = packed.await.map_err(lost)?;
    sent?;
    walked?;
    packed.map_err(|error| Error::io("cannot compress the layer", error))
}

pub(crate) async fn send(ingest: &mut dyn Ingest, parts: &mut mpsc::Receiver<Bytes>) -> Result<()> {
    let mut offset = 0;
    while let Some(part) = parts.recv().await {
        let length = part.len() as u64;
        ingest.write(offset, part).await?;
        offset += length;
    }
    Ok(())
}

/// Commits the ingest; a blob that is there already only gets its label.
async fn store(
    content: &dyn ContentStore,
    ingest: &mut dyn Ingest,
    packed: &Packed,
    mut labels: Labels,
) -> Result<()> {
    labels.insert(UNCOMPRESSED.to_owned(), packed.diff_id.to_string());
    let request = CommitRequest {
        size: Some(packed.size),
        expected: Some(packed.digest.clone()),
        labels: labels.clone(),
    };
    match ingest.commit(request).await {
        Err(error) if error.kind() == ErrorKind::AlreadyExists => {
            label(content, &packed.digest, labels).await
        }
        done => done.map(|_| ()),
    }
}

async fn label(content: &dyn ContentStore, digest: &Digest, labels: Labels) -> Result<()> {
    if content.info(digest).await?.labels.contains_key(UNCOMPRESSED) {
        return Ok(());
    }
    content.update(digest, labels, &FieldMask::new([format!("labels.{UNCOMPRESSED}")])).await?;
    Ok(())
}

pub(crate) fn fresh_reference() -> Result<IngestRef> {
    use std::hash::BuildHasher;
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let random = std::hash::RandomState::new().hash_one(now);
    format!("diff-{}-{random:016x}", now.as_nanos()).parse()
}

/// Writes what changed from one tree to the other.
fn walk(trees: &Trees, plain: Plain) -> Result<()> {
    if let Some(overlay) = directly_above(&trees.lower, &trees.upper)
        && let Some(folder) = &overlay.upper
    {
        let folder = [Mount {
            kind: "bind".into(),
            source: folder.to_string_lossy().into_owned(),
            target: String::new(),
            options: vec!["ro".into(), "rbind".into()],
        }];
        let changes = mounted::for_reading(&folder, |root| upper::changes(&root, overlay.prefix()))?;
        if let Some(changes) = changes {
            return mounted::for_reading(&folder, |root| {
                let mut layer = Layer::new(&root, plain, trees.latest);
                for change in &changes {
                    layer.add(change)?;
                }
                layer.finish()
            });
        }
    }
    let double = |lower: Option<&berth_sys::beneath::Root>| {
        mounted::for_reading(&trees.upper, |root| {
            let mut layer = Layer::new(&root, plain, trees.latest);
            walk::changes(lower, &root, &mut |change| layer.add(change))?;
            layer.finish()
        })
    };
    if trees.upper.is_empty() {
        return Err(Error::invalid_argument("no mounts to take the layer from"));
    }
    if trees.lower.is_empty() {
        double(None)
    } else {
        mounted::for_reading(&trees.lower, |root| double(Some(&root)))
    }
}

/// The overlay that is mounted above exactly the lower tree, so that its upper folder tells all.
fn directly_above(lower: &[Mount], upper: &[Mount]) -> Option<Overlay> {
    let overlay = Overlay::of(upper).filter(|overlay| overlay.upper.is_some() && !overlay.mapped)?;
    let same = match (bound(lower), Overlay::of(lower)) {
        (Some((folder, _)), _) => overlay.lowers == [folder],
        (None, Some(below)) => below.upper.is_none() && !below.mapped && below.lowers == overlay.lowers,
        (None, None) => false,
    };
    same.then_some(overlay)
}
