//! A namespace on networks: what is asked for, and what came of it.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::PathBuf;

use serde_json::{Map, Value, json};

use crate::outcome::{Device, Dns, Outcome, Route, split};

/// What shall be on the networks: a pod's network namespace.
#[derive(Clone, Debug, Default)]
pub struct Attachment {
    /// The container's id, as plugins know it.
    pub container: String,
    /// The file that holds the namespace; empty when it is gone, as a removal allows.
    pub namespace: PathBuf,
    /// Names and values for `CNI_ARGS`.
    pub arguments: Vec<(String, String)>,
    /// What the runtime has for plugins that ask for it: `portMappings`, `bandwidth`, `dns` and so on.
    pub capabilities: Map<String, Value>,
}

/// What the networks made of it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Attached {
    /// By network: its name, the device in the namespace and the result of its last plugin.
    pub results: Vec<(String, String, Outcome)>,
}

/// What is known of a device.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Interface {
    /// The device.
    pub device: Device,
    /// Its addresses, each with its gateway.
    pub addresses: Vec<(IpAddr, Option<IpAddr>)>,
}

impl Attached {
    /// All devices by name. Addresses of a result without devices are those of the device that was asked for.
    pub fn interfaces(&self) -> BTreeMap<String, Interface> {
        let mut all: BTreeMap<String, Interface> = BTreeMap::new();
        for (_, asked, outcome) in &self.results {
            all.entry(asked.clone()).or_default();
            for device in &outcome.interfaces {
                all.entry(device.name.clone()).or_default().device = device.clone();
            }
            for ip in &outcome.ips {
                let Some((address, _)) = split(&ip.address) else { continue };
                let number = ip.interface.and_then(|number| usize::try_from(number).ok());
                let device = number.and_then(|number| outcome.interfaces.get(number));
                let name = device.map_or(asked, |device| &device.name);
                let gateway = ip.gateway.as_deref().and_then(|gateway| gateway.parse().ok());
                all.entry(name.clone()).or_default().addresses.push((address, gateway));
            }
        }
        all
    }

    /// The addresses of one device, in the order of the results.
    pub fn addresses(&self, device: &str) -> Vec<IpAddr> {
        let interface = self.interfaces().remove(device).unwrap_or_default();
        interface.addresses.into_iter().map(|(address, _)| address).collect()
    }

    /// The name service of every network.
    pub fn dns(&self) -> Vec<&Dns> {
        self.results.iter().map(|(.., outcome)| &outcome.dns).collect()
    }

    /// The routes of every network.
    pub fn routes(&self) -> Vec<&Route> {
        self.results.iter().flat_map(|(.., outcome)| &outcome.routes).collect()
    }

    /// The same as clients of containerd read it in a pod's verbose status.
    pub fn info(&self) -> Value {
        let interfaces: Map<String, Value> = self
            .interfaces()
            .into_iter()
            .map(|(name, interface)| {
                let addresses: Vec<Value> = interface
                    .addresses
                    .iter()
                    .map(|(address, gateway)| {
                        let gateway = gateway.map(|gateway| gateway.to_string()).unwrap_or_default();
                        json!({"IP": address, "Gateway": gateway})
                    })
                    .collect();
                let Device { mac, sandbox, socket_path, pci_id, .. } = interface.device;
                let addresses = if addresses.is_empty() { Value::Null } else { addresses.into() };
                let value = json!({
                    "IPConfigs": addresses, "Mac": mac, "Sandbox": sandbox, "PciID": pci_id, "SocketPath": socket_path,
                });
                (name, value)
            })
            .collect();
        let routes = self.routes();
        let routes = if routes.is_empty() { Value::Null } else { json!(routes) };
        json!({"Interfaces": interfaces, "DNS": self.dns(), "Routes": routes})
    }

    /// As it can be stored and read again.
    pub fn to_value(&self) -> Value {
        json!(self.results)
    }

    /// What [`Attached::to_value`] wrote; none if it is something else.
    pub fn from_value(value: &Value) -> Option<Self> {
        serde_json::from_value(value.clone()).ok().map(|results| Self { results })
    }
}
