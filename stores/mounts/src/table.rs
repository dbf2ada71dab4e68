//! What is activated, by namespace and name.

use std::collections::BTreeMap;

use berth_types::{Activation, Error, LeaseId, Namespace, Result};

/// An activation that is made.
#[derive(Clone, Debug)]
pub(crate) struct Made {
    pub(crate) number: u64,
    pub(crate) lease: Option<LeaseId>,
    pub(crate) activation: Activation,
}

#[derive(Debug)]
enum Entry {
    /// Somebody is making, changing or ending it.
    Busy,
    Made(Made),
}

/// The activations of all namespaces.
#[derive(Debug, Default)]
pub(crate) struct Table {
    entries: BTreeMap<(Namespace, String), Entry>,
    /// The last number that was given.
    last: u64,
    /// Numbers whose folders could not be removed.
    leftovers: Vec<u64>,
}

impl Table {
    /// Takes a name, under a number that nothing has; the caller then makes the activation.
    pub(crate) fn begin(&mut self, namespace: &Namespace, name: &str) -> Result<u64> {
        let key = (namespace.clone(), name.to_owned());
        match self.entries.get(&key) {
            Some(Entry::Made(_)) => {
                return Err(Error::already_exists(format!("mount {name:?}: already exists")));
            }
            Some(Entry::Busy) => return Err(busy(name)),
            None => {}
        }
        self.entries.insert(key, Entry::Busy);
        self.last += 1;
        Ok(self.last)
    }

    /// Takes an activation to change or to end it.
    pub(crate) fn take(&mut self, namespace: &Namespace, name: &str) -> Result<Made> {
        let entry = self.entries.get_mut(&(namespace.clone(), name.to_owned()));
        match entry {
            None => Err(missing(name)),
            Some(Entry::Busy) => Err(busy(name)),
            Some(entry) => match std::mem::replace(entry, Entry::Busy) {
                Entry::Made(made) => Ok(made),
                Entry::Busy => Err(busy(name)),
            },
        }
    }

    /// Puts in what was begun, taken or found.
    pub(crate) fn put(&mut self, namespace: &Namespace, made: Made) {
        self.last = self.last.max(made.number);
        let key = (namespace.clone(), made.activation.name.clone());
        self.entries.insert(key, Entry::Made(made));
    }

    /// Forgets what was begun or taken.
    pub(crate) fn forget(&mut self, namespace: &Namespace, name: &str) {
        self.entries.remove(&(namespace.clone(), name.to_owned()));
    }

    /// An activation.
    pub(crate) fn made(&self, namespace: &Namespace, name: &str) -> Result<&Made> {
        match self.entries.get(&(namespace.clone(), name.to_owned())) {
            Some(Entry::Made(made)) => Ok(made),
            Some(Entry::Busy) => Err(busy(name)),
            None => Err(missing(name)),
        }
    }

    /// All that are made.
    pub(crate) fn all(&self) -> impl Iterator<Item = (&Namespace, &Made)> {
        self.entries.iter().filter_map(|((namespace, _), entry)| match entry {
            Entry::Made(made) => Some((namespace, made)),
            Entry::Busy => None,
        })
    }

    /// The numbers after this one are given next.
    pub(crate) fn number_after(&mut self, number: u64) {
        self.last = self.last.max(number);
    }

    /// Notes a folder that could not be removed.
    pub(crate) fn leave(&mut self, number: u64) {
        self.leftovers.push(number);
    }

    /// Takes the numbers of those.
    pub(crate) fn leftovers(&mut self) -> Vec<u64> {
        std::mem::take(&mut self.leftovers)
    }
}

fn missing(name: &str) -> Error {
    Error::not_found(format!("mount {name:?} not found"))
}

fn busy(name: &str) -> Error {
    Error::unavailable(format!("mount {name:?} is just being activated or deactivated: try again"))
}
