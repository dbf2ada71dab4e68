//! What somebody asked for when they made a container, in the words of Docker's API. It is kept with the
//! container's record (as an extension, which no limit of labels cuts), and is what `inspect` shows.

use std::collections::BTreeMap;

use berth_types::{Any, Container, Error, Result};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::labels;
use crate::network::PortBinding;
use crate::parse::{
    CdiRequest, DeviceRequest, MountKind, MountRequest, RestartPolicy, Throttle, Ulimit, Weight,
};

/// Everything that a container was made from.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Definition {
    /// What runs in it.
    pub config: Config,
    /// How it sits on the host.
    pub host: HostConfig,
    /// The digest of the image's target.
    pub image_id: String,
    /// What is mounted, once it was clear where it lies.
    pub mounts: Vec<MountPoint>,
    /// A folder that is the root filesystem as it is, instead of an image.
    pub rootfs: Option<String>,
    /// Groups beside the user's own, as numbers, for processes that are added later.
    pub user: berth_rootfs::Identity,
}

/// What runs in a container.
#[expect(missing_docs, reason = "the fields are those of Docker's API")]
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Config {
    pub hostname: String,
    pub domainname: String,
    pub user: String,
    pub attach_stdin: bool,
    pub attach_stdout: bool,
    pub attach_stderr: bool,
    pub tty: bool,
    pub open_stdin: bool,
    pub stdin_once: bool,
    pub env: Vec<String>,
    pub cmd: Option<Vec<String>>,
    pub image: String,
    pub volumes: Option<BTreeMap<String, Value>>,
    pub working_dir: String,
    pub entrypoint: Option<Vec<String>>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub exposed_ports: BTreeMap<String, Value>,
    pub labels: BTreeMap<String, String>,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub stop_signal: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stop_timeout: Option<i64>,
}

/// How a container sits on its host.
#[expect(missing_docs, reason = "the fields are those of Docker's API")]
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct HostConfig {
    pub binds: Vec<String>,
    #[serde(rename = "ContainerIDFile")]
    pub container_id_file: String,
    pub log_config: LogConfig,
    pub network_mode: String,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub port_bindings: BTreeMap<String, Vec<PortBinding>>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub publish_all_ports: bool,
    /// Ours, with the three that follow: Docker keeps them with the network.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub ip_address: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub ip6_address: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub mac_address: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub network_aliases: Vec<String>,
    pub restart_policy: RestartPolicy,
    pub auto_remove: bool,
    pub volumes_from: Vec<String>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
    pub cap_add: Vec<String>,
    pub cap_drop: Vec<String>,
    pub cgroupns_mode: String,
    pub dns: Vec<String>,
    pub dns_options: Vec<String>,
    pub dns_search: Vec<String>,
    pub extra_hosts: Vec<String>,
    pub group_add: Vec<String>,
    pub ipc_mode: String,
    pub oom_score_adj: i32,
    pub pid_mode: String,
    pub privileged: bool,
    pub readonly_rootfs: bool,
    pub security_opt: Vec<String>,
    #[serde(rename = "UTSMode")]
    pub uts_mode: String,
    pub shm_size: u64,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub sysctls: BTreeMap<String, String>,
    pub runtime: String,
    pub cpu_shares: u64,
    pub memory: i64,
    pub nano_cpus: i64,
    pub cgroup_parent: String,
    pub blkio_weight: u16,
    pub blkio_weight_device: Vec<Weight>,
    pub blkio_device_read_bps: Vec<Throttle>,
    pub blkio_device_write_bps: Vec<Throttle>,
    #[serde(rename = "BlkioDeviceReadIOps")]
    pub blkio_device_read_iops: Vec<Throttle>,
    #[serde(rename = "BlkioDeviceWriteIOps")]
    pub blkio_device_write_iops: Vec<Throttle>,
    pub cpu_period: u64,
    pub cpu_quota: i64,
    pub cpu_realtime_period: u64,
    pub cpu_realtime_runtime: i64,
    pub cpuset_cpus: String,
    pub cpuset_mems: String,
    pub devices: Vec<DeviceRequest>,
    pub device_cgroup_rules: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub device_requests: Vec<CdiRequest>,
    pub memory_reservation: i64,
    pub memory_swap: i64,
    pub memory_swappiness: Option<u64>,
    pub oom_kill_disable: bool,
    pub pids_limit: Option<i64>,
    pub ulimits: Vec<Ulimit>,
    pub mounts: Vec<MountRequest>,
    pub init: Option<bool>,
    /// Ours: systempaths=unconfined is among the security options in Docker's API as well.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub umask: Option<u32>,
    /// Ours: unified cgroup keys.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub cgroup_conf: BTreeMap<String, String>,
}

/// Where output is kept.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct LogConfig {
    /// `json-file` or `none`.
    #[serde(rename = "Type")]
    pub kind: String,
    /// `max-size`, `max-file` …
    pub config: BTreeMap<String, String>,
}

impl Default for LogConfig {
    fn default() -> Self {
        Self { kind: "json-file".to_owned(), config: BTreeMap::new() }
    }
}

/// A mount of a container, as `inspect` lists it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct MountPoint {
    /// What.
    #[serde(rename = "Type")]
    pub kind: MountKind,
    /// The volume's name.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub name: String,
    /// The path on the host.
    pub source: String,
    /// The path in the container.
    pub destination: String,
    /// `local` for a volume.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub driver: String,
    /// What the user wrote.
    pub mode: String,
    /// Whether it can be written to.
    #[serde(rename = "RW")]
    pub rw: bool,
    /// How mounts beneath it travel.
    pub propagation: String,
    /// Options of the mount as a runtime takes them.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub options: Vec<String>,
    /// Whether it is an anonymous volume that goes with the container.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub anonymous: bool,
    /// Whether a new volume gets what the image has there.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub copy_up: bool,
}

impl Definition {
    /// The description of a container, none if somebody else made it.
    pub fn of(container: &Container) -> Result<Option<Self>> {
        let Some(any) = container.extensions.get(labels::DEFINITION) else { return Ok(None) };
        serde_json::from_slice(&any.value).map(Some).map_err(|source| {
            Error::data_loss(format!("the description of container {} cannot be read", container.id))
                .caused_by(source)
        })
    }

    /// The description as it is kept.
    pub fn to_any(&self) -> Any {
        let json = serde_json::to_vec(self).expect("strings and numbers always serialize");
        Any::new(labels::DEFINITION, json)
    }
}

/// The network a container has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Network {
    /// The host's.
    Host,
    /// Its own, with nothing but a loopback device.
    None,
    /// Its own, on a network that has the name.
    Named,
    /// That of another container.
    Container,
}

impl HostConfig {
    /// The kind of network.
    pub fn network(&self) -> Result<Network> {
        match self.network_mode.as_str() {
            "" | "none" => Ok(Network::None),
            "host" => Ok(Network::Host),
            mode => match mode.strip_prefix("container:") {
                Some("") => Err(Error::invalid_argument("--network container: names no container")),
                Some(_) => Ok(Network::Container),
                None => Ok(Network::Named),
            },
        }
    }

    /// The name of its network.
    pub fn network_name(&self) -> &str {
        match self.network_mode.as_str() {
            "" => "none",
            "default" => berth_net::DEFAULT,
            name => name,
        }
    }
}
