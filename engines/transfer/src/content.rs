//! Bytes into the content store and documents out of it.

use berth_core::{CommitRequest, ContentStore, Ingest, IngestRequest, read_blob};
use berth_types::{Descriptor, Digest, Error, ErrorKind, FieldMask, IngestRef, Labels, Result};
use bytes::Bytes;

/// The label of a layer's blob that says the digest of the tar in it.
pub(crate) const UNCOMPRESSED: &str = "containerd.io/uncompressed";

/// What a writer was asked for.
pub(crate) enum Opened {
    /// It is there already.
    Exists,
    /// Bytes can be written, from where the ingest stopped before.
    Writing(Box<dyn Ingest>, u64),
}

/// Opens an ingest; content that is there is no error.
pub(crate) async fn open(store: &dyn ContentStore, request: IngestRequest) -> Result<Opened> {
    match store.writer(request).await {
        Ok(ingest) => {
            let offset = ingest.status().await?.offset;
            Ok(Opened::Writing(ingest, offset))
        }
        Err(error) if error.kind() == ErrorKind::AlreadyExists => Ok(Opened::Exists),
        Err(error) => Err(error),
    }
}

/// Commits an ingest; content that somebody else committed meanwhile is no error, and gets the labels.
pub(crate) async fn commit(
    store: &dyn ContentStore,
    ingest: &mut dyn Ingest,
    request: CommitRequest,
) -> Result<()> {
    let (expected, labels) = (request.expected.clone(), request.labels.clone());
    match ingest.commit(request).await {
        Ok(_) => Ok(()),
        Err(error) if error.kind() == ErrorKind::AlreadyExists => match expected {
            Some(digest) => add_labels(store, &digest, labels).await,
            None => Ok(()),
        },
        Err(error) => Err(error),
    }
}

/// Adds labels to a blob and leaves its others alone.
pub(crate) async fn add_labels(store: &dyn ContentStore, digest: &Digest, labels: Labels) -> Result<()> {
    if labels.is_empty() {
        return Ok(());
    }
    let mask = FieldMask::new(labels.keys().map(|key| format!("labels.{key}")));
    store.update(digest, labels, &mask).await.map(drop)
}

/// Whether a blob is there.
pub(crate) async fn exists(store: &dyn ContentStore, digest: &Digest) -> Result<bool> {
    match store.info(digest).await {
        Ok(_) => Ok(true),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

/// Reads a document of at most `limit` bytes; one whose size is not the descriptor's is refused.
pub(crate) async fn document(
    store: &dyn ContentStore,
    descriptor: &Descriptor,
    limit: u64,
) -> Result<Vec<u8>> {
    let data = read_blob(store, &descriptor.digest, limit).await?;
    if descriptor.size > 0 && descriptor.size != data.len() as u64 {
        return Err(Error::failed_precondition(format!(
            "blob {} has {} bytes and not the {} of its descriptor",
            descriptor.digest,
            data.len(),
            descriptor.size
        )));
    }
    Ok(data)
}

/// Writes a JSON document under the reference that containerd uses for its kind, and describes it.
pub(crate) async fn write_document(
    store: &dyn ContentStore,
    kind: &str,
    media_type: &str,
    document: &impl serde::Serialize,
    labels: Labels,
) -> Result<Descriptor> {
    let data = serde_json::to_vec(document)
        .map_err(|source| Error::internal(format!("cannot write a {kind}")).caused_by(source))?;
    let digest = berth_archive::Hasher::digest(&data);
    let descriptor = Descriptor::new(media_type, digest, data.len() as u64);
    let reference: IngestRef = format!("{kind}-{}", descriptor.digest).parse()?;
    berth_core::write_blob(store, reference, &descriptor, Bytes::from(data), labels).await?;
    Ok(descriptor)
}
