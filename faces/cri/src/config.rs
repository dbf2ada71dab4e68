//! What is configured.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use berth_core::UnpackedBlobs;
use berth_oci::runtime::Spec;
use berth_types::{Error, Result, RuntimeInfo, SnapshotterName};

/// What of containerd's CRI tables is heeded, and where things are.
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
    /// What becomes of the layers' blobs of an image that is unpacked.
    pub blobs: UnpackedBlobs,
    /// Images that a kubelet must not remove, by what they are for. `sandbox` is that of pods' own containers.
    pub pinned_images: BTreeMap<String, String>,
    /// How long a pull may go on without a byte; zero for ever.
    pub pull_patience: Duration,
    /// The version that the runtime says it has.
    pub version: String,
    /// Where streams of commands, containers and ports come in.
    pub streaming: berth_streaming::Config,
    /// What pods need.
    pub pods: Pods,
    /// The plugins of the Node Resource Interface; none where they are disabled.
    pub nri: Option<berth_nri::Config>,
}

/// What of `[plugins.'io.containerd.cri.v1.runtime']` is heeded, and where things are.
#[derive(Clone, Debug)]
pub struct Pods {
    /// What of pods outlives the machine's start.
    pub root: PathBuf,
    /// What of pods does not.
    pub state: PathBuf,
    /// The bundles of the namespace's tasks.
    pub bundles: PathBuf,
    /// The folder in which network namespaces are held.
    pub network_namespaces: PathBuf,
    /// berth's shim: under the name `pause` it is the first process of pods that share their process ids, and it keeps
    /// the logs of containers of other shims.
    pub shim: PathBuf,
    /// The handler of pods that name none.
    pub default_handler: String,
    /// How pods can be run.
    pub handlers: BTreeMap<String, Arc<Handler>>,
    /// The networks of pods, unless their handler has its own.
    pub network: Network,
    /// Which address of a pod comes first.
    pub address_preference: AddressPreference,
    /// The longest piece of a line in a log, in bytes; zero for the longest that is kept together.
    pub log_line: usize,
    /// Whether a pod's processes may use ports below 1024.
    pub unprivileged_ports: bool,
    /// Whether a pod's processes may ping.
    pub unprivileged_icmp: bool,
    /// The profile of containers that name none; none for no filter.
    pub unset_seccomp: Option<String>,
    /// Whether a container's OOM score may not be below the daemon's.
    pub restrict_oom_score: bool,
    /// Whether limits of huge pages are passed over.
    pub disable_hugetlb: bool,
    /// Whether containers may be saved.
    pub checkpoints: bool,
    /// Whether classes of block I/O that containers ask for are passed over.
    pub ignore_block_io_classes: bool,
    /// Whether classes of RDT that the machine does not have are passed over.
    pub ignore_rdt_classes: bool,
    /// Whether volumes that an image names are passed over.
    pub ignore_image_volumes: bool,
    /// Whether devices belong to the user of the container that gets them.
    pub device_ownership_from_user: bool,
    /// Whether AppArmor is not used.
    pub disable_apparmor: bool,
    /// Whether SELinux is used.
    pub enable_selinux: bool,
    /// How long the output of a command that has ended is waited for; zero for ever.
    pub drain_exec: Duration,
    /// The folders of CDI specifications; empty when devices cannot be named by them.
    pub cdi_folders: Vec<PathBuf>,
}

/// A way of running pods (a runtime class' handler).
#[derive(Clone, Debug)]
pub struct Handler {
    /// Its name.
    pub name: String,
    /// The shim and what it is told.
    pub runtime: RuntimeInfo,
    /// The shim's program, if it is not found by the runtime's name.
    pub runtime_path: String,
    /// Whether it is berth's own shim, which keeps logs, lets people attach and needs no first process in a pod.
    pub is_own: bool,
    /// Who runs its pods; none for this interface itself.
    pub controller: Option<String>,
    /// Whether each of its pods has a container of the image for that as its first process, as with containerd.
    pub pause_container: bool,
    /// Whether systemd makes the cgroups.
    pub systemd_cgroup: bool,
    /// The annotations of a pod, as shell patterns, that the runtime is told.
    pub pod_annotations: Vec<String>,
    /// The same for annotations of a container.
    pub container_annotations: Vec<String>,
    /// Whether privileged containers do not get the host's devices.
    pub privileged_without_host_devices: bool,
    /// Whether those may use any device all the same.
    pub all_devices_allowed: bool,
    /// Whether containers may write their cgroup's files.
    pub cgroup_writable: bool,
    /// What the specification of a container starts from.
    pub base_spec: Option<Arc<Spec>>,
    /// Whose snapshots its containers have; none for that of the images.
    pub snapshotter: Option<SnapshotterName>,
    /// Its own networks.
    pub network: Option<Network>,
}

/// Where networks are described.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Network {
    /// The folder of configurations.
    pub conf_dir: PathBuf,
    /// The folders of plugins.
    pub bin_dirs: Vec<PathBuf>,
    /// How many configurations count; all for 0.
    pub max_conf_num: usize,
    /// Whether one network comes after the other.
    pub is_serial: bool,
    /// Whether networks of well-known plugins are made without them.
    pub in_process: berth_cni::InProcess,
}

/// Which address of a pod comes first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum AddressPreference {
    /// The first of version 4.
    #[default]
    V4,
    /// The first of version 6.
    V6,
    /// The first that the network gives.
    AsGiven,
}

impl AddressPreference {
    /// The addresses, the preferred one first and the others as they were.
    pub(crate) fn order(self, mut addresses: Vec<IpAddr>) -> Vec<IpAddr> {
        let first = match self {
            Self::V4 => addresses.iter().position(IpAddr::is_ipv4),
            Self::V6 => addresses.iter().position(IpAddr::is_ipv6),
            Self::AsGiven => None,
        };
        if let Some(first) = first {
            addresses[..=first].rotate_right(1);
        }
        addresses
    }
}

impl Pods {
    /// The handler that a request names; the default one if it names none.
    pub(crate) fn handler(&self, name: &str) -> Result<Arc<Handler>> {
        let wanted = if name.is_empty() { &self.default_handler } else { name };
        self.handlers.get(wanted).cloned().ok_or_else(|| {
            let known: Vec<&str> = self.handlers.keys().map(String::as_str).collect();
            Error::not_found(format!(
                "no runtime for {wanted:?} is configured: there are {} (a table of \
                 plugins.\"io.containerd.cri.v1.runtime\".containerd.runtimes adds one)",
                known.join(", ")
            ))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_preferred_address_comes_first_and_the_others_stay_in_order() {
        let addresses: Vec<IpAddr> =
            ["fd00::1", "fd00::2", "10.0.0.1", "10.0.0.2"].map(|text| text.parse().unwrap()).into();
        let order = |preference: AddressPreference| {
            let ordered = preference.order(addresses.clone());
            ordered.iter().map(ToString::to_string).collect::<Vec<_>>()
        };
        assert_eq!(order(AddressPreference::V4), ["10.0.0.1", "fd00::1", "fd00::2", "10.0.0.2"]);
        assert_eq!(order(AddressPreference::V6), ["fd00::1", "fd00::2", "10.0.0.1", "10.0.0.2"]);
        assert_eq!(order(AddressPreference::AsGiven), ["fd00::1", "fd00::2", "10.0.0.1", "10.0.0.2"]);
    }
}
