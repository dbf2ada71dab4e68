//! `network`: what containers are connected by.

use berth_net::Subnet;
use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::named::{Inspect, List, Rm};
use super::options::pairs;
use super::system::told;
use crate::context::Context;
use crate::failure::{Failure, Outcome};
use crate::output;

/// Commands about networks.
#[derive(Debug, Subcommand)]
pub(crate) enum Network {
    /// Make a network
    Create(Create),
    /// List networks
    #[command(visible_alias = "list")]
    Ls(List),
    /// Show details of networks
    Inspect(Inspect),
    /// Remove networks
    #[command(visible_alias = "remove")]
    Rm(Rm),
    /// Remove networks that no container is on
    Prune(Prune),
}

/// Flags of `network create`.
#[derive(Debug, Args)]
pub(crate) struct Create {
    /// Driver: bridge
    #[arg(short, long, default_value = "bridge", value_parser = ["bridge"])]
    driver: String,
    /// Subnet, such as 10.9.0.0/24; one of IPv6, too
    #[arg(long)]
    subnet: Vec<String>,
    /// Gateway of the subnet, in the order of the subnets
    #[arg(long)]
    gateway: Vec<String>,
    /// No way out of it
    #[arg(long)]
    internal: bool,
    /// com.docker.network.driver.mtu=BYTES, com.docker.network.bridge.name=NAME
    #[arg(short = 'o', long = "opt", value_name = "OPTION")]
    options: Vec<String>,
    /// Set a label
    #[arg(long)]
    label: Vec<String>,
    /// Name
    name: String,
}

/// Flags of `network prune`.
#[derive(Debug, Args)]
pub(crate) struct Prune {
    /// Ask nothing
    #[arg(short, long)]
    force: bool,
}

impl Network {
    pub(crate) async fn run(self, context: &Context) -> Outcome {
        match self {
            Self::Create(create) => create.run(context),
            Self::Ls(ls) => list(&ls, context),
            Self::Inspect(inspect) => inspect.run(|name| async move { Ok(describe(context, &name)?) }).await,
            Self::Rm(rm) => rm.run(|name| async move { context.workload.networks().remove(&name) }).await,
            Self::Prune(prune) => prune.run(context).await,
        }
    }
}

impl Create {
    fn run(self, context: &Context) -> Outcome {
        let mut network =
            berth_net::Network { name: self.name, internal: self.internal, ..berth_net::Network::default() };
        network.labels = pairs(&self.label);
        for (number, text) in self.subnet.iter().enumerate() {
            let subnet = Subnet::parse(text, self.gateway.get(number).map(String::as_str))?;
            network.subnets.push((subnet.to_string(), subnet.gateway.to_string()));
        }
        if self.gateway.len() > self.subnet.len() {
            return Err(Failure::new("every --gateway needs a --subnet"));
        }
        for (key, value) in pairs(&self.options) {
            match key.as_str() {
                "com.docker.network.driver.mtu" | "mtu" => {
                    network.mtu =
                        value.parse().map_err(|_| Failure::new(format!("invalid MTU {value:?}")))?;
                }
                "com.docker.network.bridge.name" if is_device_name(&value) => network.bridge = value,
                _ => return Err(Failure::new(format!("invalid network option {key}={value}"))),
            }
        }
        let made = context.workload.networks().create(network)?;
        output::line(&made.name)?;
        Ok(0)
    }
}

/// Whether the kernel takes it as the name of a device.
fn is_device_name(text: &str) -> bool {
    !text.is_empty()
        && text.len() < 16
        && !text.starts_with('.')
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte))
}

fn list(ls: &List, context: &Context) -> Outcome {
    let networks = context.workload.networks();
    networks.find(berth_net::DEFAULT)?;
    let mut rows: Vec<Value> = Vec::new();
    for network in networks.list()? {
        rows.push(json!({ "ID": network.name, "Name": network.name, "Driver": "bridge", "Scope": "local" }));
    }
    for name in ["host", "none"] {
        let driver = if name == "none" { "null" } else { name };
        rows.push(json!({ "ID": name, "Name": name, "Driver": driver, "Scope": "local" }));
    }
    rows.sort_by_key(|row| row["Name"].as_str().map(str::to_owned));
    let heads = &[("ID", "NETWORK ID"), ("Name", "NAME"), ("Driver", "DRIVER"), ("Scope", "SCOPE")];
    ls.print(&rows, "table {{.Name}}\t{{.Driver}}\t{{.Scope}}", heads)
}

fn describe(context: &Context, name: &str) -> berth_types::Result<Value> {
    if matches!(name, "host" | "none") {
        return Ok(json!({ "Name": name, "Id": name, "Scope": "local", "Driver": name, "Containers": {} }));
    }
    let networks = context.workload.networks();
    let network = networks.find(name)?;
    let config: Vec<Value> = network
        .subnets
        .iter()
        .map(|(subnet, gateway)| json!({ "Subnet": subnet, "Gateway": gateway }))
        .collect();
    let mut containers = serde_json::Map::new();
    for endpoint in networks.endpoints()?.into_iter().filter(|endpoint| endpoint.network == name) {
        let address = |four: bool| {
            let own = endpoint.addresses.iter().find(|(address, ..)| address.is_ipv4() == four);
            own.map(|(address, prefix, _)| format!("{address}/{prefix}")).unwrap_or_default()
        };
        let document = json!({
            "Name": endpoint.name, "MacAddress": endpoint.mac,
            "IPv4Address": address(true), "IPv6Address": address(false),
        });
        let id = endpoint.owner.rsplit_once('-').map_or(endpoint.owner.as_str(), |(_, id)| id).to_owned();
        containers.insert(id, document);
    }
    Ok(json!({
        "Name": network.name, "Id": network.name, "Scope": "local", "Driver": "bridge",
        "EnableIPv6": network.subnets.iter().any(|(subnet, _)| subnet.contains(':')),
        "IPAM": { "Driver": "default", "Config": config }, "Internal": network.internal,
        "Containers": containers,
        "Options": { "com.docker.network.bridge.name": network.bridge, "com.docker.network.driver.mtu": network.mtu },
        "Labels": network.labels,
    }))
}

impl Prune {
    async fn run(self, context: &Context) -> Outcome {
        let question = "This removes every network that no container is on. Go on?";
        if !self.force && !output::confirm(question)? {
            return Ok(0);
        }
        told("Deleted Networks:", &context.workload.prune_networks().await?)?;
        Ok(0)
    }
}
