//! What a metadata store is made of.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use berth_core::{ContentStore, Events, MountKeeper, Snapshotter};
use berth_types::SnapshotterName;

/// The backends that a metadata store puts its namespaces over, and how it behaves.
pub struct Parts {
    /// The blobs of every namespace.
    pub content: Arc<dyn ContentStore>,
    /// The snapshotters, by the names that clients ask for.
    pub snapshotters: BTreeMap<SnapshotterName, Arc<dyn Snapshotter>>,
    /// Who keeps activated mounts, if anybody does. They are held by leases and labels as everything is, and recorded there.
    pub mounts: Option<Arc<dyn MountKeeper>>,
    /// Where changes are told, once they are committed.
    pub events: Arc<dyn Events>,
    /// When garbage is collected.
    pub gc: GcConfig,
    /// Whether one namespace may use what another has fetched.
    pub sharing: Sharing,
}

/// The policy for content that another namespace has (`content_sharing_policy`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Sharing {
    /// Naming a digest is enough to get what is there already.
    #[default]
    Shared,
    /// Whoever wants a blob has to bring its bytes, except from namespaces with the label
    /// `containerd.io/namespace.shareable=true`.
    Isolated,
}

/// When garbage is collected: containerd's scheduler (`io.containerd.gc.v1.scheduler`) and its
/// defaults.
#[derive(Clone, Debug, PartialEq)]
pub struct GcConfig {
    /// The share of time that collections may take, up to 0.5.
    pub pause_threshold: f64,
    /// So many deletions cause a collection at once; 0 leaves it to the pause threshold.
    pub deletion_threshold: u64,
    /// So many changes, none of them a deletion, make the next scheduled collection happen; 0
    /// for never.
    pub mutation_threshold: u64,
    /// How long after its cause a collection starts.
    pub schedule_delay: Duration,
    /// How long after the start of the daemon the first one starts; zero for not by itself.
    pub startup_delay: Duration,
}

impl Default for GcConfig {
    fn default() -> Self {
        Self {
            pause_threshold: 0.02,
            deletion_threshold: 0,
            mutation_threshold: 100,
            schedule_delay: Duration::ZERO,
            startup_delay: Duration::from_millis(100),
        }
    }
}
