//! A lock for each name, made when it is asked for. It orders the operations on one object, in
//! its backend and in the records together; nothing ever locks all objects.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use berth_types::Digest;
use tokio::sync::{OwnedRwLockReadGuard, OwnedRwLockWriteGuard, RwLock};

/// What can be locked.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Name {
    /// A blob, in the backend.
    Blob(Digest),
    /// Every blob that somebody writes without saying which it will be.
    UnknownBlob,
    /// A snapshot in its backend, by the snapshotter and the backend's key.
    Backend(String, String),
    /// A snapshot as a namespace names it: namespace, snapshotter, key.
    Snapshot(String, String, String),
}

/// The locks that somebody holds or waits for.
#[derive(Default)]
pub(crate) struct Locks {
    known: Mutex<HashMap<Name, Weak<RwLock<()>>>>,
}

/// How many names are kept before those that nobody holds are looked for.
const KEPT: usize = 64;

impl Locks {
    /// Waits until nobody has the name to itself.
    pub(crate) async fn share(&self, name: Name) -> OwnedRwLockReadGuard<()> {
        self.lock(name).read_owned().await
    }

    /// Waits for having the name to oneself.
    pub(crate) async fn own(&self, name: Name) -> OwnedRwLockWriteGuard<()> {
        self.lock(name).write_owned().await
    }

    /// Has the name to oneself if nobody else uses it now.
    pub(crate) fn try_own(&self, name: Name) -> Option<OwnedRwLockWriteGuard<()>> {
        self.lock(name).try_write_owned().ok()
    }

    fn lock(&self, name: Name) -> Arc<RwLock<()>> {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(lock) = known.get(&name).and_then(Weak::upgrade) {
            return lock;
        }
        if known.len() >= KEPT {
            known.retain(|_, lock| lock.strong_count() > 0);
        }
        let lock = Arc::new(RwLock::new(()));
        known.insert(name, Arc::downgrade(&lock));
        lock
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_name_is_owned_by_one_and_others_are_free() {
        let locks = Locks::default();
        let held = locks.own(Name::UnknownBlob).await;
        assert!(locks.try_own(Name::UnknownBlob).is_none());
        let other = locks.try_own(Name::Backend("x".into(), "y".into()));
        assert!(other.is_some());
        drop(held);
        let shared = locks.share(Name::UnknownBlob).await;
        assert!(locks.try_own(Name::UnknownBlob).is_none());
        drop(shared);
        assert!(locks.try_own(Name::UnknownBlob).is_some());
    }

    #[tokio::test]
    async fn names_are_forgotten() {
        let locks = Locks::default();
        for number in 0..10 * KEPT {
            drop(locks.own(Name::Backend("x".into(), number.to_string())).await);
        }
        assert!(locks.known.lock().unwrap().len() <= KEPT);
    }
}
