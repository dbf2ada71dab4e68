//! Leases.

use std::sync::Arc;
use std::time::SystemTime;

use async_trait::async_trait;
use berth_core::{Deletion, Leases, Scope};
use berth_types::filter::Filters;
use berth_types::{Error, Labels, Lease, LeaseId, LeaseResource, Result};

use crate::key::{Kind, key, names};
use crate::ledger::{Durability, Txn};
use crate::record::{LeaseRecord, Resource, checked_labels, each, ensure_namespace, store};
use crate::shared::Shared;
use crate::storage::Read;

/// The leases of a namespace.
///
/// Nothing here waits for a sync: what a lease holds reaches the disk after it, and a lease that
/// comes back after a power cut holds things a little longer, no more.
pub(crate) struct LeaseView {
    pub(crate) shared: Arc<Shared>,
    pub(crate) scope: Scope,
}

#[async_trait]
impl Leases for LeaseView {
    async fn create(&self, id: Option<LeaseId>, labels: Labels) -> Result<Lease> {
        let lease = Lease {
            id: id.map_or_else(generate, Ok)?,
            created_at: SystemTime::now(),
            labels: checked_labels("lease", labels)?,
        };
        let scope = self.scope.clone();
        let change = move |txn: &mut Txn<'_>| {
            ensure_namespace(txn, &scope.namespace)?;
            let key = LeaseRecord::key(scope.namespace.as_str(), lease.id.as_str());
            if txn.load(&key)?.is_some() {
                return Err(Error::already_exists(format!("lease {:?}: already exists", lease.id.as_str())));
            }
            store(txn, &key, &LeaseRecord { created_at: lease.created_at, labels: lease.labels.clone() })?;
            Ok(lease)
        };
        self.shared.ledger.update(Durability::Relaxed, change).await
    }

    async fn delete(&self, id: &LeaseId, deletion: Deletion) -> Result<()> {
        let (scope, id) = (self.scope.clone(), id.clone());
        let change = move |txn: &mut Txn<'_>| {
            if !txn.delete(&LeaseRecord::key(scope.namespace.as_str(), id.as_str()))? {
                return Err(missing(&id));
            }
            txn.delete_all(&key(Kind::LeaseResource, &[scope.namespace.as_str(), id.as_str()]))?;
            txn.release();
            Ok(())
        };
        self.shared.ledger.update(Durability::Relaxed, change).await?;
        self.shared.after(deletion).await
    }

    async fn list(&self, filters: &Filters) -> Result<Vec<Lease>> {
        let (prefix, filters) = (key(Kind::Lease, &[self.scope.namespace.as_str()]), filters.clone());
        let walk = move |read: &dyn Read| {
            let mut all = Vec::new();
            each::<LeaseRecord, 2>(read, &prefix, |[_, id], record| {
                let lease = record.named(id.parse()?);
                if filters.matches(&lease) {
                    all.push(lease);
                }
                Ok(())
            })?;
            Ok(all)
        };
        self.shared.ledger.walk(walk).await
    }

    async fn add_resource(&self, id: &LeaseId, resource: LeaseResource) -> Result<()> {
        let (scope, id) = (self.scope.clone(), id.clone());
        let change = move |txn: &mut Txn<'_>| {
            present(txn, &scope, &id)?;
            txn.put(&Resource::checked_key(scope.namespace.as_str(), id.as_str(), &resource)?, &[])
        };
        self.shared.ledger.update(Durability::Relaxed, change).await
    }

    async fn delete_resource(&self, id: &LeaseId, resource: LeaseResource) -> Result<()> {
        let (scope, id) = (self.scope.clone(), id.clone());
        let change = move |txn: &mut Txn<'_>| {
            present(txn, &scope, &id)?;
            txn.delete(&Resource::checked_key(scope.namespace.as_str(), id.as_str(), &resource)?)?;
            txn.release();
            Ok(())
        };
        self.shared.ledger.update(Durability::Relaxed, change).await
    }

    async fn resources(&self, id: &LeaseId) -> Result<Vec<LeaseResource>> {
        self.shared.ledger.view(|read| {
            present(read, &self.scope, id)?;
            let mut all = Vec::new();
            let prefix = key(Kind::LeaseResource, &[self.scope.namespace.as_str(), id.as_str()]);
            read.scan(&prefix, &mut |key, _| {
                let [_, _, kind, id] = names(key)?;
                all.push(LeaseResource { id, kind });
                Ok(std::ops::ControlFlow::Continue(()))
            })?;
            Ok(all)
        })
    }
}

fn present(read: &dyn Read, scope: &Scope, id: &LeaseId) -> Result<()> {
    match read.load(&LeaseRecord::key(scope.namespace.as_str(), id.as_str()))? {
        Some(_) => Ok(()),
        None => Err(missing(id)),
    }
}

fn missing(id: &LeaseId) -> Error {
    Error::not_found(format!("lease {:?}: not found", id.as_str()))
}

/// A name that nothing else has: the nanosecond and three random bytes, as containerd's are.
fn generate() -> Result<LeaseId> {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let mut random = [0_u8; 4];
    rustix::rand::getrandom(&mut random, rustix::rand::GetRandomFlags::empty())
        .map_err(|error| Error::io("cannot make a lease's name", error.into()))?;
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let tail: String = random.iter().map(|byte| char::from(ALPHABET[usize::from(byte % 64)])).collect();
    format!("{}-{tail}", since.subsec_nanos()).parse()
}
