//! Namespaces.

use std::sync::Arc;

use async_trait::async_trait;
use berth_core::Namespaces;
use berth_types::{Error, Event, FieldMask, Labels, Namespace, NamespaceRecord, Result};

use crate::key::{Kind, key, names};
use crate::ledger::{Durability, Stale, Txn};
use crate::record::{IngestRecord, NamespaceRow, any, checked_labels, each, load, store};
use crate::shared::Shared;
use crate::storage::Read;

/// The namespaces of a daemon.
pub(crate) struct NamespaceView(pub(crate) Arc<Shared>);

#[async_trait]
impl Namespaces for NamespaceView {
    /// As with containerd, a namespace that is not there has no labels, which is no error.
    async fn namespace(&self, name: &Namespace) -> Result<NamespaceRecord> {
        let row = self.0.ledger.view(|read| load::<NamespaceRow>(read, &NamespaceRow::key(name.as_str())))?;
        Ok(NamespaceRecord { name: name.clone(), labels: row.unwrap_or_default().labels })
    }

    async fn list(&self) -> Result<Vec<NamespaceRecord>> {
        self.0.ledger.view(|read| {
            let mut all = Vec::new();
            each::<NamespaceRow, 1>(read, &key(Kind::Namespace, &[]), |[name], row| {
                all.push(NamespaceRecord { name: name.parse()?, labels: row.labels });
                Ok(())
            })?;
            Ok(all)
        })
    }

    async fn create(&self, record: NamespaceRecord) -> Result<NamespaceRecord> {
        let NamespaceRecord { name, labels } = record;
        let labels = checked_labels("namespace", labels)?;
        let change = move |txn: &mut Txn<'_>| {
            let key = NamespaceRow::key(name.as_str());
            if txn.load(&key)?.is_some() {
                return Err(Error::already_exists(format!("namespace {:?}: already exists", name.as_str())));
            }
            let row = NamespaceRow { labels };
            store(txn, &key, &row)?;
            let labels = row.labels;
            txn.tell(&name, Event::NamespaceCreate { name: name.to_string(), labels: labels.clone() });
            Ok(NamespaceRecord { name, labels })
        };
        self.0.ledger.update(Durability::Synced, change).await
    }

    async fn update(&self, name: &Namespace, labels: Labels, mask: &FieldMask) -> Result<NamespaceRecord> {
        let name = name.clone();
        // Only single labels can be named; no path at all means all labels, as with containerd.
        if let Some(path) = mask.paths().iter().find(|path| !path.starts_with("labels.")) {
            return Err(Error::invalid_argument(format!("cannot update {path:?} field")));
        }
        let (given, mask) = (checked_labels("namespace", labels)?, mask.clone());
        let change = move |txn: &mut Txn<'_>| {
            let key = NamespaceRow::key(name.as_str());
            let mut row = load::<NamespaceRow>(txn, &key)?.unwrap_or_default();
            mask.merge_map("labels", &mut row.labels, &given);
            store(txn, &key, &row)?;
            txn.tell(&name, Event::NamespaceUpdate { name: name.to_string(), labels: given });
            Ok(NamespaceRecord { name, labels: row.labels })
        };
        self.0.ledger.update(Durability::Synced, change).await
    }

    async fn delete(&self, name: &Namespace) -> Result<()> {
        let name = name.clone();
        let change = move |txn: &mut Txn<'_>| {
            let left = leftovers(txn, &name)?;
            if !left.is_empty() {
                return Err(Error::failed_precondition(format!(
                    "namespace {:?} must be empty, but it still has {}",
                    name.as_str(),
                    left.join(", ")
                )));
            }
            if !txn.delete(&NamespaceRow::key(name.as_str()))? {
                return Err(Error::not_found(format!("namespace {:?}: not found", name.as_str())));
            }
            // Leases and ingests alone don't keep a namespace; they go with it.
            let mut ingests = Vec::new();
            each::<IngestRecord, 2>(txn, &key(Kind::Ingest, &[name.as_str()]), |_, record| {
                ingests.push(Stale::Ingest(record.backend.to_string()));
                Ok(())
            })?;
            for ingest in ingests {
                txn.release_backend(ingest);
            }
            for kind in [Kind::Lease, Kind::LeaseResource, Kind::Ingest] {
                txn.delete_all(&key(kind, &[name.as_str()]))?;
            }
            txn.release();
            txn.tell(&name, Event::NamespaceDelete { name: name.to_string() });
            Ok(())
        };
        self.0.ledger.update(Durability::Synced, change).await
    }
}

/// What keeps a namespace from being removed, in containerd's words.
fn leftovers(read: &dyn Read, namespace: &Namespace) -> Result<Vec<String>> {
    let mut left = Vec::new();
    for (kind, what) in [
        (Kind::Image, "images"),
        (Kind::Blob, "blobs"),
        (Kind::Container, "containers"),
        (Kind::Sandbox, "sandboxes"),
    ] {
        if any(read, &key(kind, &[namespace.as_str()]))? {
            left.push(what.to_owned());
        }
    }
    let mut snapshotters: Vec<String> = Vec::new();
    read.scan(&key(Kind::Snapshot, &[namespace.as_str()]), &mut |key, _| {
        let [_, snapshotter, _] = names(key)?;
        if snapshotters.last() != Some(&snapshotter) {
            snapshotters.push(snapshotter);
        }
        Ok(std::ops::ControlFlow::Continue(()))
    })?;
    left.extend(snapshotters.into_iter().map(|name| format!("snapshots on {name:?} snapshotter")));
    Ok(left)
}
