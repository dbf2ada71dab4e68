//! Namespace records.

use crate::{Labels, Namespace};

/// A namespace and its labels, some of which are defaults for the work in it
/// (`containerd.io/defaults/snapshotter`, `containerd.io/defaults/runtime`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NamespaceRecord {
    /// The name.
    pub name: Namespace,
    /// Labels.
    pub labels: Labels,
}
