//! The packet filter: one table of berth's own, `inet berth`, over netlink (nfnetlink; nothing else has to be
//! installed). Every rule carries the name of the endpoint that it belongs to, and goes with it. Rules and tables
//! of others are never touched.
//!
//! ```text
//!   guard        before all else: nobody on a bridge reaches the host's own loopback addresses
//!   prerouting   published ports of packets that come from outside, output those that the host sends itself
//!   forward      what is a container's is let through; from another bridge only to published ports
//!   postrouting  masquerade: to the world, to oneself through a published port, from the host's loopback
//! ```

use std::io;
use std::net::IpAddr;

use crate::link::octets;
use crate::netlink::{ACK, APPEND, CREATE, DUMP, Message, Socket, attribute};
use crate::{
    Subnet,
    port::{PortMapping, Protocol},
};

const TABLE: &str = "berth";
/// How often rules are asked for that others change all the time.
const ATTEMPTS: u32 = 100;
const INET: u8 = 1;
const NEW_TABLE: u16 = 0;
const DELETE_TABLE: u16 = 2;
const NEW_CHAIN: u16 = 3;
const NEW_RULE: u16 = 6;
const GET_RULE: u16 = 7;
const DELETE_RULE: u16 = 8;

/// Name, kind, hook and priority of our chains.
const CHAINS: [(&str, &str, u32, i32); 5] = [
    ("guard", "filter", 0, -300),
    ("prerouting", "nat", 0, -100),
    ("output", "nat", 3, -100),
    ("forward", "filter", 2, 0),
    ("postrouting", "nat", 4, 100),
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
    batch.0.push(message(NEW_TABLE, CREATE).text(1, TABLE));
    for (name, kind, hook, priority) in CHAINS {
        batch.0.push(
            message(NEW_CHAIN, CREATE)
                .text(1, TABLE)
                .text(3, name)
                .nest(4, |place| {
                    place.attribute(1, &hook.to_be_bytes()).attribute(2, &priority.to_be_bytes())
                })
                .text(7, kind),
        );
    }
    batch.delete(&owned_by(rules.owner)?);
    for (chain, rule) in rules.list() {
        batch.add(chain, rules.owner, rule);
    }
    batch.send()
}

/// Removes the rules of an endpoint; it may have none.
pub(crate) fn remove(owner: &str) -> io::Result<()> {
    let found = owned_by(owner)?;
    if found.is_empty() {
        return Ok(());
    }
    let mut batch = Batch::begin();
    batch.delete(&found);
    batch.send()
}

/// Removes the whole table: nobody has rules any more.
pub(crate) fn remove_table() -> io::Result<()> {
    let mut batch = Batch::begin();
    batch.0.push(message(DELETE_TABLE, 0).text(1, TABLE));
    match batch.send() {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

/// The owners of all rules in our table, a name as often as it has rules.
pub(crate) fn owners() -> io::Result<Vec<String>> {
    Ok(listed()?.into_iter().map(|rule| rule.owner).collect())
}

struct Listed {
    chain: String,
    handle: Vec<u8>,
    owner: String,
}

fn owned_by(owner: &str) -> io::Result<Vec<Listed>> {
    let mut all = listed()?;
    all.retain(|rule| rule.owner == owner);
    Ok(all)
}

fn listed() -> io::Result<Vec<Listed>> {
    let mut attempts = 0;
    let answers = loop {
        let message = Message::new(kind(GET_RULE), DUMP, &[INET, 0, 0, 0]).text(1, TABLE);
        match Socket::netfilter()?.ask(message, true) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            // Somebody changed the rules while they were told, and some may be missing.
            Err(error) if error.kind() == io::ErrorKind::Interrupted && attempts < ATTEMPTS => attempts += 1,
            other => break other?,
        }
    };
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim_end_matches('\0').to_owned();
    let rule = |body: &[u8]| {
        let rest = body.get(4..)?;
        if text(attribute(rest, 1)?) != TABLE {
            return None;
        }
        // A comment as nft shows it: type 0, length, text with a zero.
        let owner = text(attribute(rest, 7)?.get(2..)?);
        Some(Listed { chain: text(attribute(rest, 2)?), handle: attribute(rest, 3)?.to_vec(), owner })
    };
    Ok(answers.iter().filter_map(|answer| rule(&answer.body)).collect())
}

struct Batch(Vec<Message>);

impl Batch {
    fn begin() -> Self {
        Self(vec![Message::new(0x10, 0, &[0, 0, 0, 10])])
    }

    fn add(&mut self, chain: &str, owner: &str, rule: Rule) {
        let mut comment = vec![0, owner.len() as u8 + 1];
        comment.extend(owner.as_bytes());
        comment.push(0);
        let new = message(NEW_RULE, CREATE | APPEND).text(1, TABLE).text(2, chain);
        let new = new.nest(4, |list| rule.0.into_iter().fold(list, |list, one| list.nest(1, one)));
        self.0.push(new.attribute(7, &comment));
    }

    fn delete(&mut self, rules: &[Listed]) {
        for rule in rules {
            let delete = message(DELETE_RULE, 0).text(1, TABLE).text(2, &rule.chain);
            self.0.push(delete.attribute(3, &rule.handle));
        }
    }

    fn send(mut self) -> io::Result<()> {
        if let Some(last) = self.0.last_mut() {
            last.add_flags(ACK);
        }
        self.0.push(Message::new(0x11, 0, &[0, 0, 0, 10]));
        let mut socket = Socket::netfilter()?;
        let done = socket.transaction(self.0);
        // The kernel holds whoever closes such a socket until the transaction's old parts are freed, after an RCU
        // grace period of some milliseconds. Nobody has to wait for that; without a thread it is closed here.
        let closing = std::thread::Builder::new().name("close-nft".to_owned());
        let _ = closing.spawn(move || drop(socket));
        done
    }
}

fn kind(number: u16) -> u16 {
    10 << 8 | number
}

fn message(number: u16, flags: u16) -> Message {
    Message::new(kind(number), flags, &[INET, 0, 0, 0])
}

/// The expressions of a rule, in the order in which the kernel runs them.
#[derive(Default)]
struct Rule(Vec<Box<dyn FnOnce(Message) -> Message>>);

const EQUAL: u32 = 0;
const DIFFERENT: u32 = 1;
const LOAD_PROTOCOL: u32 = 16;
const LOAD_FAMILY: u32 = 15;
const LOAD_IN_NAME: u32 = 6;
const LOAD_IN_KIND: u32 = 26;
const CT_STATE: u32 = 0;
const CT_STATUS: u32 = 2;
const STATE_NEW: u32 = 8;
const STATUS_DNAT: u32 = 1 << 5;
const DROP: u32 = 0;
const ACCEPT: u32 = 1;

impl Rule {
    fn expression(mut self, name: &'static str, data: impl FnOnce(Message) -> Message + 'static) -> Self {
        self.0.push(Box::new(move |message: Message| message.text(1, name).nest(2, data)));
        self
    }

    fn compare(self, operation: u32, value: Vec<u8>) -> Self {
        self.expression("cmp", move |data| {
            let data = data.attribute(1, &1u32.to_be_bytes()).attribute(2, &operation.to_be_bytes());
            data.nest(3, |inner| inner.attribute(1, &value))
        })
    }

    fn meta(self, key: u32, operation: u32, value: Vec<u8>) -> Self {
        self.expression("meta", move |data| {
            data.attribute(1, &1u32.to_be_bytes()).attribute(2, &key.to_be_bytes())
        })
        .compare(operation, value)
    }

    fn name(self, key: u32, operation: u32, name: &str) -> Self {
        let mut value = name.as_bytes().to_vec();
        value.resize(16, 0);
        self.meta(key, operation, value)
    }

    fn load(self, base: u32, offset: u32, length: u32) -> Self {
        self.expression("payload", move |data| {
            let data = data.attribute(1, &1u32.to_be_bytes()).attribute(2, &base.to_be_bytes());
            data.attribute(3, &offset.to_be_bytes()).attribute(4, &length.to_be_bytes())
        })
    }

    fn masked(self, mask: Vec<u8>) -> Self {
        self.expression("bitwise", move |data| {
            let data = data.attribute(1, &1u32.to_be_bytes()).attribute(2, &1u32.to_be_bytes());
            let data = data.attribute(3, &(mask.len() as u32).to_be_bytes());
            data.nest(4, |inner| inner.attribute(1, &mask))
                .nest(5, |inner| inner.attribute(1, &vec![0; mask.len()]))
        })
    }

    fn family(self, address: IpAddr) -> Self {
        self.meta(LOAD_FAMILY, EQUAL, vec![if address.is_ipv4() { 2 } else { 10 }])
    }

    fn source(self, address: IpAddr) -> Self {
        let (offset, length) = if address.is_ipv4() { (12, 4) } else { (8, 16) };
        self.load(1, offset, length)
    }

    fn destination(self, address: IpAddr) -> Self {
        let (offset, length) = if address.is_ipv4() { (16, 4) } else { (24, 16) };
        self.load(1, offset, length)
    }

    fn tracked(self, key: u32, bits: u32, operation: u32) -> Self {
        self.expression("ct", move |data| {
            data.attribute(1, &1u32.to_be_bytes()).attribute(2, &key.to_be_bytes())
        })
        .masked(bits.to_ne_bytes().to_vec())
        .compare(operation, 0u32.to_ne_bytes().to_vec())
    }

    fn verdict(self, code: u32) -> Self {
        self.expression("immediate", move |data| {
            data.attribute(1, &0u32.to_be_bytes())
                .nest(2, |inner| inner.nest(2, |verdict| verdict.attribute(1, &code.to_be_bytes())))
        })
    }

    fn masquerade(self) -> Self {
        self.expression("masq", |data| data)
    }

    fn immediate(self, register: u32, value: Vec<u8>) -> Self {
        self.expression("immediate", move |data| {
            data.attribute(1, &register.to_be_bytes()).nest(2, |inner| inner.attribute(1, &value))
        })
    }

    /// To a published port of this host, whichever of its addresses was used: to the container's.
    fn publish(self, port: &PortMapping, output: bool, to: IpAddr) -> Self {
        let protocol = match port.protocol {
            Protocol::Tcp => 6,
            Protocol::Udp => 17,
            Protocol::Sctp => 132,
        };
        let mut rule = self.family(to).meta(LOAD_PROTOCOL, EQUAL, vec![protocol]);
        if let Some(host) = port.host_ip.filter(|host| !host.is_unspecified()) {
            rule = rule.destination(host).compare(EQUAL, octets(host));
        } else if output && to.is_ipv6() {
            // The kernel has no route_localnet for IPv6.
            rule = rule.destination(to).compare(DIFFERENT, std::net::Ipv6Addr::LOCALHOST.octets().to_vec());
        }
        rule.load(2, 2, 2)
            .compare(EQUAL, port.host_port.to_be_bytes().to_vec())
            .expression("fib", |data| {
                let data = data.attribute(1, &1u32.to_be_bytes()).attribute(2, &3u32.to_be_bytes());
                data.attribute(3, &2u32.to_be_bytes())
            })
            .compare(EQUAL, 2u32.to_ne_bytes().to_vec())
            .immediate(1, octets(to))
            .immediate(2, port.container_port.to_be_bytes().to_vec())
            .expression("nat", move |data| {
                let family: u32 = if to.is_ipv4() { 2 } else { 10 };
                data.attribute(1, &1u32.to_be_bytes())
                    .attribute(2, &family.to_be_bytes())
                    .attribute(3, &1u32.to_be_bytes())
                    .attribute(5, &2u32.to_be_bytes())
            })
    }
}

impl Rules<'_> {
    fn list(&self) -> Vec<(&'static str, Rule)> {
        let mut list = Vec::new();
        for &(address, subnet) in &self.addresses {
            let own = |rule: Rule| rule.family(address);
            let to = |rule: Rule| own(rule).destination(address).compare(EQUAL, octets(address));
            let from = |rule: Rule| own(rule).source(address).compare(EQUAL, octets(address));
            let within =
                |rule: Rule, operation| rule.masked(subnet.mask()).compare(operation, octets(subnet.base));
            let ports: Vec<&PortMapping> = self
                .ports
                .iter()
                .filter(|port| port.host_ip.is_none_or(|host| host.is_ipv4() == address.is_ipv4()))
                .collect();
            for port in &ports {
                list.push(("prerouting", Rule::default().publish(port, false, address)));
                list.push(("output", Rule::default().publish(port, true, address)));
            }
            if !ports.is_empty() {
                let same = within(own(Rule::default()).source(address), EQUAL);
                let same = same.destination(address).compare(EQUAL, octets(address));
                list.push(("postrouting", same.tracked(CT_STATUS, STATUS_DNAT, DIFFERENT).masquerade()));
                if address.is_ipv4() {
                    let local = own(Rule::default()).source(address).masked(vec![255, 0, 0, 0]);
                    let local = local.compare(EQUAL, vec![127, 0, 0, 0]);
                    list.push((
                        "postrouting",
                        local.destination(address).compare(EQUAL, octets(address)).masquerade(),
                    ));
                    let guard = own(Rule::default()).name(LOAD_IN_NAME, EQUAL, self.bridge);
                    let guard = guard.destination(address).masked(vec![255, 0, 0, 0]);
                    list.push(("guard", guard.compare(EQUAL, vec![127, 0, 0, 0]).verdict(DROP)));
                }
            }
            let foreign = to(Rule::default())
                .name(LOAD_IN_KIND, EQUAL, "bridge")
                .name(LOAD_IN_NAME, DIFFERENT, self.bridge)
                .tracked(CT_STATE, STATE_NEW, DIFFERENT)
                .tracked(CT_STATUS, STATUS_DNAT, EQUAL);
            list.push(("forward", foreign.verdict(DROP)));
            list.push(("forward", to(Rule::default()).verdict(ACCEPT)));
            list.push(("forward", from(Rule::default()).verdict(ACCEPT)));
            if self.masquerade {
                let (mask, multicast) = match address {
                    IpAddr::V4(_) => (vec![0xf0, 0, 0, 0], vec![0xe0, 0, 0, 0]),
                    IpAddr::V6(_) => {
                        let mut first = vec![0; 16];
                        first[0] = 0xff;
                        (first.clone(), first)
                    }
                };
                let world = within(from(Rule::default()).destination(address), DIFFERENT);
                let world = world.destination(address).masked(mask).compare(DIFFERENT, multicast);
                list.push(("postrouting", world.masquerade()));
            }
        }
        list
    }
}
