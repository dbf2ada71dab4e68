//! Whose view of the stores a handle is.

use berth_types::{LeaseId, Namespace};

/// A namespace, and the lease under which new objects are held until something else refers to
/// them: what clients send as the headers `containerd-namespace` and `containerd-lease`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Scope {
    /// The namespace.
    pub namespace: Namespace,
    /// The lease, if any.
    pub lease: Option<LeaseId>,
}

impl Scope {
    /// A namespace without a lease.
    pub fn new(namespace: Namespace) -> Self {
        Self { namespace, lease: None }
    }

    /// The same namespace under a lease.
    pub fn with_lease(&self, lease: LeaseId) -> Self {
        Self { namespace: self.namespace.clone(), lease: Some(lease) }
    }
}

/// When a deletion answers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Deletion {
    /// When the record is gone; what it alone held goes with the next garbage collection.
    #[default]
    Later,
    /// When a garbage collection has run as well.
    Synchronous,
}
