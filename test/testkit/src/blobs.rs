//! A content store in memory, for whoever needs one that is right and nothing more.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use async_trait::async_trait;
use berth_core::{BlobReader, CommitRequest, ContentStore, Ingest, IngestRequest};
use berth_types::filter::Filters;
use berth_types::{BlobInfo, Descriptor, Digest, Error, FieldMask, IngestRef, IngestStatus, Labels, Result};
use bytes::Bytes;
use sha2::Digest as _;

/// Blobs and ingests in memory. Clones share them.
#[derive(Clone, Debug, Default)]
pub struct Blobs(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    blobs: BTreeMap<Digest, (Bytes, BlobInfo)>,
    ingests: BTreeMap<IngestRef, (Vec<u8>, IngestStatus)>,
}

impl Blobs {
    /// Puts a blob in, whole, and describes it.
    pub fn add(&self, media_type: &str, bytes: impl Into<Bytes>) -> Descriptor {
        let bytes = bytes.into();
        let digest = digest(&bytes);
        let size = bytes.len() as u64;
        self.insert(&digest, bytes, Labels::new());
        Descriptor::new(media_type, digest, size)
    }

    /// The bytes of a blob.
    pub fn bytes(&self, digest: &Digest) -> Bytes {
        self.state().blobs.get(digest).map(|(bytes, _)| bytes.clone()).expect("the blob is there")
    }

    fn insert(&self, digest: &Digest, bytes: Bytes, labels: Labels) {
        let now = SystemTime::now();
        let size = bytes.len() as u64;
        let info = BlobInfo { digest: digest.clone(), size, created_at: now, updated_at: now, labels };
        self.state().blobs.insert(digest.clone(), (bytes, info));
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn digest(bytes: &[u8]) -> Digest {
    Digest::sha256(sha2::Sha256::digest(bytes).into())
}

fn no_blob(digest: &Digest) -> Error {
    Error::not_found(format!("blob {digest} is not there"))
}

fn no_ingest(reference: &IngestRef) -> Error {
    Error::not_found(format!("ingest {reference} is not there"))
}

#[async_trait]
impl ContentStore for Blobs {
    async fn info(&self, digest: &Digest) -> Result<BlobInfo> {
        self.state().blobs.get(digest).map(|(_, info)| info.clone()).ok_or_else(|| no_blob(digest))
    }

    async fn update(&self, digest: &Digest, labels: Labels, mask: &FieldMask) -> Result<BlobInfo> {
        let mut state = self.state();
        let (_, info) = state.blobs.get_mut(digest).ok_or_else(|| no_blob(digest))?;
        mask.merge_map("labels", &mut info.labels, &labels);
        Ok(info.clone())
    }

    async fn list(&self, filters: &Filters) -> Result<Vec<BlobInfo>> {
        let state = self.state();
        let infos = state.blobs.values().map(|(_, info)| info.clone());
        Ok(infos.filter(|info| filters.matches(info)).collect())
    }

    async fn delete(&self, digest: &Digest) -> Result<()> {
        self.state().blobs.remove(digest).map(|_| ()).ok_or_else(|| no_blob(digest))
    }

    async fn reader(&self, digest: &Digest) -> Result<Arc<dyn BlobReader>> {
        let state = self.state();
        let (bytes, _) = state.blobs.get(digest).ok_or_else(|| no_blob(digest))?;
        Ok(Arc::new(Reader(bytes.clone())))
    }

    async fn ingest(&self, reference: &IngestRef) -> Result<IngestStatus> {
        let state = self.state();
        state.ingests.get(reference).map(|(_, status)| status.clone()).ok_or_else(|| no_ingest(reference))
    }

    async fn ingests(&self, filters: &Filters) -> Result<Vec<IngestStatus>> {
        let state = self.state();
        let all = state.ingests.values().map(|(_, status)| status.clone());
        Ok(all.filter(|status| filters.matches(status)).collect())
    }

    async fn abort(&self, reference: &IngestRef) -> Result<()> {
        self.state().ingests.remove(reference).map(|_| ()).ok_or_else(|| no_ingest(reference))
    }

    async fn writer(&self, request: IngestRequest) -> Result<Box<dyn Ingest>> {
        let IngestRequest { reference, total, expected } = request;
        if let Some(expected) = expected.as_ref().filter(|expected| self.state().blobs.contains_key(expected))
        {
            return Err(Error::already_exists(format!("blob {expected} is there already")));
        }
        let now = SystemTime::now();
        let status = IngestStatus {
            reference: reference.clone(),
            offset: 0,
            total,
            expected,
            started_at: now,
            updated_at: now,
        };
        self.state().ingests.entry(reference.clone()).or_insert((Vec::new(), status));
        Ok(Box::new(Writer { blobs: self.clone(), reference }))
    }
}

struct Reader(Bytes);

#[async_trait]
impl BlobReader for Reader {
    fn size(&self) -> u64 {
        self.0.len() as u64
    }

    async fn read_at(&self, offset: u64, length: usize) -> Result<Bytes> {
        let start = usize::try_from(offset).unwrap_or(usize::MAX).min(self.0.len());
        Ok(self.0.slice(start..start.saturating_add(length).min(self.0.len())))
    }
}

struct Writer {
    blobs: Blobs,
    reference: IngestRef,
}

impl Writer {
    fn with<T>(&self, work: impl FnOnce(&mut Vec<u8>) -> Result<T>) -> Result<T> {
        let mut state = self.blobs.state();
        let (bytes, status) =
            state.ingests.get_mut(&self.reference).ok_or_else(|| no_ingest(&self.reference))?;
        let done = work(bytes)?;
        status.offset = bytes.len() as u64;
        status.updated_at = SystemTime::now();
        Ok(done)
    }
}

#[async_trait]
impl Ingest for Writer {
    async fn status(&self) -> Result<IngestStatus> {
        self.blobs.ingest(&self.reference).await
    }

    async fn write(&mut self, offset: u64, data: Bytes) -> Result<()> {
        self.with(|bytes| {
            if offset != bytes.len() as u64 {
                return Err(Error::out_of_range(format!("the end is at {}, not at {offset}", bytes.len())));
            }
            bytes.extend_from_slice(&data);
            Ok(())
        })
    }

    async fn truncate(&mut self, size: u64) -> Result<()> {
        self.with(|bytes| {
            bytes.truncate(usize::try_from(size).unwrap_or(usize::MAX));
            Ok(())
        })
    }

    async fn commit(&mut self, request: CommitRequest) -> Result<Digest> {
        let bytes = self.with(|bytes| Ok(bytes.clone()))?;
        let actual = digest(&bytes);
        if request.size.is_some_and(|size| size != bytes.len() as u64)
            || request.expected.is_some_and(|expected| expected != actual)
        {
            return Err(Error::failed_precondition(format!(
                "{} bytes of {actual} are not what was expected",
                bytes.len()
            )));
        }
        self.blobs.state().ingests.remove(&self.reference);
        if self.blobs.state().blobs.contains_key(&actual) {
            return Err(Error::already_exists(format!("blob {actual} is there already")));
        }
        self.blobs.insert(&actual, bytes.into(), request.labels);
        Ok(actual)
    }
}
