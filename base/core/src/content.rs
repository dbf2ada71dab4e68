//! Blobs by their address, and ingests that become blobs.

use std::fs::File;
use std::sync::Arc;

use async_trait::async_trait;
use berth_types::filter::Filters;
use berth_types::{
    BlobInfo, Descriptor, Digest, Error, ErrorKind, FieldMask, IngestRef, IngestStatus, Labels, Result,
};
use bytes::Bytes;

/// A store of blobs.
///
/// A blob, once there, never changes and is complete; its labels may change. An ingest grows by
/// writes at its end, outlives the writer and the daemon, and is resumed by its reference. One
/// writer at a time: a second one is answered [`ErrorKind::Unavailable`].
#[async_trait]
pub trait ContentStore: Send + Sync {
    /// What is known of a blob. [`ErrorKind::NotFound`] when it is not there.
    async fn info(&self, digest: &Digest) -> Result<BlobInfo>;

    /// Changes the labels of a blob as the mask says (`labels`, `labels.KEY`).
    async fn update(&self, digest: &Digest, labels: Labels, mask: &FieldMask) -> Result<BlobInfo>;

    /// Every blob that passes the filters.
    async fn list(&self, filters: &Filters) -> Result<Vec<BlobInfo>>;

    /// Removes a blob from this view; readers that are open go on.
    async fn delete(&self, digest: &Digest) -> Result<()>;

    /// Opens a blob for reading.
    async fn reader(&self, digest: &Digest) -> Result<Arc<dyn BlobReader>>;

    /// Opens an ingest for reading what comes as it comes, see [`BlobReader::reach`]. Nothing of it is verified before
    /// its commit. [`ErrorKind::NotFound`] when nobody writes it, [`ErrorKind::NotImplemented`] where ingests cannot
    /// be read.
    async fn follow(&self, reference: &IngestRef) -> Result<Arc<dyn BlobReader>> {
        Err(Error::not_implemented(format!("ingest {reference} cannot be read before its commit")))
    }

    /// A whole blob of at most `limit` bytes; a larger one is [`ErrorKind::ResourceExhausted`]. For documents,
    /// never for layers.
    async fn document(&self, digest: &Digest, limit: u64) -> Result<Vec<u8>> {
        let reader = self.reader(digest).await?;
        if reader.size() > limit {
            return Err(too_large(digest, reader.size(), limit));
        }
        let mut data = Vec::with_capacity(reader.size() as usize);
        loop {
            let part = reader.read_at(data.len() as u64, 1 << 20).await?;
            if part.is_empty() {
                break;
            }
            data.extend_from_slice(&part);
        }
        if data.len() as u64 != reader.size() {
            return Err(Error::data_loss(format!(
                "blob {digest} ended after {} of {} bytes",
                data.len(),
                reader.size()
            )));
        }
        Ok(data)
    }

    /// Where an ingest is.
    async fn ingest(&self, reference: &IngestRef) -> Result<IngestStatus>;

    /// Every ingest that passes the filters.
    async fn ingests(&self, filters: &Filters) -> Result<Vec<IngestStatus>>;

    /// Throws an ingest away.
    async fn abort(&self, reference: &IngestRef) -> Result<()>;

    /// Begins an ingest, or takes one up where it stopped. [`ErrorKind::AlreadyExists`] when the
    /// expected blob is there already, [`ErrorKind::Unavailable`] while another writer has it.
    async fn writer(&self, request: IngestRequest) -> Result<Box<dyn Ingest>>;
}

/// What somebody is about to write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IngestRequest {
    /// The name under which it can be resumed.
    pub reference: IngestRef,
    /// Bytes in all, 0 when unknown.
    pub total: u64,
    /// The address that it will have, when known.
    pub expected: Option<Digest>,
}

impl IngestRequest {
    /// An ingest of which nothing is known but its name.
    pub fn new(reference: IngestRef) -> Self {
        Self { reference, total: 0, expected: None }
    }
}

/// What a commit must find to be true; an ingest that lies stays an ingest.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CommitRequest {
    /// The size, when known. A mismatch is [`ErrorKind::FailedPrecondition`].
    pub size: Option<u64>,
    /// The address, when known. A mismatch is [`ErrorKind::FailedPrecondition`].
    pub expected: Option<Digest>,
    /// Labels of the new blob.
    pub labels: Labels,
}

/// An open blob, or one that is still being written.
#[async_trait]
pub trait BlobReader: Send + Sync {
    /// Bytes; of one that is still being written, as many as were announced, 0 when nobody knows.
    fn size(&self) -> u64;

    /// Resolves once there are more than `beyond` bytes, or there will not be more, with how many there are. A blob
    /// makes nobody wait. An ingest whose writer has gone, or has cut it, is [`ErrorKind::Unavailable`].
    async fn reach(&self, _beyond: u64) -> Result<u64> {
        Ok(self.size())
    }

    /// Up to `length` bytes from `offset`; empty at the end, never more than asked for.
    async fn read_at(&self, offset: u64, length: usize) -> Result<Bytes>;

    /// The file behind it, for whoever is on the same machine and can read or splice faster.
    fn file(&self) -> Option<&File> {
        None
    }
}

/// An open ingest. Dropping it keeps what was written for the next writer.
#[async_trait]
pub trait Ingest: Send {
    /// Where it is.
    async fn status(&self) -> Result<IngestStatus>;

    /// The address that the bytes so far have, where it is known without reading them again.
    fn digest(&self) -> Option<Digest> {
        None
    }

    /// Appends: `offset` must be the present end, else [`ErrorKind::OutOfRange`].
    async fn write(&mut self, offset: u64, data: Bytes) -> Result<()>;

    /// Cuts it to `size` bytes, at most what is there.
    async fn truncate(&mut self, size: u64) -> Result<()>;

    /// Verifies and publishes. [`ErrorKind::AlreadyExists`] when the blob is there already.
    async fn commit(&mut self, request: CommitRequest) -> Result<Digest>;
}

/// Reads a whole blob of at most `limit` bytes: a document, never a layer.
pub async fn read_blob(store: &dyn ContentStore, digest: &Digest, limit: u64) -> Result<Vec<u8>> {
    store.document(digest, limit).await
}

fn too_large(digest: &Digest, size: u64, limit: u64) -> Error {
    Error::resource_exhausted(format!("blob {digest} has {size} bytes, more than the {limit} allowed here"))
}

/// Puts a whole small blob into the store; content that is there already is no error, but the
/// labels given are added to it.
pub async fn write_blob(
    store: &dyn ContentStore,
    reference: IngestRef,
    descriptor: &Descriptor,
    data: Bytes,
    labels: Labels,
) -> Result<()> {
    let request =
        IngestRequest { reference, total: descriptor.size, expected: Some(descriptor.digest.clone()) };
    let written = async {
        let mut ingest = store.writer(request).await?;
        ingest.truncate(0).await?;
        ingest.write(0, data).await?;
        let commit = CommitRequest {
            size: Some(descriptor.size),
            expected: Some(descriptor.digest.clone()),
            labels: labels.clone(),
        };
        ingest.commit(commit).await
    };
    match written.await {
        Ok(_) => Ok(()),
        Err(error) if error.kind() == ErrorKind::AlreadyExists => {
            let mask = FieldMask::new(labels.keys().map(|key| format!("labels.{key}")));
            if !labels.is_empty() {
                store.update(&descriptor.digest, labels, &mask).await?;
            }
            Ok(())
        }
        Err(error) => Err(error),
    }
}
