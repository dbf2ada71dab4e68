//! Snapshots: which of the backend's a namespace's key means.

use std::time::SystemTime;

use berth_types::{Labels, LeaseId, Result, SnapshotKey};

use super::{Record, any};
use crate::codec::{Damaged, Decoder, Encoder};
use crate::key::{Kind, key};
use crate::storage::Read;

/// What is stored of a snapshot.
#[derive(Clone, Debug)]
pub(crate) struct SnapshotRecord {
    /// The key in the backend: `namespace/N/key`.
    pub(crate) backend: SnapshotKey,
    pub(crate) parent: Option<SnapshotKey>,
    pub(crate) labels: Labels,
    pub(crate) created_at: SystemTime,
    pub(crate) updated_at: SystemTime,
}

impl SnapshotRecord {
    pub(crate) fn key(namespace: &str, snapshotter: &str, name: &str) -> Vec<u8> {
        key(Kind::Snapshot, &[namespace, snapshotter, name])
    }

    /// The key of the record that says that `child` builds on `parent`.
    pub(crate) fn child_key(namespace: &str, snapshotter: &str, parent: &str, child: &str) -> Vec<u8> {
        key(Kind::Child, &[namespace, snapshotter, parent, child])
    }

    /// Whether anything builds on it.
    pub(crate) fn has_children(
        from: &dyn Read,
        namespace: &str,
        snapshotter: &str,
        name: &str,
    ) -> Result<bool> {
        any(from, &key(Kind::Child, &[namespace, snapshotter, name]))
    }
}

impl Record for SnapshotRecord {
    fn write(&self, to: Encoder) -> Encoder {
        to.text(self.backend.as_str())
            .text(self.parent.as_ref().map_or("", SnapshotKey::as_str))
            .labels(&self.labels)
            .time(self.created_at)
            .time(self.updated_at)
    }

    fn read(from: &mut Decoder<'_>) -> Result<Self, Damaged> {
        Ok(Self {
            backend: from.text()?.parse().map_err(|_| Damaged("key"))?,
            parent: optional_key(&from.text()?)?,
            labels: from.labels()?,
            created_at: from.time()?,
            updated_at: from.time()?,
        })
    }
}

/// A commit that was begun: what the records become once the backend has committed.
#[derive(Clone, Debug)]
pub(crate) struct CommitRecord {
    pub(crate) name: SnapshotKey,
    /// The committed snapshot's key in the backend.
    pub(crate) backend: SnapshotKey,
    pub(crate) labels: Labels,
    pub(crate) lease: Option<LeaseId>,
    /// The parent that it gets with the commit, if it gets one.
    pub(crate) onto: Option<SnapshotKey>,
}

impl CommitRecord {
    pub(crate) fn key(namespace: &str, snapshotter: &str, name: &str) -> Vec<u8> {
        key(Kind::Commit, &[namespace, snapshotter, name])
    }
}

impl Record for CommitRecord {
    fn write(&self, to: Encoder) -> Encoder {
        to.text(self.name.as_str())
            .text(self.backend.as_str())
            .labels(&self.labels)
            .text(self.lease.as_ref().map_or("", LeaseId::as_str))
            .text(self.onto.as_ref().map_or("", SnapshotKey::as_str))
    }

    fn read(from: &mut Decoder<'_>) -> Result<Self, Damaged> {
        Ok(Self {
            name: from.text()?.parse().map_err(|_| Damaged("name"))?,
            backend: from.text()?.parse().map_err(|_| Damaged("key"))?,
            labels: from.labels()?,
            lease: match from.text()?.as_str() {
                "" => None,
                lease => Some(lease.parse().map_err(|_| Damaged("lease"))?),
            },
            onto: optional_key(&from.text()?)?,
        })
    }
}

fn optional_key(text: &str) -> Result<Option<SnapshotKey>, Damaged> {
    match text {
        "" => Ok(None),
        key => key.parse().map(Some).map_err(|_| Damaged("parent")),
    }
}
