//! The content store as a namespace sees it.
//!
//! A blob lies in the backend once, whoever has it; that a namespace has it, and with which
//! labels, is a record. A reference of an ingest means another ingest in each namespace.

mod ingest;

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use berth_core::{BlobReader, ContentStore, Ingest, IngestRequest, Scope};
use berth_types::filter::Filters;
use berth_types::{
    BlobInfo, Digest, Error, ErrorKind, Event, FieldMask, IngestRef, IngestStatus, Labels, Result,
};
use tokio::sync::Mutex;

use self::ingest::NamespacedIngest;
use crate::config::Sharing;
use crate::key::{Kind, key};
use crate::ledger::{Durability, Stale, Txn};
use crate::locks::Name;
use crate::record::{
    BlobRecord, IngestRecord, NamespaceRow, Resource, checked_labels, each, ensure_namespace, hold, let_go,
    load, merge_labels, store,
};
use crate::shared::Shared;
use crate::storage::Read;

/// How long an ingest is kept that no lease holds.
const ABANDONED: Duration = Duration::from_hours(24);

/// The label of a namespace from which others may take content under [`Sharing::Isolated`].
const SHAREABLE: &str = "containerd.io/namespace.shareable";

/// The content of a namespace.
pub(crate) struct ContentView {
    pub(crate) shared: Arc<Shared>,
    pub(crate) scope: Scope,
}

#[async_trait]
impl ContentStore for ContentView {
    async fn info(&self, digest: &Digest) -> Result<BlobInfo> {
        self.shared.ledger.view(|read| find(read, &self.scope, digest))
    }

    async fn update(&self, digest: &Digest, labels: Labels, mask: &FieldMask) -> Result<BlobInfo> {
        let (scope, digest, mask) = (self.scope.clone(), digest.clone(), mask.clone());
        let change = move |txn: &mut Txn<'_>| {
            let mut info = find(txn, &scope, &digest)?;
            merge_labels(&format!("content info {:?}", digest.as_str()), &mask, &mut info.labels, &labels)?;
            info.labels = checked_labels("info", info.labels)?;
            info.updated_at = SystemTime::now();
            store(txn, &BlobRecord::key(scope.namespace.as_str(), &digest), &BlobRecord::of(&info))?;
            Ok(info)
        };
        self.shared.ledger.update(Durability::Synced, change).await
    }

    async fn list(&self, filters: &Filters) -> Result<Vec<BlobInfo>> {
        let (prefix, filters) = (key(Kind::Blob, &[self.scope.namespace.as_str()]), filters.clone());
        let walk = move |read: &dyn Read| {
            let mut all = Vec::new();
            each::<BlobRecord, 2>(read, &prefix, |[_, digest], record| {
                let info = record.named(digest.parse()?);
                if filters.matches(&info) {
                    all.push(info);
                }
                Ok(())
            })?;
            Ok(all)
        };
        self.shared.ledger.walk(walk).await
    }

    async fn delete(&self, digest: &Digest) -> Result<()> {
        let (scope, digest) = (self.scope.clone(), digest.clone());
        let change = move |txn: &mut Txn<'_>| {
            if !txn.delete(&BlobRecord::key(scope.namespace.as_str(), &digest))? {
                return Err(missing(&digest));
            }
            let_go(txn, &scope, Resource::Content(&digest))?;
            txn.tell(&scope.namespace, Event::ContentDelete { digest: digest.clone() });
            txn.release_backend(Stale::Blob(digest));
            Ok(())
        };
        self.shared.ledger.update(Durability::Synced, change).await
    }

    async fn reader(&self, digest: &Digest) -> Result<Arc<dyn BlobReader>> {
        self.info(digest).await?;
        self.shared.content.reader(digest).await
    }

    async fn follow(&self, reference: &IngestRef) -> Result<Arc<dyn BlobReader>> {
        let record = self.shared.ledger.view(|read| find_ingest(read, &self.scope, reference))?;
        self.shared.content.follow(&record.backend).await
    }

    async fn ingest(&self, reference: &IngestRef) -> Result<IngestStatus> {
        let record = self.shared.ledger.view(|read| find_ingest(read, &self.scope, reference))?;
        let status = self.shared.content.ingest(&record.backend).await?;
        Ok(IngestStatus { reference: reference.clone(), ..status })
    }

    async fn ingests(&self, filters: &Filters) -> Result<Vec<IngestStatus>> {
        let prefix = key(Kind::Ingest, &[self.scope.namespace.as_str()]);
        let records = self.shared.ledger.view(|read| {
            let mut records = Vec::new();
            each::<IngestRecord, 2>(read, &prefix, |[_, reference], record| {
                records.push((reference.parse::<IngestRef>()?, record.backend));
                Ok(())
            })?;
            Ok(records)
        })?;
        let mut all = Vec::new();
        for (reference, backend) in records {
            match self.shared.content.ingest(&backend).await {
                Ok(status) => {
                    let status = IngestStatus { reference, ..status };
                    if filters.matches(&status) {
                        all.push(status);
                    }
                }
                Err(error) if error.kind() == ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
        Ok(all)
    }

    async fn abort(&self, reference: &IngestRef) -> Result<()> {
        let (scope, wanted) = (self.scope.clone(), reference.clone());
        let change = move |txn: &mut Txn<'_>| {
            let record = find_ingest(txn, &scope, &wanted)?;
            txn.delete(&IngestRecord::key(scope.namespace.as_str(), wanted.as_str()))?;
            let_go(txn, &scope, Resource::Ingest(wanted.as_str()))?;
            txn.release_backend(Stale::Ingest(record.backend.to_string()));
            Ok(record)
        };
        let record = self.shared.ledger.update(Durability::Relaxed, change).await?;
        match self.shared.content.abort(&record.backend).await {
            // One that stands for a blob of another namespace has no bytes of its own.
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
            done => done,
        }
    }

    async fn writer(&self, request: IngestRequest) -> Result<Box<dyn Ingest>> {
        let IngestRequest { reference, total, expected } = request;
        // Nobody sweeps the blob while it is decided whether it is there.
        let _blob = match &expected {
            Some(digest) => Some(self.shared.locks.share(Name::Blob(digest.clone())).await),
            None => None,
        };
        let adopted = match &expected {
            Some(digest) => {
                self.refuse_if_present(digest).await?;
                self.adoptable(digest, total).await?
            }
            None => None,
        };
        let backend = self.register(&reference, adopted.as_ref().map(|(digest, _)| digest.clone())).await?;
        let open = if adopted.is_some() {
            None
        } else {
            let request = IngestRequest { reference: backend.clone(), total, expected: None };
            Some(Mutex::new(self.shared.content.writer(request).await?))
        };
        Ok(Box::new(NamespacedIngest {
            shared: Arc::clone(&self.shared),
            scope: self.scope.clone(),
            reference,
            backend,
            open,
            adopted,
            started: SystemTime::now(),
        }))
    }
}

impl ContentView {
    /// AlreadyExists if the namespace has the blob, which the scope's lease then holds.
    async fn refuse_if_present(&self, digest: &Digest) -> Result<()> {
        let record = BlobRecord::key(self.scope.namespace.as_str(), digest);
        if self.shared.ledger.view(|read| read.load(&record))?.is_none() {
            return Ok(());
        }
        let present = if self.scope.lease.is_some() {
            let (scope, digest) = (self.scope.clone(), digest.clone());
            let change = move |txn: &mut Txn<'_>| {
                let present = txn.load(&record)?.is_some();
                if present {
                    hold(txn, &scope, Resource::Content(&digest))?;
                }
                Ok(present)
            };
            self.shared.ledger.update(Durability::Relaxed, change).await?
        } else {
            true
        };
        if present {
            return Err(Error::already_exists(format!("content {digest}: already exists")));
        }
        Ok(())
    }

    /// Whether the blob is there already, of another namespace, and may be taken.
    async fn adoptable(&self, digest: &Digest, total: u64) -> Result<Option<(Digest, u64)>> {
        let allowed = match self.shared.sharing {
            Sharing::Shared => true,
            Sharing::Isolated => self.shared.ledger.view(|read| is_shareable(read, digest))?,
        };
        if !allowed {
            return Ok(None);
        }
        match self.shared.content.info(digest).await {
            // Another size is an error that the commit will find.
            Ok(info) if total == 0 || total == info.size => Ok(Some((digest.clone(), info.size))),
            Ok(_) => Ok(None),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Makes or finds the record of an ingest and answers the backend's reference.
    async fn register(&self, reference: &IngestRef, expected: Option<Digest>) -> Result<IngestRef> {
        let (scope, reference) = (self.scope.clone(), reference.clone());
        let fresh = self.shared.backend_key(&scope.namespace, reference.as_str()).await?.parse()?;
        let change = move |txn: &mut Txn<'_>| {
            ensure_namespace(txn, &scope.namespace)?;
            let key = IngestRecord::key(scope.namespace.as_str(), reference.as_str());
            let backend = load::<IngestRecord>(txn, &key)?.map_or(fresh, |record| record.backend);
            hold(txn, &scope, Resource::Ingest(reference.as_str()))?;
            // Also beneath a lease: a pull that fails gives its lease back, and the next one goes on from here.
            let expires = Some(SystemTime::now() + ABANDONED);
            store(txn, &key, &IngestRecord { backend: backend.clone(), expected, expires })?;
            Ok(backend)
        };
        self.shared.ledger.update(Durability::Relaxed, change).await
    }
}

fn find(read: &dyn Read, scope: &Scope, digest: &Digest) -> Result<BlobInfo> {
    load::<BlobRecord>(read, &BlobRecord::key(scope.namespace.as_str(), digest))?
        .map(|record| record.named(digest.clone()))
        .ok_or_else(|| missing(digest))
}

fn find_ingest(read: &dyn Read, scope: &Scope, reference: &IngestRef) -> Result<IngestRecord> {
    load::<IngestRecord>(read, &IngestRecord::key(scope.namespace.as_str(), reference.as_str()))?
        .ok_or_else(|| Error::not_found(format!("reference {reference}: not found")))
}

fn missing(digest: &Digest) -> Error {
    Error::not_found(format!("content digest {digest}: not found"))
}

/// Whether a namespace that lets others take from it has the blob.
fn is_shareable(read: &dyn Read, digest: &Digest) -> Result<bool> {
    let mut found = false;
    each::<NamespaceRow, 1>(read, &key(Kind::Namespace, &[]), |[namespace], row| {
        found |= row.labels.get(SHAREABLE).is_some_and(|value| value == "true")
            && read.load(&BlobRecord::key(&namespace, digest))?.is_some();
        Ok(())
    })?;
    Ok(found)
}
