//! What is configured.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use berth_types::SnapshotterName;

/// What of `[plugins.'io.containerd.cri.v1.images']` is heeded, and where things are.
#[derive(Clone, Debug)]
pub struct Config {
    /// Whose snapshots images are unpacked into.
    pub snapshotter: SnapshotterName,
    /// The folder of that snapshotter, of which a kubelet watches the file system.
    pub image_folder: PathBuf,
    /// The folders with `HOST/hosts.toml`; empty for the daemon's.
    pub registry_hosts: Vec<PathBuf>,
    /// Headers for registries.
    pub registry_headers: Vec<(String, String)>,
    /// Images that a kubelet must not remove, by what they are for.
    pub pinned_images: BTreeMap<String, String>,
    /// How long a pull may go on without a byte; zero for ever.
    pub pull_patience: Duration,
    /// The version that the runtime says it has.
    pub version: String,
}
