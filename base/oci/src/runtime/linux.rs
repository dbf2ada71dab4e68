//! What a container has on Linux (runtime-spec, `config-linux.md`).

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{IdMapping, Resources, Seccomp, is_default, nullable};

/// Isolation and limits.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Linux {
    /// User ids of a new user namespace.
    #[serde(deserialize_with = "nullable", skip_serializing_if = "is_default")]
    pub uid_mappings: Vec<IdMapping>,
    /// Group ids of a new user namespace.
    #[serde(deserialize_with = "nullable", skip_serializing_if = "is_default")]
    pub gid_mappings: Vec<IdMapping>,
    /// Kernel parameters of its namespaces.
    #[serde(deserialize_with = "nullable", skip_serializing_if = "is_default")]
    pub sysctl: BTreeMap<String, String>,
    /// What its cgroup allows.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub resources: Option<Resources>,
    /// Its cgroup: a path, or `slice:prefix:name` for systemd.
    #[serde(deserialize_with = "nullable", skip_serializing_if = "is_default")]
    pub cgroups_path: String,
    /// Namespaces that it does not share with the runtime.
    #[serde(deserialize_with = "nullable", skip_serializing_if = "is_default")]
    pub namespaces: Vec<Namespace>,
    /// Device files beside the default ones.
    #[serde(deserialize_with = "nullable", skip_serializing_if = "is_default")]
    pub devices: Vec<Device>,
    /// Network devices of the host to move into it.
    #[serde(deserialize_with = "nullable", skip_serializing_if = "is_default")]
    pub net_devices: BTreeMap<String, NetDevice>,
    /// Which system calls it may make.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub seccomp: Option<Seccomp>,
    /// `shared`, `slave`, `private`, `unbindable`, each also with `r`.
    #[serde(deserialize_with = "nullable", skip_serializing_if = "is_default")]
    pub rootfs_propagation: String,
    /// Paths that it cannot read.
    #[serde(deserialize_with = "nullable", skip_serializing_if = "is_default")]
    pub masked_paths: Vec<String>,
    /// Paths that it cannot write.
    #[serde(deserialize_with = "nullable", skip_serializing_if = "is_default")]
    pub readonly_paths: Vec<String>,
    /// SELinux label of its mounts.
    #[serde(deserialize_with = "nullable", skip_serializing_if = "is_default")]
    pub mount_label: String,
    /// Cache and memory bandwidth.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub intel_rdt: Option<IntelRdt>,
    /// NUMA memory policy.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory_policy: Option<MemoryPolicy>,
    /// Execution domain.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub personality: Option<Personality>,
    /// Offsets of `monotonic` and `boottime` in a new time namespace.
    #[serde(deserialize_with = "nullable", skip_serializing_if = "is_default")]
    pub time_offsets: BTreeMap<String, TimeOffset>,
}

/// A namespace that the container gets: a new one, or an existing one by path.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Namespace {
    /// Which.
    #[serde(rename = "type", deserialize_with = "nullable")]
    pub kind: NamespaceKind,
    /// Of one to join; a new one is made when empty.
    #[serde(deserialize_with = "nullable", skip_serializing_if = "is_default")]
    pub path: String,
}

/// A device file.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Device {
    /// Inside the container.
    #[serde(deserialize_with = "nullable")]
    pub path: String,
    /// `c`, `u`, `b` or `p`.
    #[serde(rename = "type", deserialize_with = "nullable")]
    pub kind: String,
    /// Major number.
    #[serde(deserialize_with = "nullable")]
    pub major: i64,
    /// Minor number.
    #[serde(deserialize_with = "nullable")]
    pub minor: i64,
    /// Permission bits; 0666 when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub file_mode: Option<u32>,
    /// Owner.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub uid: Option<u32>,
    /// Group.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gid: Option<u32>,
}

/// A network device to move into the container.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct NetDevice {
    /// Its name there; kept when empty.
    #[serde(deserialize_with = "nullable", skip_serializing_if = "is_default")]
    pub name: String,
}

/// Intel Resource Director Technology (resctrl).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct IntelRdt {
    /// Class of service.
    #[serde(rename = "closID", deserialize_with = "nullable", skip_serializing_if = "is_default")]
    pub clos_id: String,
    /// Lines for the `schemata` file.
    #[serde(deserialize_with = "nullable", skip_serializing_if = "is_default")]
    pub schemata: Vec<String>,
    /// Line for the L3 cache.
    #[serde(deserialize_with = "nullable", skip_serializing_if = "is_default")]
    pub l3_cache_schema: String,
    /// Line for memory bandwidth.
    #[serde(deserialize_with = "nullable", skip_serializing_if = "is_default")]
    pub mem_bw_schema: String,
    /// Whether to monitor.
    #[serde(deserialize_with = "nullable", skip_serializing_if = "is_default")]
    pub enable_monitoring: bool,
}

/// NUMA policy of set_mempolicy(2).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct MemoryPolicy {
    /// `MPOL_…`.
    #[serde(deserialize_with = "nullable")]
    pub mode: String,
    /// List of nodes such as `0-1`.
    #[serde(deserialize_with = "nullable", skip_serializing_if = "is_default")]
    pub nodes: String,
    /// `MPOL_F_…`.
    #[serde(deserialize_with = "nullable", skip_serializing_if = "is_default")]
    pub flags: Vec<String>,
}

/// Execution domain of personality(2).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Personality {
    /// `LINUX` or `LINUX32`.
    #[serde(deserialize_with = "nullable")]
    pub domain: String,
    /// None are defined.
    #[serde(deserialize_with = "nullable", skip_serializing_if = "is_default")]
    pub flags: Vec<String>,
}

/// Offset of a clock.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct TimeOffset {
    /// Seconds.
    #[serde(deserialize_with = "nullable", skip_serializing_if = "is_default")]
    pub secs: i64,
    /// Nanoseconds.
    #[serde(deserialize_with = "nullable", skip_serializing_if = "is_default")]
    pub nanosecs: u32,
}

/// Kinds of namespaces(7).
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum NamespaceKind {
    /// Process ids.
    #[default]
    Pid,
    /// Network devices, addresses, ports.
    Network,
    /// Mounts.
    Mount,
    /// System V IPC and POSIX message queues.
    Ipc,
    /// Host and domain name.
    Uts,
    /// User and group ids, capabilities.
    User,
    /// The view of the cgroup tree.
    Cgroup,
    /// Monotonic and boot clocks.
    Time,
    /// One that this version does not know; a runtime refuses it.
    #[serde(untagged)]
    Other(String),
}

impl Linux {
    /// The namespace of this kind, when the container has its own.
    pub fn namespace(&self, kind: &NamespaceKind) -> Option<&Namespace> {
        self.namespaces.iter().find(|n| n.kind == *kind)
    }
}
