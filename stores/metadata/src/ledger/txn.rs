//! One request's part of a commit.

use berth_types::{Digest, Event, Namespace, Result};

use crate::storage::{Read, Visit, Write};

/// What a request did, for whoever follows the ledger.
#[derive(Debug, Default)]
pub(crate) struct Changes {
    /// The keys that it stored.
    pub(crate) stored: Vec<Vec<u8>>,
    /// Whether it let go of something that the garbage collector may now find.
    pub(crate) released: bool,
    /// What the backends may hold for nobody now.
    pub(crate) stale: Vec<Stale>,
}

/// Something in a backend whose record went.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Stale {
    /// A blob.
    Blob(Digest),
    /// An ingest, by the backend's reference.
    Ingest(String),
    /// A snapshot, by its snapshotter and the backend's key.
    Snapshot(String, String),
}

/// The records as one request changes them.
pub(crate) struct Txn<'a> {
    records: &'a mut dyn Write,
    undo: Vec<(Vec<u8>, Option<Vec<u8>>)>,
    events: Vec<(Namespace, Event)>,
    changes: Changes,
    forced: bool,
    /// The bytes that the records have become longer by.
    growth: i64,
}

impl<'a> Txn<'a> {
    pub(super) fn new(records: &'a mut dyn Write) -> Self {
        Self {
            records,
            undo: Vec::new(),
            events: Vec::new(),
            changes: Changes::default(),
            forced: false,
            growth: 0,
        }
    }

    /// Stores a record.
    pub(crate) fn put(&mut self, key: &[u8], value: &[u8]) -> Result<()> {
        let old = self.records.store(key, value)?;
        self.growth += length(key, Some(value)) - length(key, old.as_deref());
        self.undo.push((key.to_vec(), old));
        self.changes.stored.push(key.to_vec());
        Ok(())
    }

    /// Removes a record; answers whether it was there.
    pub(crate) fn delete(&mut self, key: &[u8]) -> Result<bool> {
        let old = self.records.remove(key)?;
        let found = old.is_some();
        if found {
            self.growth -= length(key, old.as_deref());
            self.undo.push((key.to_vec(), old));
        }
        Ok(found)
    }

    /// Removes every record whose key begins with `prefix`.
    pub(crate) fn delete_all(&mut self, prefix: &[u8]) -> Result<()> {
        let mut keys = Vec::new();
        self.scan(prefix, &mut |key, _| {
            keys.push(key.to_vec());
            Ok(std::ops::ControlFlow::Continue(()))
        })?;
        for key in keys {
            self.delete(&key)?;
        }
        Ok(())
    }

    /// Tells an event once this is committed.
    pub(crate) fn tell(&mut self, namespace: &Namespace, event: Event) {
        self.events.push((namespace.clone(), event));
    }

    /// Says that something may have become garbage.
    pub(crate) fn release(&mut self) {
        self.changes.released = true;
    }

    /// Says that a backend may hold something for nobody.
    pub(crate) fn release_backend(&mut self, stale: Stale) {
        self.changes.released = true;
        self.changes.stale.push(stale);
    }

    /// Commits even if nothing was changed, for the sync of what came before.
    pub(crate) fn force(&mut self) {
        self.forced = true;
    }

    /// Takes everything back.
    pub(super) fn roll_back(self) -> Result<()> {
        for (key, old) in self.undo.into_iter().rev() {
            match old {
                Some(old) => self.records.store(&key, &old)?,
                None => self.records.remove(&key)?,
            };
        }
        Ok(())
    }

    pub(super) fn finish(self) -> Finished {
        let wrote = self.forced || !self.undo.is_empty();
        Finished { wrote, growth: self.growth, events: self.events, changes: self.changes }
    }
}

fn length(key: &[u8], value: Option<&[u8]>) -> i64 {
    value.map_or(0, |value| (key.len() + value.len()) as i64)
}

/// What is left of a request once it has run.
pub(super) struct Finished {
    pub(super) wrote: bool,
    pub(super) growth: i64,
    pub(super) events: Vec<(Namespace, Event)>,
    pub(super) changes: Changes,
}

impl Read for Txn<'_> {
    fn load(&self, key: &[u8]) -> Result<Option<Vec<u8>>> {
        self.records.load(key)
    }

    fn scan(&self, prefix: &[u8], visit: &mut Visit<'_>) -> Result<()> {
        self.records.scan(prefix, visit)
    }
}
