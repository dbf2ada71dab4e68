//! Commits of snapshots.
//!
//! ```text
//!   intent (synced) ─▶ backend commits ─▶ records, intent goes (synced)
//!                  └──────── crash here: finished or taken back at the next start ────────┘
//! ```

use std::sync::Arc;
use std::time::SystemTime;

use berth_core::{Scope, Snapshotter};
use berth_types::{Error, ErrorKind, Event, Labels, Namespace, Result, SnapshotKey};

use super::labels::inherited;
use super::{Place, SnapshotView, create, find};
use crate::key::{Kind, key};
use crate::ledger::{Durability, Ledger, Txn};
use crate::record::{
    CommitRecord, Resource, SnapshotRecord, checked_labels, each, hold, let_go, load, store,
};
use crate::shared::Shared;
use crate::storage::Read;

impl SnapshotView {
    pub(super) async fn commit_active(
        &self,
        name: &SnapshotKey,
        key: &SnapshotKey,
        labels: Labels,
        onto: Option<SnapshotKey>,
    ) -> Result<()> {
        self.shared.recovered().await;
        let labels = checked_labels("info", labels)?;
        // In the order of names, so that two commits never wait for one another.
        let (first, second) = if name < key { (name, key) } else { (key, name) };
        let _first = self.shared.locks.own(self.lock_name(first)).await;
        let _second =
            if first == second { None } else { Some(self.shared.locks.own(self.lock_name(second)).await) };
        let backend: SnapshotKey =
            self.shared.backend_key(&self.scope.namespace, name.as_str()).await?.parse()?;
        let _backend = self.shared.locks.own(self.backend_lock(&backend)).await;
        let place = self.place(key);
        let lease = self.scope.lease.clone();
        let intent = CommitRecord { name: name.clone(), backend, labels, lease, onto };
        let (active, parent) = self.intend(place.clone(), intent.clone()).await?;
        let labels = inherited(&intent.labels);
        let done = match parent {
            Some(parent) => self.backend.commit_onto(&intent.backend, &active, &parent, labels).await,
            None => self.backend.commit(&intent.backend, &active, labels).await,
        };
        if let Err(error) = done {
            self.take_back(place, intent).await?;
            return Err(error);
        }
        record(&self.shared, place, intent).await
    }

    /// Checks the commit, records that it has begun, and answers the keys in the backend: the active snapshot's,
    /// and that of the parent which it gets, if it gets one.
    async fn intend(
        &self,
        place: Place,
        mut intent: CommitRecord,
    ) -> Result<(SnapshotKey, Option<SnapshotKey>)> {
        let scope = self.scope.clone();
        let change = move |txn: &mut Txn<'_>| {
            let target = place.sibling(&intent.name);
            if txn.load(&target.key())?.is_some() {
                hold(txn, &scope, Resource::Snapshot(&target.snapshotter, &target.name))?;
                return Ok(Err(Error::already_exists(format!("snapshot {:?}: already exists", target.name))));
            }
            let active = find(txn, &place)?;
            // The lease is checked now, when nothing has happened yet.
            hold(txn, &scope, Resource::Snapshot(&target.snapshotter, &target.name))?;
            if active.parent.is_some() && intent.onto.is_some() && active.parent != intent.onto {
                return Err(Error::invalid_argument(format!(
                    "cannot change parent of active snapshot {:?} on commit",
                    place.name
                )));
            }
            let parent = active.parent.clone().or_else(|| intent.onto.clone());
            let parent = match parent {
                Some(parent) => {
                    let found = load::<SnapshotRecord>(txn, &place.sibling(&parent).key())?;
                    Some(found.ok_or_else(|| create::no_parent(&parent))?.backend)
                }
                None => None,
            };
            if active.parent.is_some() {
                intent.onto = None;
            } else if let Some(parent) = &intent.onto {
                // Nobody may remove the parent between now and the record.
                txn.put(&target.child_of(parent.as_str()), &[])?;
            }
            let onto = parent.filter(|_| intent.onto.is_some());
            let key = CommitRecord::key(&place.namespace, &place.snapshotter, &place.name);
            store(txn, &key, &intent)?;
            Ok(Ok((active.backend, onto)))
        };
        self.shared.ledger.update(Durability::Synced, change).await?
    }

    async fn take_back(&self, place: Place, intent: CommitRecord) -> Result<()> {
        let change = move |txn: &mut Txn<'_>| forget(txn, &place, &intent);
        self.shared.ledger.update(Durability::Relaxed, change).await
    }
}

/// Removes what an intent recorded.
fn forget(txn: &mut Txn<'_>, place: &Place, intent: &CommitRecord) -> Result<()> {
    let target = place.sibling(&intent.name);
    if let Some(parent) = &intent.onto
        && txn.load(&target.key())?.is_none()
    {
        txn.delete(&target.child_of(parent.as_str()))?;
    }
    txn.delete(&CommitRecord::key(&place.namespace, &place.snapshotter, &place.name)).map(drop)
}

/// The backend has committed: the records follow.
async fn record(shared: &Shared, place: Place, intent: CommitRecord) -> Result<()> {
    let namespace: Namespace = place.namespace.parse()?;
    let change = move |txn: &mut Txn<'_>| {
        let CommitRecord { name, backend, labels, lease, onto } = intent;
        let scope = Scope { namespace, lease };
        let mut record = find(txn, &place)?;
        place.erase(txn, &record)?;
        let_go(txn, &scope, Resource::Snapshot(&place.snapshotter, &place.name))?;
        let now = SystemTime::now();
        record.backend = backend;
        record.parent = record.parent.or(onto);
        record.labels = labels;
        record.created_at = now;
        record.updated_at = now;
        let target = place.sibling(&name);
        // The lease may have ended meanwhile, which is no reason to lose the snapshot.
        match hold(txn, &scope, Resource::Snapshot(&target.snapshotter, &target.name)) {
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            held => drop(held?),
        }
        target.enter(txn, &record)?;
        txn.delete(&CommitRecord::key(&place.namespace, &place.snapshotter, &place.name))?;
        let event =
            Event::SnapshotCommit { key: place.name, name: target.name, snapshotter: target.snapshotter };
        txn.tell(&scope.namespace, event);
        Ok(())
    };
    shared.ledger.update(Durability::Synced, change).await
}

/// A commit that was begun before the daemon ended.
pub(crate) struct Interrupted {
    place: Place,
    intent: CommitRecord,
}

/// Every commit that was begun and neither recorded nor taken back.
pub(crate) fn interrupted(ledger: &Ledger) -> Result<Vec<Interrupted>> {
    ledger.view(|read| {
        let mut all = Vec::new();
        each::<CommitRecord, 3>(read, &key(Kind::Commit, &[]), |[namespace, snapshotter, name], intent| {
            all.push(Interrupted { place: Place { namespace, snapshotter, name }, intent });
            Ok(())
        })?;
        Ok(all)
    })
}

/// Finishes a commit if the backend has done its part, takes it back otherwise.
pub(crate) async fn finish(shared: &Shared, interrupted: Interrupted) -> Result<()> {
    let Interrupted { place, intent } = interrupted;
    let backend: Option<&Arc<dyn Snapshotter>> = shared.snapshotters.get(place.snapshotter.as_str());
    let Some(backend) = backend else {
        // A snapshotter that isn't loaded this time keeps its intents for the next.
        return Ok(());
    };
    match backend.stat(&intent.backend).await {
        Ok(_) => record(shared, place, intent).await,
        Err(error) if error.kind() == ErrorKind::NotFound => {
            let change = move |txn: &mut Txn<'_>| forget(txn, &place, &intent);
            shared.ledger.update(Durability::Relaxed, change).await
        }
        Err(error) => Err(error),
    }
}
