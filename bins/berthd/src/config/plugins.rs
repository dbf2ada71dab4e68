//! The tables of `[plugins]`: ours with their keys, and everybody else's as they are.

use std::collections::BTreeMap;
use std::path::PathBuf;

use berth_snapshot::{blockfile, btrfs, erofs, native, overlayfs};
use serde::{Deserialize, Serialize};

use super::GoDuration;
use super::transfer::TransferLocal;
use crate::identity::Identity;

/// `[plugins]`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Plugins {
    #[serde(rename = "io.berth.runtime.v1.shims")]
    pub(crate) shims: Shims,
    #[serde(rename = "io.containerd.gc.v1.scheduler")]
    pub(crate) gc: GcScheduler,
    #[serde(rename = "io.containerd.image-verifier.v1.bindir")]
    pub(crate) verifier: ImageVerifier,
    #[serde(rename = "io.containerd.metadata.v1.bolt")]
    pub(crate) metadata: Metadata,
    #[serde(rename = "io.containerd.monitor.container.v1.restart")]
    pub(crate) restart: Restart,
    #[serde(rename = "io.containerd.monitor.task.v1.cgroups")]
    pub(crate) cgroups: Cgroups,
    #[serde(rename = "io.containerd.runtime.v2.task")]
    pub(crate) task: Task,
    #[serde(rename = "io.containerd.server.v1.grpc")]
    pub(crate) grpc: GrpcServer,
    #[serde(rename = "io.containerd.server.v1.metrics")]
    pub(crate) metrics: MetricsServer,
    #[serde(rename = "io.containerd.server.v1.ttrpc")]
    pub(crate) ttrpc: TtrpcServer,
    #[serde(rename = "io.containerd.service.v1.diff-service")]
    pub(crate) diff: DiffService,
    #[serde(rename = "io.containerd.shim.v1.manager")]
    pub(crate) shim: Shim,
    #[serde(rename = "io.containerd.snapshotter.v1.blockfile")]
    pub(crate) blockfile: blockfile::Config,
    #[serde(rename = "io.containerd.snapshotter.v1.btrfs")]
    pub(crate) btrfs: btrfs::Config,
    #[serde(rename = "io.containerd.snapshotter.v1.erofs")]
    pub(crate) erofs: erofs::Config,
    #[serde(rename = "io.containerd.snapshotter.v1.native")]
    pub(crate) native: native::Config,
    #[serde(rename = "io.containerd.snapshotter.v1.overlayfs")]
    pub(crate) overlayfs: overlayfs::Config,
    #[serde(rename = "io.containerd.transfer.v1.local")]
    pub(crate) transfer: TransferLocal,
    /// Whatever is not ours, or not yet: kept for `config dump`, and for the part that will read it.
    #[serde(flatten)]
    pub(crate) others: BTreeMap<String, toml::Value>,
}

/// Which program is a runtime's shim, where the name does not lead to it. It is berth's own table.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Shims {
    /// Absolute paths by names such as `io.containerd.runc.v2`, which is berth-shim unless it is here.
    pub(crate) runtimes: BTreeMap<String, PathBuf>,
}

/// When garbage is collected.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct GcScheduler {
    /// The part of all time that collections may hold writers up, at most 0.5.
    pub(crate) pause_threshold: f64,
    /// A collection after that many deletions; 0 for none.
    pub(crate) deletion_threshold: u64,
    /// A collection, when one is due, after that many changes.
    pub(crate) mutation_threshold: u64,
    /// From the reason for a collection to it.
    pub(crate) schedule_delay: GoDuration,
    /// From the start of the daemon to the first one.
    pub(crate) startup_delay: GoDuration,
}

/// Programs that judge images before they are pulled.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct ImageVerifier {
    /// Where they are.
    pub(crate) bin_dir: PathBuf,
    /// How many of them are asked; as many as there are if it is negative.
    pub(crate) max_verifiers: i64,
    /// How long each may take.
    pub(crate) per_verifier_timeout: GoDuration,
}

/// containerd's folder of verifiers, which need not be there.
const VERIFIERS: &str = "/opt/containerd/image-verifier/bin";

impl ImageVerifier {
    /// The verifiers as the engine asks them. A folder that was named, or that holds some now, has to hold some later.
    pub(crate) fn verifiers(&self) -> berth_transfer::Verifiers {
        let holds = || std::fs::read_dir(&self.bin_dir).is_ok_and(|mut entries| entries.next().is_some());
        berth_transfer::Verifiers {
            folder: self.bin_dir.clone(),
            at_most: usize::try_from(self.max_verifiers).ok(),
            each: self.per_verifier_timeout.as_std(),
            required: self.bin_dir.as_os_str() != VERIFIERS || holds(),
        }
    }
}

/// The records.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Metadata {
    /// `shared`: whoever knows a digest may use the blob; `isolated`: only who has brought it.
    pub(crate) content_sharing_policy: String,
    pub(crate) no_sync: bool,
}

/// The restart monitor.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Restart {
    /// How often it looks.
    pub(crate) interval: GoDuration,
}

/// The metrics of containers.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Cgroups {
    pub(crate) no_prometheus: bool,
}

/// Tasks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Task {
    pub(crate) platforms: Vec<String>,
}

/// The clients' socket.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct GrpcServer {
    pub(crate) address: String,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) max_recv_message_size: usize,
    pub(crate) max_send_message_size: usize,
}

/// Figures over HTTP.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct MetricsServer {
    /// Where: `HOST:PORT`; empty for nowhere.
    pub(crate) address: String,
}

/// The shims' socket; without an address it is beside the clients'.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct TtrpcServer {
    pub(crate) address: String,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
}

/// Layers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct DiffService {
    /// Differs in the order in which they are tried.
    pub(crate) default: Vec<String>,
    /// Whether every applied layer is to be on disk before the answer.
    pub(crate) sync_fs: bool,
}

/// Shims.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Shim {
    /// Added to their environment, `NAME=VALUE`.
    pub(crate) env: Vec<String>,
    /// Where their sockets are; empty for the state folder.
    pub(crate) socket_dir: String,
}

impl Plugins {
    pub(super) fn defaults(identity: &Identity) -> Self {
        Self {
            shims: Shims::default(),
            gc: GcScheduler::default(),
            verifier: ImageVerifier::default(),
            metadata: Metadata::default(),
            restart: Restart::default(),
            cgroups: Cgroups::default(),
            task: Task::default(),
            grpc: GrpcServer { address: identity.address.to_owned(), ..GrpcServer::default() },
            metrics: MetricsServer::default(),
            ttrpc: TtrpcServer::default(),
            diff: DiffService::default(),
            shim: Shim::default(),
            blockfile: blockfile::Config::default(),
            btrfs: btrfs::Config::default(),
            erofs: erofs::Config::default(),
            native: native::Config::default(),
            overlayfs: overlayfs::Config::default(),
            transfer: TransferLocal::default(),
            others: BTreeMap::new(),
        }
    }
}

/// The ids of this process, to which sockets belong by default.
pub(super) fn own_ids() -> (u32, u32) {
    (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw())
}

impl Default for GcScheduler {
    fn default() -> Self {
        Self {
            pause_threshold: 0.02,
            deletion_threshold: 0,
            mutation_threshold: 100,
            schedule_delay: GoDuration::default(),
            startup_delay: GoDuration::from_millis(100),
        }
    }
}

impl Default for ImageVerifier {
    fn default() -> Self {
        Self { bin_dir: VERIFIERS.into(), max_verifiers: 10, per_verifier_timeout: GoDuration::from_secs(10) }
    }
}

impl Default for Metadata {
    fn default() -> Self {
        Self { content_sharing_policy: "shared".to_owned(), no_sync: false }
    }
}

impl Default for Restart {
    fn default() -> Self {
        Self { interval: GoDuration::from_secs(10) }
    }
}

impl Default for Task {
    fn default() -> Self {
        Self { platforms: vec![crate::identity::platform().to_owned()] }
    }
}

impl Default for GrpcServer {
    fn default() -> Self {
        let (uid, gid) = own_ids();
        Self {
            address: String::new(),
            uid,
            gid,
            max_recv_message_size: 16 << 20,
            max_send_message_size: 16 << 20,
        }
    }
}

impl Default for TtrpcServer {
    fn default() -> Self {
        let (uid, gid) = own_ids();
        Self { address: String::new(), uid, gid }
    }
}

impl Default for DiffService {
    fn default() -> Self {
        Self { default: vec!["walking".to_owned()], sync_fs: false }
    }
}
