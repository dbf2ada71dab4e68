//! The network of a container: made with it, there for every start, and gone with it.
//!
//! The namespace is held by a file and not by a process, so whatever is killed, the container finds its network at
//! the next start; berth-net's record of it is on disk, so it is made again after a start of the machine.

use std::fmt::Write;
use std::fs;
use std::path::PathBuf;

use berth_net::{Endpoint, Networks, PortMapping};
use berth_types::{ContainerId, Error, Namespace, Result};
use serde::{Deserialize, Serialize};

use crate::{Config, CreateRequest, HostConfig, Network, Workload, files};

/// What ends each line of a hosts file that is ours to change.
const MARK: &str = "\t# berth";

/// Where a port of a container is published, as Docker writes it.
#[expect(missing_docs, reason = "the fields are those of Docker's API")]
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct PortBinding {
    pub host_ip: String,
    pub host_port: String,
}

/// The network that a container was given.
#[derive(Clone, Debug, Default)]
pub(crate) struct Given {
    /// Its namespace's file, if it joins one.
    pub(crate) namespace: Option<PathBuf>,
    /// Its endpoint, if it has one of its own.
    pub(crate) endpoint: Option<Endpoint>,
    /// The folder of the container whose network it shares.
    pub(crate) shared: Option<PathBuf>,
}

impl Workload {
    /// The networks of this host.
    pub fn networks(&self) -> Networks {
        self.home.networks()
    }

    /// A container's place on its network, none if it has none.
    pub fn endpoint(&self, id: &ContainerId) -> Result<Option<Endpoint>> {
        self.networks().endpoint(&owner(&self.scope.namespace, id))
    }

    /// Puts a container that is being made on its network.
    pub(crate) async fn join_network(
        &self,
        id: &ContainerId,
        name: &str,
        request: &CreateRequest,
    ) -> Result<Given> {
        let host = &request.host;
        match host.network()? {
            Network::Host | Network::None => {
                if !host.port_bindings.is_empty() && host.network()? == Network::None {
                    tracing::warn!("published ports have no effect without a network");
                }
                Ok(Given::default())
            }
            Network::Container => {
                let peer = host.network_mode.trim_start_matches("container:");
                if !host.port_bindings.is_empty() {
                    return Err(Error::invalid_argument(
                        "conflicting options: port publishing and the container type network mode",
                    ));
                }
                let found = self.find(peer).await?;
                let peer = &found.container.id;
                let namespace = match self.endpoint(peer)? {
                    Some(endpoint) => endpoint.namespace,
                    None => PathBuf::from(format!("/proc/{}/ns/net", self.running_pid(peer).await?)),
                };
                Ok(Given {
                    namespace: Some(namespace),
                    endpoint: None,
                    shared: Some(self.home.container(peer)),
                })
            }
            Network::Named => {
                let wanted = wanted(&owner(&self.scope.namespace, id), name, &request.config, host)?;
                let endpoint = self.networks().attach(wanted)?;
                Ok(Given {
                    namespace: Some(endpoint.namespace.clone()),
                    endpoint: Some(endpoint),
                    shared: None,
                })
            }
        }
    }

    /// Makes sure of a container's network before it is started again.
    pub(crate) fn ready_network(&self, id: &ContainerId) -> Result<()> {
        self.networks().ensure(&owner(&self.scope.namespace, id)).map(drop)
    }

    /// Takes a container off its network; being on none is fine.
    pub(crate) fn leave_network(&self, id: &ContainerId) -> Result<()> {
        let owner = owner(&self.scope.namespace, id);
        let networks = self.networks();
        let Some(endpoint) = networks.endpoint(&owner)? else { return Ok(()) };
        networks.detach(&owner)?;
        self.tell_neighbours(&endpoint.network)
    }

    /// Writes into the hosts files of a network's containers who is on it. The network that everybody is on by
    /// default has no names, as with Docker.
    pub(crate) fn tell_neighbours(&self, network: &str) -> Result<()> {
        if network == berth_net::DEFAULT {
            return Ok(());
        }
        let networks = self.networks();
        let _lock = networks.lock()?;
        let all = networks.endpoints()?;
        let on: Vec<&Endpoint> = all.iter().filter(|endpoint| endpoint.network == network).collect();
        let mut lines = String::new();
        for endpoint in &on {
            let names: Vec<&str> =
                std::iter::once(&endpoint.name).chain(&endpoint.aliases).map(String::as_str).collect();
            for (address, ..) in &endpoint.addresses {
                let _ = writeln!(lines, "{address}\t{}{MARK}", names.join(" "));
            }
        }
        for endpoint in &on {
            let Some(id) = self.own(endpoint) else { continue };
            let path = self.home.container(&id).join("hosts");
            // A container that is about to be made or removed has no file, and needs none; and one that filled its
            // file gets no more.
            let Some(text) = files::read_containers(&path) else { continue };
            let own = text.lines().filter(|line| !line.ends_with(MARK));
            let text: String = own.map(|line| format!("{line}\n")).chain([lines.clone()]).collect();
            // In place: the file is mounted in the container.
            fs::write(&path, text)
                .map_err(|error| Error::io(format!("cannot write {}", path.display()), error))?;
        }
        Ok(())
    }

    /// The container of an endpoint, if it is one of this namespace.
    fn own(&self, endpoint: &Endpoint) -> Option<ContainerId> {
        endpoint.owner.strip_prefix(&owner_prefix(&self.scope.namespace)).and_then(|id| id.parse().ok())
    }

    /// Removes networks that nobody is on, and what containers that are gone left on any.
    pub async fn prune_networks(&self) -> Result<Vec<String>> {
        let networks = self.networks();
        // In this order: whoever is gone by now has made the container, or never will.
        let mut left = networks.endpoints()?;
        left.retain(|endpoint| !endpoint.has_maker());
        let rows = self.list().await?;
        networks.collect(&|endpoint| {
            // Of other namespaces and daemons, nothing is known here.
            let own = self.own(endpoint).filter(|id| self.home.container(id).exists());
            let lives = own.is_none_or(|id| rows.iter().any(|row| row.container.id == id));
            lives || left.iter().all(|other| other.owner != endpoint.owner)
        })?;
        let used = networks.endpoints()?;
        let mut removed = Vec::new();
        for network in networks.list()? {
            let free = used.iter().all(|endpoint| endpoint.network != network.name);
            if free && network.name != berth_net::DEFAULT {
                networks.remove(&network.name)?;
                removed.push(network.name);
            }
        }
        Ok(removed)
    }
}

impl HostConfig {
    /// Published ports, from what Docker's API has for them.
    pub fn published(&self) -> Result<Vec<PortMapping>> {
        let mut ports = Vec::new();
        for (port, bindings) in &self.port_bindings {
            for PortBinding { host_ip, host_port } in bindings {
                let address = if host_ip.contains(':') { format!("[{host_ip}]") } else { host_ip.clone() };
                ports.extend(PortMapping::parse(&format!("{address}:{host_port}:{port}"))?);
            }
        }
        Ok(ports)
    }

    /// Publishes one more port.
    pub fn publish(&mut self, port: &PortMapping) {
        self.port_bindings.entry(port.inner()).or_default().push(binding(port, String::new()));
    }
}

/// A port as Docker's API has it; 0 is none yet.
pub(crate) fn binding(port: &PortMapping, any: String) -> PortBinding {
    PortBinding {
        host_ip: port.host_ip.map_or(any, |address| address.to_string()),
        host_port: if port.host_port == 0 { String::new() } else { port.host_port.to_string() },
    }
}

fn owner_prefix(namespace: &Namespace) -> String {
    format!("{namespace}-")
}

fn owner(namespace: &Namespace, id: &ContainerId) -> String {
    format!("{}{id}", owner_prefix(namespace))
}

fn wanted(owner: &str, name: &str, config: &Config, host: &HostConfig) -> Result<Endpoint> {
    let mut ports = host.published()?;
    if host.publish_all_ports {
        for port in config.exposed_ports.keys() {
            ports.extend(PortMapping::parse(port)?);
        }
    }
    let addresses = [&host.ip_address, &host.ip6_address];
    let wanted = addresses.into_iter().filter(|text| !text.is_empty()).map(|text| {
        text.parse().map_err(|_| Error::invalid_argument(format!("invalid IP address {text:?}")))
    });
    if !host.mac_address.is_empty() && !berth_net::is_hardware_address(&host.mac_address) {
        return Err(Error::invalid_argument(format!("invalid MAC address {:?}", host.mac_address)));
    }
    let mut aliases = host.network_aliases.clone();
    aliases.push(config.hostname.clone());
    aliases.retain(|alias| !alias.is_empty() && alias != name);
    if let Some(bad) = aliases.iter().find(|alias| alias.contains(char::is_whitespace) || alias.contains('#'))
    {
        return Err(Error::invalid_argument(format!("invalid network alias {bad:?}")));
    }
    Ok(Endpoint {
        owner: owner.to_owned(),
        name: name.to_owned(),
        aliases,
        network: host.network_name().to_owned(),
        wanted: wanted.collect::<Result<_>>()?,
        mac: host.mac_address.clone(),
        ports,
        ..Endpoint::default()
    })
}
