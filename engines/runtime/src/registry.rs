//! Which tasks, or sandboxes, there are. The lock is held for look-ups only.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use berth_types::{Envelope, Error, Event, Namespace, Result};

use crate::key::Key;
use crate::shim::Shim;
use crate::task::Task;

/// What has a name of its own in a namespace.
pub(crate) trait Named {
    /// What it is called in errors.
    const KIND: &'static str;

    /// Its name.
    fn key(&self) -> &Key;
}

/// What there is of one kind, in all namespaces. Clones share it.
pub(crate) struct Registry<T>(Arc<Mutex<HashMap<Key, Entry<T>>>>);

enum Entry<T> {
    /// Somebody is making it, or taking stock of what is left of it.
    Reserved,
    Live(Arc<T>),
}

/// A name that nobody else can take. Dropping it gives it back.
pub(crate) struct Reservation<T> {
    registry: Registry<T>,
    key: Option<Key>,
}

impl<T> Clone for Registry<T> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<T> Default for Registry<T> {
    fn default() -> Self {
        Self(Arc::default())
    }
}

impl<T> Registry<T> {
    fn entries(&self) -> MutexGuard<'_, HashMap<Key, Entry<T>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// One that lives.
    pub(crate) fn live(&self, key: &Key) -> Option<Arc<T>> {
        match self.entries().get(key) {
            Some(Entry::Live(one)) => Some(Arc::clone(one)),
            Some(Entry::Reserved) | None => None,
        }
    }

    /// Whether one lives or is being made.
    pub(crate) fn knows(&self, key: &Key) -> bool {
        self.entries().contains_key(key)
    }
}

impl<T: Named> Registry<T> {
    /// Takes a name for one to be.
    pub(crate) fn reserve(&self, key: &Key) -> Result<Reservation<T>> {
        let mut entries = self.entries();
        if entries.contains_key(key) {
            return Err(Error::already_exists(format!("{} {}: already exists", T::KIND, key.id)));
        }
        entries.insert(key.clone(), Entry::Reserved);
        Ok(Reservation { registry: self.clone(), key: Some(key.clone()) })
    }

    /// Forgets one.
    pub(crate) fn remove(&self, one: &Arc<T>) {
        let mut entries = self.entries();
        if matches!(entries.get(one.key()), Some(Entry::Live(live)) if Arc::ptr_eq(live, one)) {
            entries.remove(one.key());
        }
    }
}

impl Registry<Task> {
    /// The tasks of a namespace, by id.
    pub(crate) fn of(&self, namespace: &Namespace) -> Vec<Arc<Task>> {
        let mut found: Vec<Arc<Task>> = self
            .entries()
            .values()
            .filter_map(|entry| match entry {
                Entry::Live(task) if task.key().namespace == *namespace => Some(Arc::clone(task)),
                _ => None,
            })
            .collect();
        found.sort_by(|a, b| a.key().cmp(b.key()));
        found
    }

    /// Whether a task other than this one is served by the same shim.
    pub(crate) fn shares(&self, shim: &Shim, key: &Key) -> bool {
        self.entries().iter().any(|(other, entry)| match entry {
            Entry::Live(task) => other != key && task.is_with(shim),
            Entry::Reserved => false,
        })
    }

    /// Takes note of the end of a task's first process and of its deletion, before anybody is told.
    pub(crate) fn note(&self, envelope: &Envelope) {
        let (Event::TaskExit { container_id, exec_id, exit }
        | Event::TaskDelete { container_id, exec_id, exit }) = &envelope.event
        else {
            return;
        };
        if (exec_id == container_id || exec_id.is_empty())
            && let Ok(id) = container_id.parse()
            && let Some(task) = self.live(&Key { namespace: envelope.namespace.clone(), id })
            // An event may come when its task has gone and another one has the name.
            && (exit.pid == task.pid() || exit.pid == 0 || task.pid() == 0)
        {
            match &envelope.event {
                Event::TaskDelete { .. } => task.note_deletion(),
                _ => task.note_exit(*exit),
            }
        }
    }
}

impl<T> Reservation<T> {
    /// It is there.
    pub(crate) fn fill(mut self, one: Arc<T>) {
        if let Some(key) = self.key.take() {
            self.registry.entries().insert(key, Entry::Live(one));
        }
    }
}

impl<T> Drop for Reservation<T> {
    fn drop(&mut self) {
        if let Some(key) = self.key.take() {
            self.registry.entries().remove(&key);
        }
    }
}
