//! One at a time for each key.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use tokio::sync::Mutex as AsyncMutex;

/// A lock for each key that somebody has, and none for any other.
#[derive(Debug)]
pub(crate) struct Keyed<K>(Mutex<HashMap<K, Weak<AsyncMutex<()>>>>);

impl<K> Default for Keyed<K> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<K: Clone + Eq + Hash> Keyed<K> {
    /// The lock of a key.
    pub(crate) fn of(&self, key: &K) -> Arc<AsyncMutex<()>> {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.retain(|_, lock| lock.strong_count() > 0);
        if let Some(lock) = all.get(key).and_then(Weak::upgrade) {
            return lock;
        }
        let lock = Arc::default();
        all.insert(key.clone(), Arc::downgrade(&lock));
        lock
    }
}
