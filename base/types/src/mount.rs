//! Mounts as snapshotters hand them out and shims perform them.

use serde::{Deserialize, Serialize};

/// One mount of a list that, performed in order, gives a root filesystem
/// (`containerd.types.Mount`).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mount {
    /// The filesystem: `overlay`, `bind`, `erofs` …
    #[serde(rename = "type")]
    pub kind: String,
    /// The device, folder or name to mount.
    pub source: String,
    /// A path beneath the folder on which the list is mounted; empty for that folder itself.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub target: String,
    /// Options as in fstab: `ro`, `rbind`, `lowerdir=…`.
    #[serde(default)]
    pub options: Vec<String>,
}
