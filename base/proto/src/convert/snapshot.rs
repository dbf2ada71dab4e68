//! Snapshots.

use berth_types::{Error, SnapshotInfo, SnapshotKey, SnapshotKind, Usage};

use super::{from_labels, labels, signed, time, timestamp, unsigned};
use crate::containerd::services::snapshots::v1 as wire;

/// The wire's number for a kind.
pub fn snapshot_kind(kind: SnapshotKind) -> wire::Kind {
    match kind {
        SnapshotKind::View => wire::Kind::View,
        SnapshotKind::Active => wire::Kind::Active,
        SnapshotKind::Committed => wire::Kind::Committed,
    }
}

/// The kind for the wire's number. A kind that was not said, as in an update, is committed: updates do not read it.
pub fn snapshot_kind_from(kind: wire::Kind) -> SnapshotKind {
    match kind {
        wire::Kind::View => SnapshotKind::View,
        wire::Kind::Active => SnapshotKind::Active,
        wire::Kind::Committed | wire::Kind::Unknown => SnapshotKind::Committed,
    }
}

impl From<SnapshotInfo> for wire::Info {
    fn from(info: SnapshotInfo) -> Self {
        Self {
            name: info.key.into(),
            parent: info.parent.map(String::from).unwrap_or_default(),
            kind: snapshot_kind(info.kind) as i32,
            created_at: timestamp(info.created_at),
            updated_at: timestamp(info.updated_at),
            labels: labels(info.labels),
        }
    }
}

impl TryFrom<wire::Info> for SnapshotInfo {
    type Error = Error;

    fn try_from(info: wire::Info) -> Result<Self, Error> {
        let kind = wire::Kind::try_from(info.kind)
            .map_err(|source| Error::invalid_argument("unknown kind of snapshot").caused_by(source))?;
        let parent = Some(info.parent).filter(|parent| !parent.is_empty());
        Ok(Self {
            kind: snapshot_kind_from(kind),
            key: SnapshotKey::try_from(info.name)?,
            parent: parent.map(SnapshotKey::try_from).transpose()?,
            labels: from_labels(info.labels),
            created_at: time(info.created_at),
            updated_at: time(info.updated_at),
        })
    }
}

impl From<Usage> for wire::UsageResponse {
    fn from(usage: Usage) -> Self {
        Self { size: signed(usage.size), inodes: signed(usage.inodes) }
    }
}

impl TryFrom<wire::UsageResponse> for Usage {
    type Error = Error;

    fn try_from(usage: wire::UsageResponse) -> Result<Self, Error> {
        Ok(Self { inodes: unsigned("inodes", usage.inodes)?, size: unsigned("size", usage.size)? })
    }
}
