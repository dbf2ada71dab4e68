//! Endpoints: a container on a network.
//!
//! ```text
//!   attach   record ─▶ lease ─▶ bridge ─▶ namespace, pair, addresses, route ─▶ rules ─▶ record with the result
//!   detach   rules ─▶ pair ─▶ namespace ─▶ lease ─▶ record
//! ```
//!
//! The record is the first thing written and the last removed. So whoever is killed at whatever step, and even
//! when the machine starts again with nothing but its disk, detach finds all that may be there, and ensure makes
//! again what is missing, with the same address.

use std::collections::BTreeSet;
use std::io;
use std::net::IpAddr;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use berth_types::{Error, Result};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::filter;
use crate::lease::Leases;
use crate::link::{Link, Pair, Port, mac_text, parse_mac, random_mac, random_name};
use crate::namespace::{self, Namespace};
use crate::netlink::Socket;
use crate::network::{Network, Networks, read, read_all, remove, write};
use crate::port::{self, PortMapping};
use crate::subnet::Subnet;

/// The name of the device in the container.
pub const INTERFACE: &str = "eth0";

/// A container on a network: what is wanted, and what it got.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Endpoint {
    /// The container, in a form that no other on this host has.
    pub owner: String,
    /// Its name, and by which other names others find it.
    pub name: String,
    /// Further names.
    pub aliases: Vec<String>,
    /// The network.
    pub network: String,
    /// The addresses that were asked for.
    pub wanted: Vec<IpAddr>,
    /// The hardware address; of the kernel's choice until attached.
    pub mac: String,
    /// Published ports; each with a port of the host once attached.
    pub ports: Vec<PortMapping>,
    /// The namespace's file.
    pub namespace: PathBuf,
    /// The device on the bridge.
    pub device: String,
    /// The process that attaches: for as long as it lives, the container may be about to be made.
    pub maker: u32,
    /// The addresses, with the bits of their subnet and its gateway.
    pub addresses: Vec<(IpAddr, u8, IpAddr)>,
}

impl Networks {
    /// Puts a container on a network, in a namespace that is made for it. Nothing is left if that fails.
    pub fn attach(&self, mut endpoint: Endpoint) -> Result<Endpoint> {
        let network = self.find(&endpoint.network)?;
        let path = self.record(&endpoint.owner)?;
        {
            let _lock = self.lock()?;
            let others: Vec<(String, PortMapping)> = if endpoint.ports.is_empty() {
                Vec::new()
            } else {
                let others = self.endpoints()?.into_iter().filter(|other| other.owner != endpoint.owner);
                others
                    .flat_map(|other| other.ports.into_iter().map(move |port| (other.name.clone(), port)))
                    .collect()
            };
            endpoint.ports = port::settle(&endpoint.ports, &others)?;
            endpoint.namespace = self.run.join(&endpoint.owner);
            endpoint.device = random_name().map_err(|error| Error::io("cannot name a device", error))?;
            endpoint.maker = std::process::id();
            write(&path, &endpoint)?;
        }
        match self.bring_up(&network, endpoint.clone()) {
            Ok(endpoint) => {
                write(&path, &endpoint)?;
                Ok(endpoint)
            }
            Err(error) => {
                // What cannot be undone now stays in the record, for the next detach.
                let _ = self.detach(&endpoint.owner);
                Err(error.context(format!(
                    "cannot put container {} on network {}",
                    endpoint.name, endpoint.network
                )))
            }
        }
    }

    /// Makes sure that a container's network is there for its next start: after a start of the machine nothing
    /// of it is, and after a flush of the packet filter its rules are not. None for a container on no network.
    pub fn ensure(&self, owner: &str) -> Result<Option<Endpoint>> {
        let path = self.record(owner)?;
        let Some(endpoint) = read::<Endpoint>(&path)? else { return Ok(None) };
        let network = self.find(&endpoint.network)?;
        let wrong =
            |error| Error::io(format!("cannot look at the network of container {}", endpoint.name), error);
        let mut here = Socket::route().map_err(wrong)?;
        let whole = berth_sys::held::is_held(&endpoint.namespace)
            && !endpoint.addresses.is_empty()
            && here.link(&endpoint.device).map_err(wrong)?.is_some();
        if whole {
            filter(&network, &endpoint)?;
            return Ok(Some(endpoint));
        }
        here.delete_link(&endpoint.device).map_err(wrong)?;
        namespace::release(&endpoint.namespace)?;
        let endpoint = self.bring_up(&network, endpoint)?;
        write(&path, &endpoint)?;
        Ok(Some(endpoint))
    }

    /// The same for a record by its path, as a container's label has it.
    pub fn ensure_at(record: &Path) -> Result<Option<Endpoint>> {
        let wrong = || Error::invalid_argument(format!("{} is no endpoint's record", record.display()));
        let owner = record.file_stem().and_then(|name| name.to_str()).ok_or_else(wrong)?;
        let data = record.parent().and_then(Path::parent).ok_or_else(wrong)?;
        let Some(endpoint) = read::<Endpoint>(record)? else { return Ok(None) };
        let run = endpoint.namespace.parent().unwrap_or(data).to_owned();
        Self::new(data.to_owned(), run).ensure(owner)
    }

    /// Takes a container off its network, with all that is its own: whatever of it is missing is fine.
    pub fn detach(&self, owner: &str) -> Result<()> {
        let path = self.record(owner)?;
        let Some(endpoint) = read::<Endpoint>(&path)? else { return Ok(()) };
        let wrong = |what: &'static str| {
            let name = endpoint.name.clone();
            move |error| Error::io(format!("cannot remove the {what} of container {name}"), error)
        };
        filter::remove(owner).map_err(wrong("packet filter rules"))?;
        Socket::route()
            .and_then(|mut here| here.delete_link(&endpoint.device))
            .map_err(wrong("network device"))?;
        namespace::release(&endpoint.namespace)?;
        let leases = self.leases(&endpoint.network);
        if leases.exists() {
            Leases::lock(&leases)?.give_back(owner, INTERFACE)?;
        }
        remove(&path)
    }

    /// What a container has, none if it is on no network.
    pub fn endpoint(&self, owner: &str) -> Result<Option<Endpoint>> {
        read(&self.record(owner)?)
    }

    /// All containers on networks.
    pub fn endpoints(&self) -> Result<Vec<Endpoint>> {
        read_all(&self.data.join("endpoints"))
    }

    /// Where a container's record lies.
    pub fn record(&self, owner: &str) -> Result<PathBuf> {
        if owner.is_empty() || owner.len() > 200 || owner.starts_with('.') || owner.contains(['/', '\0']) {
            return Err(Error::invalid_argument(format!("{owner:?} cannot own an endpoint")));
        }
        Ok(self.data.join("endpoints").join(format!("{owner}.json")))
    }

    /// Looks whether all that an endpoint should have is there; the error says what is not.
    pub fn check(&self, owner: &str) -> Result<()> {
        let missing = |what: String| Error::failed_precondition(format!("endpoint {owner}: {what}"));
        let endpoint = self.endpoint(owner)?.ok_or_else(|| missing("there is no such endpoint".into()))?;
        let network = self.find(&endpoint.network)?;
        let wrong = |error| Error::io(format!("cannot look at endpoint {owner}"), error);
        let mut here = Socket::route().map_err(wrong)?;
        let bridge = here.link(&network.bridge).map_err(wrong)?;
        let bridge = bridge.ok_or_else(|| missing(format!("the bridge {} is gone", network.bridge)))?;
        let port = here.link(&endpoint.device).map_err(wrong)?;
        if !port.is_some_and(|port| port.is_up() && port.master == bridge.index) {
            return Err(missing(format!("{} is not on {}", endpoint.device, network.bridge)));
        }
        let inside = Namespace::open(&endpoint.namespace)?;
        let mut inside =
            inside.ok_or_else(|| missing(format!("{} is gone", endpoint.namespace.display())))?;
        if inside.inside.link(INTERFACE).map_err(wrong)?.is_none() {
            return Err(missing(format!("{INTERFACE} is gone")));
        }
        let held = Leases::lock(&self.leases(&network.name))?.of(owner, INTERFACE)?;
        if let Some((address, ..)) = endpoint.addresses.iter().find(|(address, ..)| !held.contains(address)) {
            return Err(missing(format!("the address {address} is not leased to it")));
        }
        let rules = filter::owners().map_err(wrong)?.iter().filter(|own| *own == owner).count();
        if rules < endpoint.addresses.len() * 3 {
            return Err(missing(format!("it has {rules} rules in the packet filter")));
        }
        Ok(())
    }

    /// Takes away what belongs to containers that are not there: endpoints, leases, rules. An endpoint whose maker
    /// lives is left alone. Answers whose it took.
    pub fn collect(&self, lives: &dyn Fn(&Endpoint) -> bool) -> Result<Vec<String>> {
        let mut gone = Vec::new();
        for endpoint in self.endpoints()? {
            if !lives(&endpoint) && !endpoint.has_maker() {
                self.detach(&endpoint.owner)?;
                gone.push(endpoint.name);
            }
        }
        let wrong = |error| Error::io("cannot look through the table inet berth", error);
        let _lock = self.lock()?;
        let known: BTreeSet<String> = self.endpoints()?.into_iter().map(|endpoint| endpoint.owner).collect();
        for network in self.list()?.iter().filter(|network| self.leases(&network.name).exists()) {
            let leases = Leases::lock(&self.leases(&network.name))?;
            for (address, text) in leases.all()? {
                let owner = text.split("\r\n").next().unwrap_or_default();
                if !known.contains(owner) {
                    filter::remove(owner).map_err(wrong)?;
                    leases.free(address)?;
                }
            }
        }
        // Rules that are left are those of networks in another folder, which share the table.
        if filter::owners().map_err(wrong)?.is_empty() {
            filter::remove_table().map_err(wrong)?;
        }
        Ok(gone)
    }

    fn bring_up(&self, network: &Network, mut endpoint: Endpoint) -> Result<Endpoint> {
        let subnets = network.parsed()?;
        let addresses = self.lease(network, &subnets, &endpoint)?;
        let wrong = |what: String| move |error: io::Error| Error::io(what, error);
        let mut here = Socket::route().map_err(wrong("cannot open a netlink socket".into()))?;
        let bridge = {
            let _lock = self.lock()?;
            gateway(&mut here, network, &subnets).map_err(wrong(format!(
                "cannot make the bridge {} (--network none or host needs none)",
                network.bridge
            )))?
        };
        let mut inside = Namespace::make(&endpoint.namespace)?;
        let device = endpoint.device.clone();
        let mut connect = || -> io::Result<String> {
            here.add_pair(&Pair {
                here: &device,
                there: INTERFACE,
                namespace: inside.file.as_fd(),
                bridge: bridge.index,
                mtu: network.mtu,
                mac: parse_mac(&endpoint.mac),
            })?;
            let port = here.link(&device)?.ok_or(io::ErrorKind::NotFound)?;
            here.set_port(port.index, Port { hairpin: true, isolated: false })?;
            if addresses.iter().any(|(address, _)| address.is_ipv6()) {
                inside.set(&[
                    ("/proc/sys/net/ipv6/conf/all/disable_ipv6".into(), "0"),
                    (format!("/proc/sys/net/ipv6/conf/{INTERFACE}/accept_ra").into(), "0"),
                ])?;
            }
            let own = inside.inside.link(INTERFACE)?.ok_or(io::ErrorKind::NotFound)?;
            inside.inside.set_up(own.index)?;
            for (address, subnet) in &addresses {
                inside.inside.add_address(own.index, *address, subnet.prefix)?;
                if !network.internal {
                    inside.inside.add_default_route(own.index, subnet.gateway)?;
                }
            }
            Ok(mac_text(own.mac))
        };
        endpoint.mac =
            connect().map_err(wrong(format!("cannot connect {device} to the bridge {}", network.bridge)))?;
        endpoint.addresses =
            addresses.iter().map(|(address, subnet)| (*address, subnet.prefix, subnet.gateway)).collect();
        filter(network, &endpoint)?;
        Ok(endpoint)
    }

    /// The addresses that an endpoint holds already, or new ones.
    fn lease(
        &self,
        network: &Network,
        subnets: &[Subnet],
        endpoint: &Endpoint,
    ) -> Result<Vec<(IpAddr, Subnet)>> {
        let leases = Leases::lock(&self.leases(&network.name))?;
        let held = leases.of(&endpoint.owner, INTERFACE)?;
        for wanted in &endpoint.wanted {
            if !subnets.iter().any(|subnet| subnet.contains(*wanted)) {
                return Err(Error::invalid_argument(format!(
                    "address {wanted} is in no subnet of network {}",
                    network.name
                )));
            }
        }
        let mut addresses = Vec::new();
        for (index, subnet) in subnets.iter().enumerate() {
            let own = held.iter().copied().find(|address| subnet.contains(*address));
            let wanted = endpoint.wanted.iter().copied().find(|address| subnet.contains(*address));
            let address = match own {
                Some(address) => address,
                None => lease(&leases, (index, subnet), &endpoint.owner, wanted)?,
            };
            addresses.push((address, *subnet));
        }
        Ok(addresses)
    }
}

impl Endpoint {
    /// Whether whoever attached it lives, and its container may be about to be made.
    pub fn has_maker(&self) -> bool {
        Path::new(&format!("/proc/{}", self.maker)).exists()
    }

    /// What CNI plugins answer to ADD (CNI 1.0, section 5), devices and addresses.
    pub fn result(&self, network: &Network) -> Value {
        let ips: Vec<Value> = self
            .addresses
            .iter()
            .map(|(address, prefix, gateway)| {
                json!({"interface": 2, "address": format!("{address}/{prefix}"), "gateway": gateway})
            })
            .collect();
        let routes: Vec<Value> = self
            .addresses
            .iter()
            .filter(|_| !network.internal)
            .map(|(address, ..)| json!({"dst": if address.is_ipv4() { "0.0.0.0/0" } else { "::/0" }}))
            .collect();
        let mac = |name: &str| {
            let link = Socket::route().and_then(|mut socket| socket.link(name));
            link.ok().flatten().map(|link| mac_text(link.mac)).unwrap_or_default()
        };
        json!({
            "cniVersion": "1.0.0",
            "interfaces": [
                {"name": network.bridge, "mac": mac(&network.bridge)},
                {"name": self.device, "mac": mac(&self.device)},
                {"name": INTERFACE, "mac": self.mac, "sandbox": self.namespace},
            ],
            "ips": ips,
            "routes": routes,
            "dns": {},
        })
    }
}

/// Takes an address of a subnet: the wanted one, or the next free one.
fn lease(
    leases: &Leases,
    (index, subnet): (usize, &Subnet),
    owner: &str,
    wanted: Option<IpAddr>,
) -> Result<IpAddr> {
    let owner = (owner, INTERFACE);
    if let Some(address) = wanted {
        if !subnet.contains(address) || address == subnet.gateway {
            return Err(Error::invalid_argument(format!(
                "address {address} is not one that {subnet} has for containers"
            )));
        }
        if !leases.take(index, owner, address)? {
            return Err(Error::failed_precondition(format!("address {address} is already in use")));
        }
        return Ok(address);
    }
    let next = leases.take_next((index, &[subnet.leasable()]), owner)?;
    next.map(|(address, _)| address).ok_or_else(|| {
        Error::new(
            berth_types::ErrorKind::ResourceExhausted,
            format!("no address of {subnet} is free: remove containers or make a larger network"),
        )
    })
}

/// The bridge of a network with its addresses, and the host as a router.
fn gateway(here: &mut Socket, network: &Network, subnets: &[Subnet]) -> io::Result<Link> {
    if let Some(bridge) = here.link(&network.bridge)?
        && bridge.is_bridge()
        && bridge.is_up()
    {
        return Ok(bridge);
    }
    if here.link(&network.bridge)?.is_none() {
        here.add_bridge(&network.bridge, network.mtu, random_mac()?)?;
    }
    let bridge = here.link(&network.bridge)?.ok_or(io::ErrorKind::NotFound)?;
    if !bridge.is_bridge() {
        return Err(io::Error::new(io::ErrorKind::AlreadyExists, "a device of this name is no bridge"));
    }
    for subnet in subnets {
        let forward = if subnet.base.is_ipv4() {
            "/proc/sys/net/ipv4/ip_forward"
        } else {
            std::fs::write(format!("/proc/sys/net/ipv6/conf/{}/accept_dad", network.bridge), "0")?;
            "/proc/sys/net/ipv6/conf/all/forwarding"
        };
        here.add_address(bridge.index, subnet.gateway, subnet.prefix)?;
        if !std::fs::read_to_string(forward)?.starts_with('1') {
            std::fs::write(forward, "1")?;
        }
    }
    here.set_up(bridge.index)?;
    Ok(bridge)
}

/// The rules of an endpoint, and what they need.
fn filter(network: &Network, endpoint: &Endpoint) -> Result<()> {
    let subnets = network.parsed()?;
    let addresses = endpoint.addresses.iter().filter_map(|(address, ..)| {
        subnets.iter().find(|subnet| subnet.contains(*address)).map(|subnet| (*address, *subnet))
    });
    let addresses: Vec<_> = addresses.collect();
    let has_ports = !endpoint.ports.is_empty();
    if has_ports && addresses.iter().any(|(address, _)| address.is_ipv4()) {
        // Lets a packet from the host's loopback out to the bridge; the guard chain keeps others away.
        let path = format!("/proc/sys/net/ipv4/conf/{}/route_localnet", network.bridge);
        std::fs::write(&path, "1").map_err(|error| Error::io(format!("cannot set {path}"), error))?;
    }
    filter::put(&filter::Rules {
        owner: &endpoint.owner,
        bridge: &network.bridge,
        masquerade: !network.internal,
        addresses,
        ports: &endpoint.ports,
    })
    .map_err(|error| {
        Error::io(format!("cannot set the packet filter rules of container {}", endpoint.name), error)
    })
}
