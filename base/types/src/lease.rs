//! Leases: what keeps the garbage collector away while work is under way.

use std::time::SystemTime;

use crate::{Labels, LeaseId};

/// A lease. `containerd.io/gc.expire` in its labels says until when it holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lease {
    /// The name, unique in a namespace.
    pub id: LeaseId,
    /// When it was made.
    pub created_at: SystemTime,
    /// Labels.
    pub labels: Labels,
}

/// A thing that a lease holds.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LeaseResource {
    /// A digest, a snapshot key, an ingest's reference or an image's name.
    pub id: String,
    /// `content`, `ingests`, `images` or `snapshots/SNAPSHOTTER`.
    pub kind: String,
}
