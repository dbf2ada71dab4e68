//! Leases and what they hold.

use std::time::SystemTime;

use berth_core::Scope;
use berth_types::{Digest, Error, Labels, Lease, LeaseId, LeaseResource, Result};

use super::Record;
use crate::codec::{Damaged, Decoder, Encoder};
use crate::key::{Kind, key};
use crate::ledger::Txn;
use crate::storage::Read;

/// What is stored of a lease.
#[derive(Debug)]
pub(crate) struct LeaseRecord {
    pub(crate) created_at: SystemTime,
    pub(crate) labels: Labels,
}

impl LeaseRecord {
    pub(crate) fn key(namespace: &str, id: &str) -> Vec<u8> {
        key(Kind::Lease, &[namespace, id])
    }

    pub(crate) fn named(self, id: LeaseId) -> Lease {
        let Self { created_at, labels } = self;
        Lease { id, created_at, labels }
    }
}

impl Record for LeaseRecord {
    fn write(&self, to: Encoder) -> Encoder {
        to.time(self.created_at).labels(&self.labels)
    }

    fn read(from: &mut Decoder<'_>) -> Result<Self, Damaged> {
        Ok(Self { created_at: from.time()?, labels: from.labels()? })
    }
}

/// A thing that a lease holds, by its type and name.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Resource<'a> {
    Content(&'a Digest),
    Ingest(&'a str),
    Image(&'a str),
    Snapshot(&'a str, &'a str),
}

impl Resource<'_> {
    fn key(self, namespace: &str, lease: &str) -> Vec<u8> {
        let (kind, id) = match self {
            Self::Content(digest) => ("content".to_owned(), digest.as_str()),
            Self::Ingest(reference) => ("ingests".to_owned(), reference),
            Self::Image(name) => ("images".to_owned(), name),
            Self::Snapshot(snapshotter, name) => (format!("snapshots/{snapshotter}"), name),
        };
        key(Kind::LeaseResource, &[namespace, lease, &kind, id])
    }

    /// The key of a resource as a client names it, checked as containerd checks it.
    pub(crate) fn checked_key(namespace: &str, lease: &str, resource: &LeaseResource) -> Result<Vec<u8>> {
        let LeaseResource { id, kind } = resource;
        match kind.split('/').collect::<Vec<_>>()[..] {
            ["content"] => {
                id.parse::<Digest>().map_err(|error| {
                    Error::invalid_argument(format!("invalid content resource id {id}")).caused_by(error)
                })?;
            }
            ["ingests" | "images"] | ["snapshots", _] => {}
            ["content" | "ingests" | "images", ..] => {
                return Err(Error::invalid_argument(format!("invalid resource type {kind}")));
            }
            ["snapshots", ..] => {
                return Err(Error::invalid_argument(format!("invalid snapshot resource type {kind}")));
            }
            _ => return Err(Error::not_implemented(format!("resource type {kind} not supported yet"))),
        }
        Ok(key(Kind::LeaseResource, &[namespace, lease, kind, id]))
    }
}

/// Lets the scope's lease hold something, if there is a lease; answers whether there is.
pub(crate) fn hold(txn: &mut Txn<'_>, scope: &Scope, resource: Resource<'_>) -> Result<bool> {
    let Some(lease) = &scope.lease else { return Ok(false) };
    let namespace = scope.namespace.as_str();
    if txn.load(&LeaseRecord::key(namespace, lease.as_str()))?.is_none() {
        return Err(Error::not_found(format!("lease {:?}: not found", lease.as_str())));
    }
    txn.put(&resource.key(namespace, lease.as_str()), &[])?;
    Ok(true)
}

/// The scope's lease no longer holds something.
pub(crate) fn let_go(txn: &mut Txn<'_>, scope: &Scope, resource: Resource<'_>) -> Result<()> {
    if let Some(lease) = &scope.lease {
        txn.delete(&resource.key(scope.namespace.as_str(), lease.as_str()))?;
    }
    Ok(())
}
