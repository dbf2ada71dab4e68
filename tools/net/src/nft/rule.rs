//! Rules being written: expressions, in the order in which the kernel runs them.

use std::fmt;
use std::net::IpAddr;

use crate::netlink::Message;
use crate::route::octets;

/// How a value is compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compare {
    /// Is the same.
    Equal = 0,
    /// Is another.
    Different = 1,
}

/// What a packet is beside its bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Meta {
    /// The name of the device that it came in by, 16 bytes.
    InName = 6,
    /// The version of IP, one byte.
    Family = 15,
    /// The protocol above IP, one byte.
    Protocol = 16,
    /// The kind of the device that it came in by, 16 bytes.
    InKind = 26,
}

/// What is known of a packet's connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tracked {
    /// Where it stands.
    State = 0,
    /// What was done with it.
    Status = 2,
}

impl Tracked {
    /// The bit of a state: a new connection.
    pub const NEW: u32 = 8;
    /// The bits of established and related connections.
    pub const ESTABLISHED_OR_RELATED: u32 = 2 | 4;
    /// The bit of a status: its destination was changed.
    pub const REDIRECTED: u32 = 1 << 5;
}

/// A rule being written.
#[derive(Default)]
pub struct Rule(Vec<Box<dyn FnOnce(Message) -> Message>>);

impl fmt::Debug for Rule {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Rule({} expressions)", self.0.len())
    }
}

impl Rule {
    pub(super) fn write(self, message: Message) -> Message {
        message.nest(4, |list| self.0.into_iter().fold(list, |list, one| list.nest(1, one)))
    }

    fn expression(mut self, name: &'static str, data: impl FnOnce(Message) -> Message + 'static) -> Self {
        self.0.push(Box::new(move |message: Message| message.text(1, name).nest(2, data)));
        self
    }

    /// Goes on if what was loaded compares so.
    pub fn compare(self, operation: Compare, value: Vec<u8>) -> Self {
        self.expression("cmp", move |data| {
            let operation = operation as u32;
            let data = data.attribute(1, &1u32.to_be_bytes()).attribute(2, &operation.to_be_bytes());
            data.nest(3, |inner| inner.attribute(1, &value))
        })
    }

    /// Goes on if what a packet is beside its bytes compares so.
    pub fn meta(self, key: Meta, operation: Compare, value: Vec<u8>) -> Self {
        self.expression("meta", move |data| {
            data.attribute(1, &1u32.to_be_bytes()).attribute(2, &(key as u32).to_be_bytes())
        })
        .compare(operation, value)
    }

    /// The same for a name.
    pub fn name(self, key: Meta, operation: Compare, name: &str) -> Self {
        let mut value = name.as_bytes().to_vec();
        value.resize(16, 0);
        self.meta(key, operation, value)
    }

    /// Goes on with packets of an address' version of IP, for a table that sees both.
    pub fn family(self, address: IpAddr) -> Self {
        self.meta(Meta::Family, Compare::Equal, vec![if address.is_ipv4() { 2 } else { 10 }])
    }

    /// Goes on with packets of a protocol, by its number.
    pub fn protocol(self, number: u8) -> Self {
        self.meta(Meta::Protocol, Compare::Equal, vec![number])
    }

    fn load(self, base: u32, offset: u32, length: u32) -> Self {
        self.expression("payload", move |data| {
            let data = data.attribute(1, &1u32.to_be_bytes()).attribute(2, &base.to_be_bytes());
            data.attribute(3, &offset.to_be_bytes()).attribute(4, &length.to_be_bytes())
        })
    }

    /// Loads the source of a packet, of the version of IP that `like` has.
    pub fn load_source(self, like: IpAddr) -> Self {
        let (offset, length) = if like.is_ipv4() { (12, 4) } else { (8, 16) };
        self.load(1, offset, length)
    }

    /// Loads its destination.
    pub fn load_destination(self, like: IpAddr) -> Self {
        let (offset, length) = if like.is_ipv4() { (16, 4) } else { (24, 16) };
        self.load(1, offset, length)
    }

    /// Goes on with packets from an address.
    pub fn from(self, address: IpAddr) -> Self {
        self.load_source(address).compare(Compare::Equal, octets(address))
    }

    /// Goes on with packets to an address.
    pub fn to(self, address: IpAddr) -> Self {
        self.load_destination(address).compare(Compare::Equal, octets(address))
    }

    /// Goes on with packets to a port.
    pub fn to_port(self, port: u16) -> Self {
        self.load(2, 2, 2).compare(Compare::Equal, port.to_be_bytes().to_vec())
    }

    /// Leaves of what was loaded only these bits.
    pub fn masked(self, mask: Vec<u8>) -> Self {
        self.expression("bitwise", move |data| {
            let data = data.attribute(1, &1u32.to_be_bytes()).attribute(2, &1u32.to_be_bytes());
            let data = data.attribute(3, &(mask.len() as u32).to_be_bytes());
            data.nest(4, |inner| inner.attribute(1, &mask))
                .nest(5, |inner| inner.attribute(1, &vec![0; mask.len()]))
        })
    }

    /// Goes on if these bits of what is known of a connection are all off ([`Compare::Equal`]) or not.
    pub fn tracked(self, key: Tracked, bits: u32, operation: Compare) -> Self {
        self.expression("ct", move |data| {
            data.attribute(1, &1u32.to_be_bytes()).attribute(2, &(key as u32).to_be_bytes())
        })
        .masked(bits.to_ne_bytes().to_vec())
        .compare(operation, 0u32.to_ne_bytes().to_vec())
    }

    /// Goes on with packets to this host, whichever of its addresses they have.
    pub fn to_this_host(self) -> Self {
        const LOCAL: u32 = 2;
        self.expression("fib", |data| {
            let data = data.attribute(1, &1u32.to_be_bytes()).attribute(2, &3u32.to_be_bytes());
            data.attribute(3, &2u32.to_be_bytes())
        })
        .compare(Compare::Equal, LOCAL.to_ne_bytes().to_vec())
    }

    /// Goes on if an extension of iptables says so, which gets its options as bytes.
    pub fn extension(self, name: &'static str, revision: u32, options: Vec<u8>) -> Self {
        self.expression("match", move |data| {
            data.text(1, name).attribute(2, &revision.to_be_bytes()).attribute(3, &options)
        })
    }

    /// Counts the packets that come so far.
    pub fn counter(self) -> Self {
        self.expression("counter", |data| {
            data.attribute(1, &0u64.to_be_bytes()).attribute(2, &0u64.to_be_bytes())
        })
    }

    fn verdict(self, code: i32, chain: Option<&str>) -> Self {
        let chain = chain.map(str::to_owned);
        self.expression("immediate", move |data| {
            data.attribute(1, &0u32.to_be_bytes()).nest(2, |inner| {
                inner.nest(2, |verdict| {
                    let verdict = verdict.attribute(1, &code.to_be_bytes());
                    match chain {
                        Some(chain) => verdict.text(2, &chain),
                        None => verdict,
                    }
                })
            })
        })
    }

    /// Lets the packet through.
    pub fn accept(self) -> Self {
        self.verdict(1, None)
    }

    /// Lets nothing through.
    pub fn discard(self) -> Self {
        self.verdict(0, None)
    }

    /// Goes back to the chain that led here.
    pub fn back(self) -> Self {
        self.verdict(-5, None)
    }

    /// Goes through another chain, and then on here.
    pub fn jump(self, chain: &str) -> Self {
        self.verdict(-3, Some(chain))
    }

    /// Goes to another chain, and does not come back.
    pub fn go_to(self, chain: &str) -> Self {
        self.verdict(-4, Some(chain))
    }

    /// Gives the packet the host's own address.
    pub fn masquerade(self) -> Self {
        self.expression("masq", |data| data)
    }

    fn immediate(self, register: u32, value: Vec<u8>) -> Self {
        self.expression("immediate", move |data| {
            data.attribute(1, &register.to_be_bytes()).nest(2, |inner| inner.attribute(1, &value))
        })
    }

    /// Sends the connection to another address and port.
    pub fn redirect(self, to: IpAddr, port: u16) -> Self {
        let with_values = self.immediate(1, octets(to)).immediate(2, port.to_be_bytes().to_vec());
        with_values.expression("nat", move |data| {
            let family: u32 = if to.is_ipv4() { 2 } else { 10 };
            data.attribute(1, &1u32.to_be_bytes())
                .attribute(2, &family.to_be_bytes())
                .attribute(3, &1u32.to_be_bytes())
                .attribute(5, &2u32.to_be_bytes())
        })
    }
}
