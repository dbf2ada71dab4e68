//! The packet filter of the command line's networks: one table of berth's own, `inet berth`. Every rule carries the
//! name of the endpoint that it belongs to, and goes with it. Rules and tables of others are never touched.
//!
//! ```text
//!   guard        before all else: nobody on a bridge reaches the host's own loopback addresses
//!   prerouting   published ports of packets that come from outside, output those that the host sends itself
//!   forward      what is a container's is let through; from another bridge only to published ports
//!   postrouting  masquerade: to the world, to oneself through a published port, from the host's loopback
//! ```

use std::io;
use std::net::IpAddr;

use crate::Subnet;
use crate::nft::{Batch, Compare, Family, Hook, Listed, Meta, Rule, Table, Tracked};
use crate::port::PortMapping;
use crate::route::octets;

const TABLE: Table<'_> = Table { family: Family::Inet, name: "berth" };

/// Name, kind, hook and priority of our chains.
const CHAINS: [(&str, &str, u32, i32); 5] = [
    ("guard", "filter", Hook::PREROUTING, -300),
    ("prerouting", "nat", Hook::PREROUTING, Hook::DESTINATION_NAT),
    ("output", "nat", Hook::OUTPUT, Hook::DESTINATION_NAT),
    ("forward", "filter", Hook::FORWARD, 0),
    ("postrouting", "nat", Hook::POSTROUTING, Hook::SOURCE_NAT),
];

/// An endpoint as the packet filter sees it.
pub(crate) struct Rules<'a> {
    pub(crate) owner: &'a str,
    pub(crate) bridge: &'a str,
    pub(crate) masquerade: bool,
    pub(crate) addresses: Vec<(IpAddr, Subnet)>,
    pub(crate) ports: &'a [PortMapping],
}

/// Puts an endpoint's rules in place of those that it has, in one step.
pub(crate) fn put(rules: &Rules<'_>) -> io::Result<()> {
    let mut batch = Batch::begin();
    batch.table(TABLE, None);
    for (name, kind, number, priority) in CHAINS {
        batch.chain(TABLE, name, Some(Hook { kind, number, priority }), None);
    }
    for rule in owned_by(rules.owner)? {
        batch.delete(TABLE, &rule);
    }
    for (chain, rule) in rules.list() {
        batch.append(TABLE, chain, Some(rules.owner), rule);
    }
    batch.send()
}

/// Removes the rules of an endpoint; it may have none.
pub(crate) fn remove(owner: &str) -> io::Result<()> {
    let mut batch = Batch::begin();
    for rule in owned_by(owner)? {
        batch.delete(TABLE, &rule);
    }
    batch.send()
}

/// Removes the whole table: nobody has rules any more.
pub(crate) fn remove_table() -> io::Result<()> {
    let mut batch = Batch::begin();
    batch.delete_table(TABLE);
    match batch.send() {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

/// The owners of all rules in our table, a name as often as it has rules.
pub(crate) fn owners() -> io::Result<Vec<String>> {
    Ok(TABLE.all_rules()?.into_iter().map(|rule| rule.comment).collect())
}

fn owned_by(owner: &str) -> io::Result<Vec<Listed>> {
    let mut all = TABLE.all_rules()?;
    all.retain(|rule| rule.comment == owner);
    Ok(all)
}

/// To a published port of this host, whichever of its addresses was used: to the container's.
fn publish(port: &PortMapping, output: bool, to: IpAddr) -> Rule {
    let mut rule = Rule::default().family(to).protocol(port.protocol.number());
    if let Some(host) = port.host_ip.filter(|host| !host.is_unspecified()) {
        rule = rule.to(host);
    } else if output && to.is_ipv6() {
        // The kernel has no route_localnet for IPv6.
        let local = std::net::Ipv6Addr::LOCALHOST.octets().to_vec();
        rule = rule.load_destination(to).compare(Compare::Different, local);
    }
    rule.to_port(port.host_port).to_this_host().redirect(to, port.container_port)
}

impl Rules<'_> {
    fn list(&self) -> Vec<(&'static str, Rule)> {
        let mut list = Vec::new();
        for &(address, subnet) in &self.addresses {
            let own = |rule: Rule| rule.family(address);
            let to = |rule: Rule| own(rule).to(address);
            let from = |rule: Rule| own(rule).from(address);
            let within =
                |rule: Rule, operation| rule.masked(subnet.mask()).compare(operation, octets(subnet.base));
            let ports: Vec<&PortMapping> = self
                .ports
                .iter()
                .filter(|port| port.host_ip.is_none_or(|host| host.is_ipv4() == address.is_ipv4()))
                .collect();
            for port in &ports {
                list.push(("prerouting", publish(port, false, address)));
                list.push(("output", publish(port, true, address)));
            }
            if !ports.is_empty() {
                let same = within(own(Rule::default()).load_source(address), Compare::Equal);
                let same = same.to(address);
                list.push((
                    "postrouting",
                    same.tracked(Tracked::Status, Tracked::REDIRECTED, Compare::Different).masquerade(),
                ));
                if address.is_ipv4() {
                    let local = own(Rule::default()).load_source(address).masked(vec![255, 0, 0, 0]);
                    let local = local.compare(Compare::Equal, vec![127, 0, 0, 0]);
                    list.push(("postrouting", local.to(address).masquerade()));
                    let guard = own(Rule::default()).name(Meta::InName, Compare::Equal, self.bridge);
                    let guard = guard.load_destination(address).masked(vec![255, 0, 0, 0]);
                    list.push(("guard", guard.compare(Compare::Equal, vec![127, 0, 0, 0]).discard()));
                }
            }
            let foreign = to(Rule::default())
                .name(Meta::InKind, Compare::Equal, "bridge")
                .name(Meta::InName, Compare::Different, self.bridge)
                .tracked(Tracked::State, Tracked::NEW, Compare::Different)
                .tracked(Tracked::Status, Tracked::REDIRECTED, Compare::Equal);
            list.push(("forward", foreign.discard()));
            list.push(("forward", to(Rule::default()).accept()));
            list.push(("forward", from(Rule::default()).accept()));
            if self.masquerade {
                let (mask, multicast) = match address {
                    IpAddr::V4(_) => (vec![0xf0, 0, 0, 0], vec![0xe0, 0, 0, 0]),
                    IpAddr::V6(_) => {
                        let mut first = vec![0; 16];
                        first[0] = 0xff;
                        (first.clone(), first)
                    }
                };
                let world = within(from(Rule::default()).load_destination(address), Compare::Different);
                let world =
                    world.load_destination(address).masked(mask).compare(Compare::Different, multicast);
                list.push(("postrouting", world.masquerade()));
            }
        }
        list
    }
}
