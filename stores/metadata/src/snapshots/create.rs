//! Active snapshots and views.

use std::time::SystemTime;

use berth_core::NewSnapshot;
use berth_types::filter::Filters;
use berth_types::{Error, ErrorKind, Event, Mount, Result, SnapshotInfo, SnapshotKey, SnapshotKind};
use tokio::sync::OwnedRwLockReadGuard;

use super::labels::{REFERENCE, inherited};
use super::{Place, SnapshotView};
use crate::ledger::{Durability, Stale, Txn};
use crate::record::{Resource, SnapshotRecord, checked_labels, ensure_namespace, hold, load};
use crate::storage::Read;

/// What a new snapshot is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Access {
    Writable,
    ReadOnly,
}

/// What the backend made, or had.
struct Made {
    mounts: Vec<Mount>,
    /// Under which key the namespace gets it: the target's, if the backend had that.
    name: SnapshotKey,
    record: SnapshotRecord,
    /// The backend's parent.
    parent: Option<SnapshotKey>,
    /// Keeps a snapshot that the backend had from being freed until it is recorded.
    found: Option<OwnedRwLockReadGuard<()>>,
}

impl SnapshotView {
    pub(super) async fn create(&self, new: NewSnapshot, access: Access) -> Result<Vec<Mount>> {
        self.shared.recovered().await;
        let NewSnapshot { key, parent, labels } = new;
        let new = NewSnapshot { labels: checked_labels("info", labels)?, key, parent };
        let target: Option<SnapshotKey> = new.labels.get(REFERENCE).map(|name| name.parse()).transpose()?;
        let _key = self.shared.locks.own(self.lock_name(&new.key)).await;
        self.refuse_if_present(target.as_ref(), &new.key).await?;
        let parent = match &new.parent {
            Some(parent) => Some(self.backend_parent(parent)?),
            None => None,
        };
        let backend: SnapshotKey =
            self.shared.backend_key(&self.scope.namespace, new.key.as_str()).await?.parse()?;
        // From the moment at which it is in the backend until it is recorded, nobody may take it
        // for an orphan.
        let _backend = self.shared.locks.own(self.backend_lock(&backend)).await;
        let made = self.make(&new, target.as_ref(), backend, parent, access).await?;
        self.enter(new, made, access).await
    }

    /// AlreadyExists if the target or the key is there, which the scope's lease then holds.
    async fn refuse_if_present(&self, target: Option<&SnapshotKey>, key: &SnapshotKey) -> Result<()> {
        let present = self.shared.ledger.view(|read| {
            for (name, what) in
                target.map(|name| (name, "target snapshot")).into_iter().chain([(key, "snapshot")])
            {
                if read.load(&self.place(name).key())?.is_some() {
                    return Ok(Some((name.clone(), what)));
                }
            }
            Ok(None)
        })?;
        let Some((name, what)) = present else { return Ok(()) };
        if self.scope.lease.is_some() {
            let (scope, place) = (self.scope.clone(), self.place(&name));
            let change = move |txn: &mut Txn<'_>| {
                if txn.load(&place.key())?.is_some() {
                    hold(txn, &scope, Resource::Snapshot(&place.snapshotter, &place.name))?;
                }
                Ok(())
            };
            self.shared.ledger.update(Durability::Relaxed, change).await?;
        }
        Err(Error::already_exists(format!("{what} {:?}: already exists", name.as_str())))
    }

    fn backend_parent(&self, parent: &SnapshotKey) -> Result<SnapshotKey> {
        self.shared
            .ledger
            .view(|read| load::<SnapshotRecord>(read, &self.place(parent).key()))?
            .map(|record| record.backend)
            .ok_or_else(|| no_parent(parent))
    }

    async fn make(
        &self,
        new: &NewSnapshot,
        target: Option<&SnapshotKey>,
        backend: SnapshotKey,
        parent: Option<SnapshotKey>,
        access: Access,
    ) -> Result<Made> {
        let request =
            NewSnapshot { key: backend.clone(), parent: parent.clone(), labels: inherited(&new.labels) };
        let made = match access {
            Access::Writable => self.backend.prepare(request).await,
            Access::ReadOnly => self.backend.view(request).await,
        };
        let error = match made {
            Ok(mounts) => {
                let now = SystemTime::now();
                let record = SnapshotRecord {
                    backend,
                    parent: new.parent.clone(),
                    labels: new.labels.clone(),
                    created_at: now,
                    updated_at: now,
                };
                return Ok(Made { mounts, name: new.key.clone(), record, parent, found: None });
            }
            Err(error) => error,
        };
        match target {
            // A remote snapshotter has the target already.
            Some(target) if error.kind() == ErrorKind::AlreadyExists => {
                let (info, found) = self.find_target(target, parent.as_ref()).await?;
                let mut labels = info.labels;
                labels.extend(new.labels.clone());
                let record = SnapshotRecord {
                    backend: info.key,
                    parent: new.parent.clone(),
                    labels,
                    created_at: info.created_at,
                    updated_at: info.updated_at,
                };
                Ok(Made {
                    mounts: Vec::new(),
                    name: target.clone(),
                    record,
                    parent: info.parent,
                    found: Some(found),
                })
            }
            // The key is new, so this is nothing that the client could make sense of.
            None if error.kind() == ErrorKind::AlreadyExists => {
                Err(Error::unknown("unexpected error from snapshotter").caused_by(error))
            }
            _ => Err(error),
        }
    }

    async fn find_target(
        &self,
        target: &SnapshotKey,
        parent: Option<&SnapshotKey>,
    ) -> Result<(SnapshotInfo, OwnedRwLockReadGuard<()>)> {
        let is_target = |info: &SnapshotInfo| {
            info.kind == SnapshotKind::Committed
                && info.labels.get(REFERENCE).is_some_and(|name| name == target.as_str())
                && info.parent.as_ref() == parent
        };
        let found = self.backend.list(&Filters::default()).await?.into_iter().find(is_target);
        let info = found.ok_or_else(|| {
            Error::not_found(format!("target snapshot {:?} in backend: not found", target.as_str()))
        })?;
        // Another namespace may just have let go of it.
        let lock = self.shared.locks.share(self.backend_lock(&info.key)).await;
        self.backend.stat(&info.key).await?;
        Ok((info, lock))
    }

    /// Records what was made; what cannot be recorded is left to the collector.
    async fn enter(&self, new: NewSnapshot, made: Made, access: Access) -> Result<Vec<Mount>> {
        let Made { mounts, name, record, parent, found } = made;
        let (place, scope) = (self.place(&name), self.scope.clone());
        let backend = record.backend.to_string();
        let (target, had) = (name.clone(), found.is_some());
        let change = move |txn: &mut Txn<'_>| {
            ensure_namespace(txn, &scope.namespace)?;
            hold(txn, &scope, Resource::Snapshot(&place.snapshotter, &place.name))?;
            if txn.load(&place.key())?.is_some() {
                return Ok(false);
            }
            check_parent(txn, &place, new.parent.as_ref(), parent.as_ref(), &target)?;
            place.enter(txn, &record)?;
            if access == Access::Writable && !had {
                let parent = new.parent.map(String::from).unwrap_or_default();
                let event =
                    Event::SnapshotPrepare { key: place.name, parent, snapshotter: place.snapshotter };
                txn.tell(&scope.namespace, event);
            }
            Ok(true)
        };
        let entered = self.shared.ledger.update(Durability::Relaxed, change).await;
        if !had && !matches!(entered, Ok(true)) {
            self.shared.schedule.found_stale(Stale::Snapshot(self.name.to_string(), backend));
        }
        if !entered? {
            return Err(Error::already_exists(format!("snapshot {:?}: already exists", name.as_str())));
        }
        if had {
            return Err(Error::already_exists(format!(
                "target snapshot {:?} from snapshotter: already exists",
                name.as_str()
            )));
        }
        Ok(mounts)
    }
}

/// The parent must still be there, and be the one on which the backend built.
fn check_parent(
    txn: &Txn<'_>,
    place: &Place,
    parent: Option<&SnapshotKey>,
    backend: Option<&SnapshotKey>,
    target: &SnapshotKey,
) -> Result<()> {
    let Some(parent) = parent else { return Ok(()) };
    let record =
        load::<SnapshotRecord>(txn, &place.sibling(parent).key())?.ok_or_else(|| no_parent(parent))?;
    if Some(&record.backend) != backend {
        return Err(Error::invalid_argument(format!("mismatched parent {parent} from target {target}")));
    }
    Ok(())
}

pub(super) fn no_parent(parent: &SnapshotKey) -> Error {
    Error::not_found(format!("parent snapshot {parent} does not exist: not found"))
}
