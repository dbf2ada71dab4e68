//! The portmap plugin, in nftables' form (`cni_hostport`); what was made with iptables-nft is found too.

use std::net::IpAddr;

use berth_net::Protocol;
use berth_net::nft::{Batch, Family, Hook, Listed, Rule, Table};
use berth_types::{Error, Result};
use serde::Deserialize;
use serde_json::Value;

use super::{Call, Input, arguments, masquerade, parsed};
use crate::outcome::Outcome;

const PORTS: &str = "hostports";
/// One that old plugins had.
const PORTS_OF_ADDRESSES: &str = "hostip_hostports";
const ALL_PORTS: &str = "hostports_all";
const MASQUERADING: &str = "masquerading";
/// The chain that iptables' form goes through.
const CALLER: &str = "CNI-HOSTPORT-DNAT";

#[derive(Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Options {
    backend: String,
    snat: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self { backend: String::new(), snat: true }
    }
}

/// A port of the host that leads to one of the container.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Mapping {
    host_port: i64,
    container_port: i64,
    protocol: String,
    #[serde(rename = "hostIP")]
    host_ip: String,
}

/// The same as values.
struct Port {
    host: u16,
    container: u16,
    protocol: Protocol,
    address: Option<IpAddr>,
}

fn table(ipv6: bool) -> Table<'static> {
    Table { family: if ipv6 { Family::Six } else { Family::Four }, name: "cni_hostport" }
}

/// ADD.
pub(super) fn add(call: &mut Call<'_>, input: &Input, before: Outcome) -> Result<Outcome> {
    let options: Options = arguments::options(input)?;
    let ports = ports(input)?;
    if ports.is_empty() {
        return Ok(before);
    }
    for address in addresses(call, &before).into_iter().flatten() {
        put(call, address, &ports, options.snat)
            .map_err(|error| Error::io("cannot set the rules of its port mappings", error))?;
        forget(&ports, address.is_ipv6());
        if address.is_ipv4() && options.snat {
            let_loopback_out(call, address)?;
        }
    }
    Ok(before)
}

/// What would go on to the host or to a container of before, as UDP has no end, is forgotten. That it cannot be is no
/// failure, as with the plugin: the kernel may not tell.
fn forget(ports: &[Port], ipv6: bool) {
    let udp = ports.iter().filter(|port| port.protocol == Protocol::Udp);
    let udp: Vec<u16> = udp.map(|port| port.host).collect();
    if !udp.is_empty() {
        let _ = berth_net::conntrack::forget(ipv6, Protocol::Udp.number(), &udp);
    }
}

/// Lets packets from the host's loopback out to where the container is.
fn let_loopback_out(call: &mut Call<'_>, address: IpAddr) -> Result<()> {
    let wrong = |error| Error::io("cannot find the way to the container", error);
    let Some(link) = call.here.link_towards(address).map_err(wrong)? else { return Ok(()) };
    let Some(link) = call.here.link_at(link).map_err(wrong)? else { return Ok(()) };
    let path = format!("/proc/sys/net/ipv4/conf/{}/route_localnet", link.name);
    std::fs::write(&path, "1").map_err(|error| Error::io(format!("cannot set {path}"), error))
}

fn put(call: &Call<'_>, address: IpAddr, ports: &[Port], snat: bool) -> std::io::Result<()> {
    let table = table(address.is_ipv6());
    let owner = Some(call.container);
    let mut batch = Batch::begin();
    batch.table(table, Some("CNI portmap plugin"));
    for chain in [PORTS, PORTS_OF_ADDRESSES, ALL_PORTS] {
        batch.chain(table, chain, None, None);
    }
    batch.flush(table, ALL_PORTS);
    for chain in [PORTS_OF_ADDRESSES, PORTS] {
        batch.append(table, ALL_PORTS, None, Rule::default().jump(chain));
    }
    for (chain, number) in [("prerouting", Hook::PREROUTING), ("output", Hook::OUTPUT)] {
        let hook = Hook { kind: "nat", number, priority: Hook::DESTINATION_NAT };
        batch.chain(table, chain, Some(hook), None);
        batch.flush(table, chain);
        batch.append(table, chain, None, Rule::default().to_this_host().jump(ALL_PORTS));
    }
    for port in ports.iter().filter(|port| port.is_for(address)) {
        let mut rule = Rule::default();
        if let Some(host) = port.address.filter(|host| !host.is_unspecified()) {
            rule = rule.to(host);
        }
        rule = rule.protocol(port.protocol.number()).to_port(port.host).redirect(address, port.container);
        batch.append(table, PORTS, owner, rule);
    }
    if snat {
        let hook = Hook { kind: "nat", number: Hook::POSTROUTING, priority: Hook::SOURCE_NAT };
        batch.chain(table, MASQUERADING, Some(hook), None);
        let mut sources = vec![address];
        sources.extend(address.is_ipv4().then_some(IpAddr::from([127, 0, 0, 1])));
        for source in sources {
            batch.append(table, MASQUERADING, owner, Rule::default().from(source).to(address).masquerade());
        }
    }
    batch.send()
}

impl Port {
    /// Whether it leads to an address: one that is published at an address of the other family does not.
    fn is_for(&self, address: IpAddr) -> bool {
        self.address.is_none_or(|host| host.is_ipv4() == address.is_ipv4())
    }
}

/// DEL.
pub(super) fn del(call: &Call<'_>, input: &Input) -> Result<()> {
    if !call.is_unknown && ports(input).is_ok_and(|ports| ports.is_empty()) {
        return Ok(());
    }
    let wrong = |error| Error::io("cannot remove the rules of its port mappings", error);
    for ipv6 in [false, true] {
        let own = |rule: &Listed| rule.comment == call.container;
        table(ipv6).remove(&[PORTS, PORTS_OF_ADDRESSES, MASQUERADING], &own).map_err(wrong)?;
    }
    let chain = masquerade::chain(&call.list.name, call.container, "DN-");
    masquerade::remove_chain(&chain, &[CALLER]).map_err(wrong)
}

/// CHECK.
pub(super) fn check(call: &Call<'_>, input: &Input, before: &Outcome) -> Result<()> {
    let options: Options = arguments::options(input)?;
    let ports = ports(input)?;
    if ports.is_empty() {
        return Ok(());
    }
    let wrong = |error| Error::io("cannot look at the rules of its port mappings", error);
    for address in addresses(call, before).into_iter().flatten() {
        let wanted = ports.iter().filter(|port| port.is_for(address)).count();
        let sources = if address.is_ipv4() { 2 } else { 1 };
        for (chain, wanted) in [(PORTS, wanted), (MASQUERADING, if options.snat { sources } else { 0 })] {
            let rules = table(address.is_ipv6()).rules(chain).map_err(wrong)?;
            let found = rules.iter().filter(|rule| rule.comment == call.container).count();
            if found >= wanted || (options.backend.is_empty() && has_chain(call, address).map_err(wrong)?) {
                continue;
            }
            return Err(Error::failed_precondition(format!("missing hostport rules in {chain:?} chain")));
        }
    }
    Ok(())
}

/// Whether the mappings are there in iptables' form.
fn has_chain(call: &Call<'_>, address: IpAddr) -> std::io::Result<bool> {
    let table = Table { name: "nat", ..table(address.is_ipv6()) };
    let chain = masquerade::chain(&call.list.name, call.container, "DN-");
    Ok(table.rules(CALLER)?.iter().any(|rule| rule.leads_to(&chain)) && !table.rules(&chain)?.is_empty())
}

/// The container's first address of each family, that of its own device.
fn addresses(call: &Call<'_>, before: &Outcome) -> [Option<IpAddr>; 2] {
    let mut found = [None; 2];
    for (ip, (address, ..)) in before.ips.iter().zip(parsed(&before.ips)) {
        let device = ip.interface.and_then(|number| before.interfaces.get(usize::try_from(number).ok()?));
        if device.is_some_and(|device| device.name != call.device || device.sandbox.is_empty()) {
            continue;
        }
        let place = &mut found[usize::from(address.is_ipv6())];
        *place = place.or(Some(address));
    }
    found
}

fn ports(input: &Input) -> Result<Vec<Port>> {
    let Some(list) = arguments::runtime(input, "portMappings") else { return Ok(Vec::new()) };
    let list: Vec<Mapping> = serde_json::from_value::<Vec<Mapping>>(Value::clone(list)).map_err(|error| {
        Error::invalid_argument("portMappings of the runtime cannot be understood").caused_by(error)
    })?;
    list.iter().map(port).collect()
}

fn port(mapping: &Mapping) -> Result<Port> {
    let number = |what: &str, number: i64| {
        let valid = u16::try_from(number).ok().filter(|number| *number > 0);
        valid.ok_or_else(|| Error::invalid_argument(format!("Invalid {what} port number: {number}")))
    };
    let address = match mapping.host_ip.as_str() {
        "" => None,
        text => Some(text.parse().map_err(|_| {
            Error::invalid_argument(format!("the host's address {text:?} of a port mapping is none"))
        })?),
    };
    let protocol = match mapping.protocol.to_ascii_lowercase().as_str() {
        "tcp" | "" => Protocol::Tcp,
        "udp" => Protocol::Udp,
        "sctp" => Protocol::Sctp,
        other => {
            return Err(Error::invalid_argument(format!("unknown protocol {other:?} of a port mapping")));
        }
    };
    Ok(Port {
        host: number("host", mapping.host_port)?,
        container: number("container", mapping.container_port)?,
        protocol,
        address,
    })
}
