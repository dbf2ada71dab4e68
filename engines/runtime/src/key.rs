//! Which task is meant.

use std::fmt;

use berth_types::{ContainerId, Namespace};

/// A task's name in the whole daemon.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Key {
    pub(crate) namespace: Namespace,
    pub(crate) id: ContainerId,
}

impl Key {
    pub(crate) fn new(namespace: &Namespace, id: &ContainerId) -> Self {
        Self { namespace: namespace.clone(), id: id.clone() }
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.id)
    }
}
