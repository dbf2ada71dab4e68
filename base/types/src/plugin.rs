//! What introspection tells of the parts of a daemon.

use std::collections::BTreeMap;

use crate::Platform;

/// How a part came up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PluginState {
    /// It works.
    Ready,
    /// It does not apply here, and why.
    Skipped(String),
    /// It should work and does not, and why.
    Failed(String),
}

/// A part of the daemon under containerd's plugin URI.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PluginInfo {
    /// Such as `io.containerd.snapshotter.v1`.
    pub kind: String,
    /// Such as `overlayfs`.
    pub id: String,
    /// The URIs of the kinds that it needs.
    pub requires: Vec<String>,
    /// Where it works, when that matters.
    pub platforms: Vec<Platform>,
    /// Facts such as `root`.
    pub exports: BTreeMap<String, String>,
    /// What it can do.
    pub capabilities: Vec<String>,
    /// How it came up.
    pub state: PluginState,
}

/// The daemon itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerInfo {
    /// Stays the same over restarts.
    pub uuid: String,
    /// Its process.
    pub pid: u64,
    /// The inode of its pid namespace.
    pub pidns: u64,
    /// Why somebody should change the configuration: (id, message, last seen).
    pub deprecations: Vec<(String, String, std::time::SystemTime)>,
}
