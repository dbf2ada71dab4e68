//! What a snapshotter says of a snapshot.

use std::time::SystemTime;

use crate::{Labels, SnapshotKey};

/// How a snapshot can be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum SnapshotKind {
    /// Read-only, from [`view`](https://pkg.go.dev/github.com/containerd/containerd/v2/core/snapshots).
    View,
    /// Writable.
    Active,
    /// Finished; can be a parent.
    Committed,
}

/// A snapshot's record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SnapshotInfo {
    /// Active, view or committed.
    pub kind: SnapshotKind,
    /// Its key, or its name once committed.
    pub key: SnapshotKey,
    /// The committed snapshot beneath it.
    pub parent: Option<SnapshotKey>,
    /// Labels.
    pub labels: Labels,
    /// When it was made, or committed.
    pub created_at: SystemTime,
    /// When it last changed.
    pub updated_at: SystemTime,
}

/// What a snapshot takes on disk, without its parents.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Files, folders and other entries.
    pub inodes: u64,
    /// Bytes on disk.
    pub size: u64,
}

impl std::ops::Add for Usage {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self { inodes: self.inodes.saturating_add(other.inodes), size: self.size.saturating_add(other.size) }
    }
}
