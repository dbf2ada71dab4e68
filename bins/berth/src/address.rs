//! Which daemon, which namespace, which folders: flags, then the environment, then the defaults.

use std::path::{Path, PathBuf};

use berth_types::{Namespace, SnapshotterName};

use crate::cli::Global;
use crate::failure::Failure;

/// Where berthd answers.
pub(crate) const DEFAULT_ADDRESS: &str = "/run/berth/berth.sock";
/// Where our state lies.
const DEFAULT_DATA: &str = "/var/lib/berth";

/// A daemon and what belongs to it.
#[derive(Clone, Debug)]
pub(crate) struct Place {
    /// The daemon's socket.
    pub(crate) address: PathBuf,
    /// The folder of everything that only we keep.
    pub(crate) home: PathBuf,
    /// The namespace.
    pub(crate) namespace: Namespace,
    /// The snapshotter.
    pub(crate) snapshotter: SnapshotterName,
}

impl Place {
    /// The place that flags and environment name.
    pub(crate) fn of(global: &Global) -> Result<Self, Failure> {
        let env = |names: &[&str]| {
            names.iter().find_map(|name| std::env::var(name).ok().filter(|value| !value.is_empty()))
        };
        let address = global
            .address
            .clone()
            .or_else(|| env(&["BERTH_ADDRESS", "CONTAINERD_ADDRESS"]))
            .unwrap_or_else(|| DEFAULT_ADDRESS.to_owned());
        let address = PathBuf::from(address.strip_prefix("unix://").unwrap_or(&address));
        let namespace =
            global.namespace.clone().or_else(|| env(&["BERTH_NAMESPACE", "CONTAINERD_NAMESPACE"]));
        let snapshotter =
            global.snapshotter.clone().or_else(|| env(&["BERTH_SNAPSHOTTER", "CONTAINERD_SNAPSHOTTER"]));
        let home = match global.data_root.clone().or_else(|| env(&["BERTH_DATA_ROOT"])) {
            Some(root) => PathBuf::from(root),
            None => {
                berth_workload::Home::root_for(Path::new(DEFAULT_DATA), &address, Path::new(DEFAULT_ADDRESS))
            }
        };
        Ok(Self {
            address,
            home,
            namespace: namespace.as_deref().unwrap_or("default").parse()?,
            snapshotter: snapshotter.as_deref().unwrap_or("overlayfs").parse()?,
        })
    }

    /// Whether it is the daemon that we start ourselves.
    pub(crate) fn is_default(&self) -> bool {
        self.address == Path::new(DEFAULT_ADDRESS)
    }
}
