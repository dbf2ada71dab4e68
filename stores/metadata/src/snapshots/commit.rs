//! Commits of snapshots.
//!
//! ```text
//!   intent (synced) ─▶ backend commits ─▶ records, intent goes (synced)
//!                  └──────── crash here: finished or taken back at the next start ────────┘
//! ```

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::SystemTime;

use berth_core::{Scope, SnapshotCommit, Snapshotter};
use berth_types::{Error, ErrorKind, Event, Result, SnapshotKey};

use super::labels::inherited;
use super::{Place, SnapshotView, create, find};
use crate::key::{Kind, key};
use crate::ledger::{Durability, Ledger, Txn};
use crate::record::{
    CommitRecord, Resource, SnapshotRecord, checked_labels, each, hold, let_go, load, store,
};
use crate::shared::Shared;
use crate::storage::Read;

/// What becomes of a commit whose name is there already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Existing {
    /// It is AlreadyExists.
    Refused,
    /// It is as good as done.
    Taken,
}

/// A commit that is begun.
#[derive(Clone, Debug)]
struct Begun {
    /// The active snapshot.
    place: Place,
    intent: CommitRecord,
}

impl SnapshotView {
    /// Commits in this order, and answers the active snapshots of those whose names were there:
    /// intents, synced → the backend, which syncs → records, synced. Each is one step for all.
    pub(super) async fn commit_active(
        &self,
        commits: Vec<SnapshotCommit>,
        existing: Existing,
    ) -> Result<Vec<SnapshotKey>> {
        self.shared.recovered().await;
        // In the order of names, so that two commits never wait for one another.
        let names: BTreeSet<&SnapshotKey> = commits.iter().flat_map(|one| [&one.name, &one.key]).collect();
        let mut locks = Vec::with_capacity(names.len() + commits.len());
        for name in names {
            locks.push(self.shared.locks.own(self.lock_name(name)).await);
        }
        let mut wanted = Vec::with_capacity(commits.len());
        for SnapshotCommit { name, key, parent: onto, labels } in commits {
            let labels = checked_labels("info", labels)?;
            let backend = self.shared.backend_key(&self.scope.namespace, name.as_str()).await?;
            let backend: SnapshotKey = backend.parse()?;
            locks.push(self.shared.locks.own(self.backend_lock(&backend)).await);
            let lease = self.scope.lease.clone();
            let intent = CommitRecord { name, backend, labels, lease, onto };
            wanted.push(Begun { place: self.place(&key), intent });
        }
        let Intended { begun, commits, needless } = self.intend(wanted, existing).await?;
        let done = match <[SnapshotCommit; 1]>::try_from(commits) {
            Ok([commit]) => self.commit_one(commit).await,
            Err(commits) if commits.is_empty() => Ok(()),
            Err(commits) => self.backend.commit_all(commits).await,
        };
        if let Err(error) = done {
            self.take_back(begun).await?;
            return Err(error);
        }
        record(&self.shared, begun).await?;
        Ok(needless)
    }

    /// Records those that the backend has done nevertheless and forgets the others.
    async fn take_back(&self, begun: Vec<Begun>) -> Result<()> {
        let (mut done, mut left) = (Vec::new(), Vec::new());
        for one in begun {
            let found = self.backend.stat(&one.intent.backend).await;
            if found.is_ok() { done.push(one) } else { left.push(one) }
        }
        record(&self.shared, done).await?;
        let change =
            move |txn: &mut Txn<'_>| left.iter().try_for_each(|one| forget(txn, &one.place, &one.intent));
        self.shared.ledger.update(Durability::Relaxed, change).await
    }

    async fn commit_one(&self, commit: SnapshotCommit) -> Result<()> {
        let SnapshotCommit { name, key, parent, labels } = commit;
        match parent {
            Some(parent) => self.backend.commit_onto(&name, &key, &parent, labels).await,
            None => self.backend.commit(&name, &key, labels).await,
        }
    }

    /// Checks the commits and records that they have begun.
    async fn intend(&self, wanted: Vec<Begun>, existing: Existing) -> Result<Intended> {
        let scope = self.scope.clone();
        let change = move |txn: &mut Txn<'_>| {
            let mut intended = Intended::default();
            for one in wanted {
                let target = one.place.sibling(&one.intent.name);
                // The lease is checked now, when nothing has happened yet.
                hold(txn, &scope, Resource::Snapshot(&target.snapshotter, &target.name))?;
                if txn.load(&target.key())?.is_some() {
                    match existing {
                        // The lease holds it nevertheless.
                        Existing::Refused => return Ok(Err(target)),
                        Existing::Taken => intended.needless.push(one.place.name.parse()?),
                    }
                    continue;
                }
                intended.begin(txn, one)?;
            }
            Ok(Ok(intended))
        };
        let intended = self.shared.ledger.update(Durability::Synced, change).await?;
        intended
            .map_err(|target| Error::already_exists(format!("snapshot {:?}: already exists", target.name)))
    }
}

/// Commits of which the records know that they have begun.
#[derive(Default)]
struct Intended {
    begun: Vec<Begun>,
    /// The same for the backend, by its keys.
    commits: Vec<SnapshotCommit>,
    /// Active snapshots whose names are there.
    needless: Vec<SnapshotKey>,
}

impl Intended {
    fn begin(&mut self, txn: &mut Txn<'_>, mut one: Begun) -> Result<()> {
        let Begun { place, intent } = &mut one;
        let active = find(txn, place)?;
        if active.parent.is_some() && intent.onto.is_some() && active.parent != intent.onto {
            return Err(Error::invalid_argument(format!(
                "cannot change parent of active snapshot {:?} on commit",
                place.name
            )));
        }
        let parent = match active.parent.as_ref().or(intent.onto.as_ref()) {
            Some(parent) => Some(self.backend_of(txn, place, parent)?),
            None => None,
        };
        if active.parent.is_some() {
            intent.onto = None;
        } else if let Some(parent) = &intent.onto {
            // Nobody may remove the parent between now and the record.
            txn.put(&place.sibling(&intent.name).child_of(parent.as_str()), &[])?;
        }
        store(txn, &CommitRecord::key(&place.namespace, &place.snapshotter, &place.name), intent)?;
        self.commits.push(SnapshotCommit {
            name: intent.backend.clone(),
            key: active.backend,
            parent: parent.filter(|_| intent.onto.is_some()),
            labels: inherited(&intent.labels),
        });
        self.begun.push(one);
        Ok(())
    }

    /// The key in the backend of a parent, which may be committed together with its child.
    fn backend_of(&self, txn: &Txn<'_>, place: &Place, parent: &SnapshotKey) -> Result<SnapshotKey> {
        if let Some(earlier) = self.begun.iter().find(|one| one.intent.name == *parent) {
            return Ok(earlier.intent.backend.clone());
        }
        let found = load::<SnapshotRecord>(txn, &place.sibling(parent).key())?;
        found.map(|parent| parent.backend).ok_or_else(|| create::no_parent(parent))
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
async fn record(shared: &Shared, begun: Vec<Begun>) -> Result<()> {
    if begun.is_empty() {
        return Ok(());
    }
    let change = move |txn: &mut Txn<'_>| begun.into_iter().try_for_each(|one| enter(txn, one));
    shared.ledger.update(Durability::Synced, change).await
}

fn enter(txn: &mut Txn<'_>, one: Begun) -> Result<()> {
    let Begun { place, intent: CommitRecord { name, backend, labels, lease, onto } } = one;
    let scope = Scope { namespace: place.namespace.parse()?, lease };
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
    let event = Event::SnapshotCommit { key: place.name, name: target.name, snapshotter: target.snapshotter };
    txn.tell(&scope.namespace, event);
    Ok(())
}

/// A commit that was begun before the daemon ended.
pub(crate) struct Interrupted(Begun);

/// Every commit that was begun and neither recorded nor taken back.
pub(crate) fn interrupted(ledger: &Ledger) -> Result<Vec<Interrupted>> {
    ledger.view(|read| {
        let mut all = Vec::new();
        each::<CommitRecord, 3>(read, &key(Kind::Commit, &[]), |[namespace, snapshotter, name], intent| {
            all.push(Interrupted(Begun { place: Place { namespace, snapshotter, name }, intent }));
            Ok(())
        })?;
        Ok(all)
    })
}

/// Finishes a commit if the backend has done its part, takes it back otherwise.
pub(crate) async fn finish(shared: &Shared, interrupted: Interrupted) -> Result<()> {
    let Interrupted(Begun { place, intent }) = interrupted;
    let backend: Option<&Arc<dyn Snapshotter>> = shared.snapshotters.get(place.snapshotter.as_str());
    let Some(backend) = backend else {
        // A snapshotter that isn't loaded this time keeps its intents for the next.
        return Ok(());
    };
    match backend.stat(&intent.backend).await {
        Ok(_) => record(shared, vec![Begun { place, intent }]).await,
        Err(error) if error.kind() == ErrorKind::NotFound => {
            let change = move |txn: &mut Txn<'_>| forget(txn, &place, &intent);
            shared.ledger.update(Durability::Relaxed, change).await
        }
        Err(error) => Err(error),
    }
}
