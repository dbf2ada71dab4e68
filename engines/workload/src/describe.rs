//! A container in the form of Docker's API, as `inspect` prints it.

use std::collections::BTreeMap;

use berth_net::Endpoint;
use berth_types::Result;
use serde::Serialize;
use serde_json::Value;

use crate::network::binding;
use crate::{Config, Definition, Found, HostConfig, MountPoint, Status, Workload, human, labels};

const NEVER: &str = "0001-01-01T00:00:00Z";

/// A container, in the order of fields that Docker has.
#[expect(missing_docs, reason = "the fields are those of Docker's API")]
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct ContainerDocument {
    pub id: String,
    pub created: String,
    pub path: String,
    pub args: Vec<String>,
    pub state: State,
    pub image: String,
    pub resolv_conf_path: String,
    pub hostname_path: String,
    pub hosts_path: String,
    pub log_path: String,
    pub name: String,
    pub restart_count: u32,
    pub driver: String,
    pub platform: String,
    pub mount_label: String,
    pub process_label: String,
    pub app_armor_profile: String,
    #[serde(rename = "ExecIDs")]
    pub exec_ids: Option<Vec<String>>,
    pub host_config: HostConfig,
    pub graph_driver: Value,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub size_rw: Option<u64>,
    pub mounts: Vec<MountPoint>,
    pub config: Config,
    pub network_settings: Value,
}

/// What a container is doing.
#[expect(missing_docs, reason = "the fields are those of Docker's API")]
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct State {
    pub status: String,
    pub running: bool,
    pub paused: bool,
    pub restarting: bool,
    #[serde(rename = "OOMKilled")]
    pub oom_killed: bool,
    pub dead: bool,
    pub pid: u32,
    pub exit_code: u32,
    pub error: String,
    pub started_at: String,
    pub finished_at: String,
}

impl Workload {
    /// Describes a container; its size, which takes a walk, only if asked for.
    pub async fn describe(&self, found: &Found, with_size: bool) -> Result<ContainerDocument> {
        let row = self.row_of(found.container.clone()).await?;
        let container = &row.container;
        let spec = found.spec().unwrap_or_default();
        let definition = &row.definition;
        let folder = self.home.container(&container.id);
        let file = |name: &str| {
            let path = folder.join(name);
            if path.exists() { path.to_string_lossy().into_owned() } else { String::new() }
        };
        let mut command = definition
            .config
            .entrypoint
            .iter()
            .flatten()
            .chain(definition.config.cmd.iter().flatten())
            .cloned();
        let process = spec.process.unwrap_or_default();
        let size_rw = if with_size { Some(self.size_of(container).await?) } else { None };
        Ok(ContainerDocument {
            id: container.id.to_string(),
            created: human::timestamp(container.created_at),
            path: command.next().unwrap_or_default(),
            args: command.collect(),
            state: state(&row),
            image: definition.image_id.clone(),
            resolv_conf_path: file("resolv.conf"),
            hostname_path: file("hostname"),
            hosts_path: file("hosts"),
            log_path: file(&format!("{}-json.log", container.id)),
            name: format!("/{}", found.name()),
            restart_count: container
                .labels
                .get(labels::RESTART_COUNT)
                .and_then(|count| count.parse().ok())
                .unwrap_or_default(),
            driver: container.snapshotter.clone(),
            platform: "linux".to_owned(),
            mount_label: spec.linux.map(|linux| linux.mount_label).unwrap_or_default(),
            process_label: process.selinux_label,
            app_armor_profile: process.apparmor_profile,
            exec_ids: None,
            host_config: definition.host.clone(),
            graph_driver: self.graph_driver(found).await,
            size_rw,
            mounts: shown(definition),
            config: Config { labels: own_labels(&container.labels), ..definition.config.clone() },
            network_settings: networks(&definition.host, self.endpoint(&container.id)?.as_ref()),
        })
    }

    async fn graph_driver(&self, found: &Found) -> Value {
        let mounts = self.rootfs_of(&found.container).await.unwrap_or_default();
        let mut data = serde_json::Map::new();
        for option in mounts.iter().flat_map(|mount| &mount.options) {
            let (key, name) = match option.split_once('=') {
                Some(("lowerdir", value)) => ("LowerDir", value),
                Some(("upperdir", value)) => ("UpperDir", value),
                Some(("workdir", value)) => ("WorkDir", value),
                _ => continue,
            };
            data.insert(key.to_owned(), name.into());
        }
        serde_json::json!({ "Name": found.container.snapshotter, "Data": data })
    }
}

/// The labels that a user or an image gave.
fn own_labels(all: &BTreeMap<String, String>) -> BTreeMap<String, String> {
    all.iter()
        .filter(|(key, _)| !labels::is_reserved(key))
        .map(|(key, value)| (key.clone(), value.clone()))
        .collect()
}

fn shown(definition: &Definition) -> Vec<MountPoint> {
    let mut points = definition.mounts.clone();
    for point in &mut points {
        point.options.clear();
        point.anonymous = false;
        point.copy_up = false;
    }
    points
}

fn state(row: &crate::Row) -> State {
    let exit = row.task.as_ref().and_then(|task| task.exit);
    let running = matches!(row.status, Status::Running | Status::Paused);
    State {
        status: row.status.word().to_owned(),
        running,
        paused: row.status == Status::Paused,
        restarting: row.status == Status::Restarting,
        oom_killed: false,
        dead: false,
        pid: row.task.as_ref().filter(|_| running).map_or(0, |task| task.pid),
        exit_code: match (row.status, exit) {
            (_, Some(exit)) => exit.status,
            (Status::Exited, None) => 255,
            _ => 0,
        },
        error: String::new(),
        started_at: row.started_at.map_or_else(|| NEVER.to_owned(), human::timestamp),
        finished_at: exit.map_or_else(|| NEVER.to_owned(), |exit| human::timestamp(exit.at)),
    }
}

fn networks(host: &HostConfig, endpoint: Option<&Endpoint>) -> Value {
    let mut ports = serde_json::Map::new();
    for port in endpoint.iter().flat_map(|endpoint| &endpoint.ports) {
        let list = ports.entry(port.inner()).or_insert_with(|| Value::Array(Vec::new()));
        if let Value::Array(list) = list {
            let binding = binding(port, "0.0.0.0".to_owned());
            list.push(serde_json::json!({ "HostIp": binding.host_ip, "HostPort": binding.host_port }));
        }
    }
    let of = |four: bool| {
        endpoint.iter().flat_map(|endpoint| &endpoint.addresses).find(move |a| a.0.is_ipv4() == four)
    };
    let (four, six) = (of(true), of(false));
    let text = |value: Option<&std::net::IpAddr>| value.map(ToString::to_string).unwrap_or_default();
    let facts = serde_json::json!({
        "Gateway": text(four.map(|(.., gateway)| gateway)),
        "IPAddress": text(four.map(|(address, ..)| address)),
        "IPPrefixLen": four.map_or(0, |(_, prefix, _)| *prefix),
        "IPv6Gateway": text(six.map(|(.., gateway)| gateway)),
        "GlobalIPv6Address": text(six.map(|(address, ..)| address)),
        "GlobalIPv6PrefixLen": six.map_or(0, |(_, prefix, _)| *prefix),
        "MacAddress": endpoint.map(|endpoint| endpoint.mac.as_str()).unwrap_or_default(),
    });
    let name = host.network_name();
    let mut network = serde_json::json!({
        "IPAMConfig": null, "Links": null, "Aliases": endpoint.map(|endpoint| &endpoint.aliases),
        "NetworkID": name, "EndpointID": endpoint.map(|endpoint| endpoint.owner.as_str()).unwrap_or_default(),
    });
    let mut settings = serde_json::json!({
        "SandboxKey": endpoint.map(|endpoint| endpoint.namespace.as_path()).unwrap_or(std::path::Path::new("")),
        "Ports": ports,
    });
    for document in [&mut network, &mut settings] {
        if let (Value::Object(document), Value::Object(facts)) = (document, &facts) {
            document.extend(facts.clone());
        }
    }
    settings["Networks"] = serde_json::json!({ name: network });
    settings
}
