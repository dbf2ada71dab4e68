//! A snapshotter as a namespace sees it.
//!
//! A key means another snapshot of the backend in each namespace. Kind and usage are the
//! backend's; labels, parents and times are records. An operation first works in the backend and
//! then records, except that it first unrecords and then leaves the backend's part to the
//! collector; a commit, which changes both at once, records first what it is about to do.

mod commit;
mod create;
mod labels;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::SystemTime;

use async_trait::async_trait;
use berth_core::{NewSnapshot, Scope, SnapshotCommit, Snapshotter};
use berth_types::filter::Filters;
use berth_types::{
    Error, Event, FieldMask, Labels, Mount, Result, SnapshotInfo, SnapshotKey, SnapshotterName, Usage,
};

use self::commit::Existing;
pub(crate) use self::commit::{Interrupted, finish, interrupted};
use self::labels::{inherited, mentions_inherited, overlay};
use crate::key::{Kind, key};
use crate::ledger::{Durability, Stale, Txn};
use crate::locks::Name;
use crate::record::{Resource, SnapshotRecord, checked_labels, each, let_go, load, merge_labels, store};
use crate::shared::Shared;
use crate::storage::Read;

/// A snapshotter in a namespace.
pub(crate) struct SnapshotView {
    pub(crate) shared: Arc<Shared>,
    pub(crate) backend: Arc<dyn Snapshotter>,
    pub(crate) name: SnapshotterName,
    pub(crate) scope: Scope,
}

#[async_trait]
impl Snapshotter for SnapshotView {
    async fn stat(&self, key: &SnapshotKey) -> Result<SnapshotInfo> {
        let record = self.record(key).await?;
        let info = self.backend.stat(&record.backend).await?;
        Ok(overlay(info, key, record))
    }

    async fn update(&self, key: &SnapshotKey, labels: Labels, mask: &FieldMask) -> Result<SnapshotInfo> {
        self.shared.recovered().await;
        let place = self.place(key);
        let (wanted, changed) = (key.clone(), mask.clone());
        let change = move |txn: &mut Txn<'_>| {
            let mut record = find(txn, &place)?;
            merge_labels(&format!("snapshot {:?}", wanted.as_str()), &changed, &mut record.labels, &labels)?;
            record.labels = checked_labels("info", record.labels)?;
            record.updated_at = SystemTime::now();
            store(txn, &place.key(), &record)?;
            Ok((record, labels))
        };
        let (record, labels) = self.shared.ledger.update(Durability::Synced, change).await?;
        let info = if mask.is_all() || mentions_inherited(mask) {
            self.backend.update(&record.backend, inherited(&labels), mask).await?
        } else {
            self.backend.stat(&record.backend).await?
        };
        Ok(overlay(info, key, record))
    }

    async fn usage(&self, key: &SnapshotKey) -> Result<Usage> {
        let record = self.record(key).await?;
        self.backend.usage(&record.backend).await
    }

    async fn mounts(&self, key: &SnapshotKey) -> Result<Vec<Mount>> {
        let record = self.record(key).await?;
        self.backend.mounts(&record.backend).await
    }

    async fn prepare(&self, new: NewSnapshot) -> Result<Vec<Mount>> {
        self.create(new, create::Access::Writable).await
    }

    async fn view(&self, new: NewSnapshot) -> Result<Vec<Mount>> {
        self.create(new, create::Access::ReadOnly).await
    }

    async fn commit(&self, name: &SnapshotKey, key: &SnapshotKey, labels: Labels) -> Result<()> {
        let commit = SnapshotCommit { name: name.clone(), key: key.clone(), parent: None, labels };
        self.commit_active(vec![commit], Existing::Refused).await.map(drop)
    }

    async fn commit_onto(
        &self,
        name: &SnapshotKey,
        key: &SnapshotKey,
        parent: &SnapshotKey,
        labels: Labels,
    ) -> Result<()> {
        let parent = Some(parent.clone());
        let commit = SnapshotCommit { name: name.clone(), key: key.clone(), parent, labels };
        self.commit_active(vec![commit], Existing::Refused).await.map(drop)
    }

    async fn commit_all(&self, commits: Vec<SnapshotCommit>) -> Result<()> {
        for needless in self.commit_active(commits, Existing::Taken).await? {
            self.remove(&needless).await?;
        }
        Ok(())
    }

    /// The backend's part is removed by the collector, after the record's removal is on disk.
    async fn remove(&self, key: &SnapshotKey) -> Result<()> {
        self.shared.recovered().await;
        let _key = self.shared.locks.own(self.lock_name(key)).await;
        let (place, scope) = (self.place(key), self.scope.clone());
        let change = move |txn: &mut Txn<'_>| {
            let record = find(txn, &place)?;
            if SnapshotRecord::has_children(txn, &place.namespace, &place.snapshotter, &place.name)? {
                return Err(Error::failed_precondition(format!(
                    "cannot remove snapshot {:?} with child",
                    place.name
                )));
            }
            place.erase(txn, &record)?;
            let_go(txn, &scope, Resource::Snapshot(&place.snapshotter, &place.name))?;
            txn.release_backend(Stale::Snapshot(place.snapshotter.clone(), record.backend.to_string()));
            txn.tell(
                &scope.namespace,
                Event::SnapshotRemove { key: place.name, snapshotter: place.snapshotter },
            );
            Ok(())
        };
        // A snapshot that a power cut brings back is garbage, and collected as such.
        self.shared.ledger.update(Durability::Relaxed, change).await
    }

    async fn list(&self, filters: &Filters) -> Result<Vec<SnapshotInfo>> {
        let prefix = key(Kind::Snapshot, &[self.scope.namespace.as_str(), self.name.as_str()]);
        let walk = move |read: &dyn Read| {
            let mut records = Vec::new();
            each::<SnapshotRecord, 3>(read, &prefix, |[_, _, name], record| {
                records.push((name.parse::<SnapshotKey>()?, record));
                Ok(())
            })?;
            Ok(records)
        };
        let records = self.shared.ledger.walk(walk).await?;
        if records.is_empty() {
            return Ok(Vec::new());
        }
        // One question for all of them, however many.
        let mut backend: BTreeMap<SnapshotKey, SnapshotInfo> = self
            .backend
            .list(&Filters::default())
            .await?
            .into_iter()
            .map(|info| (info.key.clone(), info))
            .collect();
        let merged = records.into_iter().filter_map(|(name, record)| {
            let info = backend.remove(&record.backend)?;
            Some(overlay(info, &name, record))
        });
        Ok(merged.filter(|info| filters.matches(info)).collect())
    }

    async fn cleanup(&self) -> Result<()> {
        self.backend.cleanup().await
    }
}

impl SnapshotView {
    async fn record(&self, key: &SnapshotKey) -> Result<SnapshotRecord> {
        self.shared.recovered().await;
        self.shared.ledger.view(|read| find(read, &self.place(key)))
    }

    fn place(&self, key: &SnapshotKey) -> Place {
        Place {
            namespace: self.scope.namespace.to_string(),
            snapshotter: self.name.to_string(),
            name: key.to_string(),
        }
    }

    fn lock_name(&self, key: &SnapshotKey) -> Name {
        let Place { namespace, snapshotter, name } = self.place(key);
        Name::Snapshot(namespace, snapshotter, name)
    }

    fn backend_lock(&self, key: &SnapshotKey) -> Name {
        Name::Backend(self.name.to_string(), key.to_string())
    }
}

/// Where a snapshot is recorded.
#[derive(Clone, Debug)]
pub(crate) struct Place {
    pub(crate) namespace: String,
    pub(crate) snapshotter: String,
    pub(crate) name: String,
}

impl Place {
    pub(crate) fn key(&self) -> Vec<u8> {
        SnapshotRecord::key(&self.namespace, &self.snapshotter, &self.name)
    }

    fn child_of(&self, parent: &str) -> Vec<u8> {
        SnapshotRecord::child_key(&self.namespace, &self.snapshotter, parent, &self.name)
    }

    fn sibling(&self, name: &SnapshotKey) -> Self {
        Self { name: name.to_string(), ..self.clone() }
    }

    /// Records a snapshot and whose child it is.
    fn enter(&self, txn: &mut Txn<'_>, record: &SnapshotRecord) -> Result<()> {
        if let Some(parent) = &record.parent {
            txn.put(&self.child_of(parent.as_str()), &[])?;
        }
        store(txn, &self.key(), record)
    }

    /// Removes both.
    pub(crate) fn erase(&self, txn: &mut Txn<'_>, record: &SnapshotRecord) -> Result<()> {
        if let Some(parent) = &record.parent {
            txn.delete(&self.child_of(parent.as_str()))?;
        }
        txn.delete(&self.key()).map(drop)
    }
}

fn find(read: &dyn Read, place: &Place) -> Result<SnapshotRecord> {
    load::<SnapshotRecord>(read, &place.key())?
        .ok_or_else(|| Error::not_found(format!("snapshot {} does not exist: not found", place.name)))
}
