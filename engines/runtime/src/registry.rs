//! Which tasks there are. The lock is held for look-ups only.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use berth_types::{Envelope, Error, Event, Namespace, Result};

use crate::key::Key;
use crate::shim::Shim;
use crate::task::Task;

/// The tasks of all namespaces.
#[derive(Clone, Default)]
pub(crate) struct Registry(Arc<Mutex<HashMap<Key, Entry>>>);

enum Entry {
    /// Somebody is making it, or taking stock of what is left of it.
    Reserved,
    Live(Arc<Task>),
}

/// A name that nobody else can take. Dropping it gives it back.
pub(crate) struct Reservation {
    registry: Registry,
    key: Option<Key>,
}

impl Registry {
    fn entries(&self) -> MutexGuard<'_, HashMap<Key, Entry>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a name for a task to be.
    pub(crate) fn reserve(&self, key: &Key) -> Result<Reservation> {
        let mut entries = self.entries();
        if entries.contains_key(key) {
            return Err(Error::already_exists(format!("task {}: already exists", key.id)));
        }
        entries.insert(key.clone(), Entry::Reserved);
        Ok(Reservation { registry: self.clone(), key: Some(key.clone()) })
    }

    /// A task that lives.
    pub(crate) fn task(&self, key: &Key) -> Option<Arc<Task>> {
        match self.entries().get(key) {
            Some(Entry::Live(task)) => Some(Arc::clone(task)),
            Some(Entry::Reserved) | None => None,
        }
    }

    /// Whether a task lives or is being made.
    pub(crate) fn knows(&self, key: &Key) -> bool {
        self.entries().contains_key(key)
    }

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

    /// Forgets a task.
    pub(crate) fn remove(&self, task: &Arc<Task>) {
        let mut entries = self.entries();
        if matches!(entries.get(task.key()), Some(Entry::Live(live)) if Arc::ptr_eq(live, task)) {
            entries.remove(task.key());
        }
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
            && let Some(task) = self.task(&Key { namespace: envelope.namespace.clone(), id })
        {
            match &envelope.event {
                Event::TaskDelete { .. } => task.note_deletion(),
                _ => task.note_exit(*exit),
            }
        }
    }
}

impl Reservation {
    /// The task is there.
    pub(crate) fn fill(mut self, task: Arc<Task>) {
        if let Some(key) = self.key.take() {
            self.registry.entries().insert(key, Entry::Live(task));
        }
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        if let Some(key) = self.key.take() {
            self.registry.entries().remove(&key);
        }
    }
}
