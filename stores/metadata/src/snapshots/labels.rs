//! Which labels the backend gets to see, and how its answers and the records become one.

use berth_types::{FieldMask, Labels, SnapshotInfo, SnapshotKey};

use crate::record::SnapshotRecord;

/// The snapshot that a remote snapshotter may have already.
pub(super) const REFERENCE: &str = "containerd.io/snapshot.ref";

const PREFIX: &str = "containerd.io/snapshot/";

fn is_inherited(key: &str) -> bool {
    key == REFERENCE || key.starts_with(PREFIX)
}

/// The labels that are meant for the snapshotter.
pub(super) fn inherited(labels: &Labels) -> Labels {
    labels
        .iter()
        .filter(|(key, _)| is_inherited(key))
        .map(|(key, value)| (key.clone(), value.clone()))
        .collect()
}

/// Whether a mask means any label that is meant for the snapshotter.
pub(super) fn mentions_inherited(mask: &FieldMask) -> bool {
    mask.paths().iter().any(|path| path == "labels" || path.strip_prefix("labels.").is_some_and(is_inherited))
}

/// What the backend says of a snapshot, under the name and with the records of the namespace.
pub(super) fn overlay(info: SnapshotInfo, name: &SnapshotKey, record: SnapshotRecord) -> SnapshotInfo {
    let SnapshotRecord { backend: _, parent, labels, created_at, updated_at } = record;
    let mut merged = info.labels;
    merged.extend(labels);
    SnapshotInfo { kind: info.kind, key: name.clone(), parent, labels: merged, created_at, updated_at }
}
