//! An open ingest of a namespace.

use std::sync::Arc;
use std::time::SystemTime;

use async_trait::async_trait;
use berth_core::{CommitRequest, Ingest, IngestRequest, Scope};
use berth_types::{Digest, Error, ErrorKind, Event, IngestRef, IngestStatus, Labels, Result};
use bytes::Bytes;
use tokio::sync::Mutex;

use crate::ledger::{Durability, Txn};
use crate::locks::Name;
use crate::record::{
    BlobRecord, IngestRecord, Resource, checked_labels, ensure_namespace, hold, let_go, store,
};
use crate::shared::Shared;
use crate::storage::Read;

/// How much is copied at a time when an adopted blob is written to.
const COPY: usize = 1 << 20;

/// An ingest that is one of the backend's, or stands for a blob that is there already.
pub(super) struct NamespacedIngest {
    pub(super) shared: Arc<Shared>,
    pub(super) scope: Scope,
    pub(super) reference: IngestRef,
    /// Its reference in the backend.
    pub(super) backend: IngestRef,
    /// The backend's ingest; `None` as long as the adopted blob stands for it. The lock is there
    /// because an ingest can be sent between threads and not shared by them; nobody waits for it.
    pub(super) open: Option<Mutex<Box<dyn Ingest>>>,
    pub(super) adopted: Option<(Digest, u64)>,
    pub(super) started: SystemTime,
}

#[async_trait]
impl Ingest for NamespacedIngest {
    async fn status(&self) -> Result<IngestStatus> {
        let reference = self.reference.clone();
        if let Some(open) = &self.open {
            return Ok(IngestStatus { reference, ..open.lock().await.status().await? });
        }
        let (digest, size) = self.standing_for()?;
        Ok(IngestStatus {
            reference,
            offset: size,
            total: size,
            expected: Some(digest),
            started_at: self.started,
            updated_at: self.started,
        })
    }

    fn digest(&self) -> Option<Digest> {
        match &self.open {
            Some(open) => open.try_lock().ok().and_then(|open| open.digest()),
            None => self.adopted.as_ref().map(|(digest, _)| digest.clone()),
        }
    }

    async fn write(&mut self, offset: u64, data: Bytes) -> Result<()> {
        if self.open.is_none() {
            let (_, size) = self.standing_for()?;
            if data.is_empty() && offset == size {
                return Ok(());
            }
            self.take_over(size).await?;
        }
        self.backend_ingest()?.write(offset, data).await
    }

    async fn truncate(&mut self, size: u64) -> Result<()> {
        if self.open.is_none() {
            return self.take_over(size).await;
        }
        self.backend_ingest()?.truncate(size).await
    }

    async fn commit(&mut self, request: CommitRequest) -> Result<Digest> {
        let CommitRequest { size, expected, labels } = request;
        let labels = checked_labels("info", labels)?;
        let present = self.status().await?.offset;
        if let Some(wanted) = size.filter(|&wanted| wanted != 0 && wanted != present) {
            return Err(Error::failed_precondition(format!(
                "{:?} failed size validation: {present} != {wanted}",
                self.reference.as_str()
            )));
        }
        // From the moment at which the blob is in the backend until it is recorded, nobody may
        // take it for an orphan.
        let known = expected.clone().or_else(|| self.digest());
        let name = known.clone().map_or(Name::UnknownBlob, Name::Blob);
        let _blob = self.shared.locks.share(name).await;
        let digest = match &mut self.open {
            None => {
                let (digest, _) = self.standing_for()?;
                if expected.is_some_and(|expected| expected != digest) {
                    return Err(Error::failed_precondition(format!(
                        "{:?} unexpected digest",
                        self.reference.as_str()
                    )));
                }
                digest
            }
            Some(open) => {
                let request = CommitRequest { size: Some(present), expected, labels: Labels::new() };
                match (open.get_mut().commit(request).await, known) {
                    (Ok(digest), _) => digest,
                    // Another namespace has it, or had it before a crash.
                    (Err(error), Some(digest)) if error.kind() == ErrorKind::AlreadyExists => digest,
                    (Err(error), _) => return Err(error),
                }
            }
        };
        self.record(digest, present, labels).await
    }
}

impl NamespacedIngest {
    async fn record(&self, digest: Digest, size: u64, labels: Labels) -> Result<Digest> {
        let (scope, reference) = (self.scope.clone(), self.reference.clone());
        let change = move |txn: &mut Txn<'_>| {
            ensure_namespace(txn, &scope.namespace)?;
            txn.delete(&IngestRecord::key(scope.namespace.as_str(), reference.as_str()))?;
            let_go(txn, &scope, Resource::Ingest(reference.as_str()))?;
            hold(txn, &scope, Resource::Content(&digest))?;
            let key = BlobRecord::key(scope.namespace.as_str(), &digest);
            if txn.load(&key)?.is_some() {
                return Ok((digest, false));
            }
            let now = SystemTime::now();
            store(txn, &key, &BlobRecord { size, created_at: now, updated_at: now, labels })?;
            txn.tell(&scope.namespace, Event::ContentCreate { digest: digest.clone(), size });
            Ok((digest, true))
        };
        match self.shared.ledger.update(Durability::Synced, change).await? {
            (digest, true) => Ok(digest),
            (digest, false) => Err(Error::already_exists(format!("content {digest}: already exists"))),
        }
    }

    /// Makes an ingest of its own of the first `size` bytes of the adopted blob.
    async fn take_over(&mut self, size: u64) -> Result<()> {
        let (digest, present) = self.standing_for()?;
        if size > present {
            return Err(Error::out_of_range(format!(
                "ingest {:?} has {present} bytes, it cannot be cut to {size}",
                self.reference.as_str()
            )));
        }
        let request = IngestRequest::new(self.backend.clone());
        let mut open = self.shared.content.writer(request).await?;
        open.truncate(0).await?;
        if size > 0 {
            let reader = self.shared.content.reader(&digest).await?;
            let mut offset = 0;
            while offset < size {
                let length = COPY.min((size - offset) as usize);
                let data = reader.read_at(offset, length).await?;
                if data.is_empty() {
                    return Err(Error::data_loss(format!("blob {digest} ended after {offset} bytes")));
                }
                let length = data.len() as u64;
                open.write(offset, data).await?;
                offset += length;
            }
        }
        self.open = Some(Mutex::new(open));
        Ok(())
    }

    fn standing_for(&self) -> Result<(Digest, u64)> {
        self.adopted.clone().ok_or_else(|| Error::internal("an ingest has neither a writer nor a blob"))
    }

    fn backend_ingest(&mut self) -> Result<&mut Box<dyn Ingest>> {
        self.open.as_mut().map(Mutex::get_mut).ok_or_else(|| Error::internal("an ingest has no writer"))
    }
}
