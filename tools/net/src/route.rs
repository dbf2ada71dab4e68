//! Addresses and routes (rtnetlink(7)).

use std::io;
use std::net::IpAddr;

use crate::netlink::{ACK, CREATE, DUMP, EXCLUSIVE, Message, Socket, attribute, u32_at};

const NEW_ADDRESS: u16 = 20;
const DELETE_ADDRESS: u16 = 21;
const GET_ADDRESS: u16 = 22;
const NEW_ROUTE: u16 = 24;
const DELETE_ROUTE: u16 = 25;
const GET_ROUTE: u16 = 26;

const IFA_ADDRESS: u16 = 1;
const IFA_LOCAL: u16 = 2;
const IFA_BROADCAST: u16 = 4;
/// No duplicate detection: an address that is leased is nobody else's, and waiting for it takes a second.
const NO_DETECTION: u8 = 0x02;

const RTA_DST: u16 = 1;
const RTA_OIF: u16 = 4;
const RTA_GATEWAY: u16 = 5;
const RTA_PRIORITY: u16 = 6;
const RTA_PREFSRC: u16 = 7;
const RTA_TABLE: u16 = 15;
const MAIN_TABLE: u32 = 254;
/// "boot" as the one who set it.
const BOOT: u8 = 3;
const UNICAST: u8 = 1;

/// How far the places that a route leads to are away.
pub mod scope {
    /// Anywhere.
    pub const UNIVERSE: u8 = 0;
    /// On the link.
    pub const LINK: u8 = 253;
    /// On this host.
    pub const HOST: u8 = 254;
    /// Of any scope, when a route is removed.
    pub const NOWHERE: u8 = 255;
}

/// A route, to be made or one that is there.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Route {
    /// Where to, with the bits that count; everywhere if none.
    pub to: Option<(IpAddr, u8)>,
    /// The number of the link.
    pub link: u32,
    /// By which gateway.
    pub gateway: Option<IpAddr>,
    /// From which address.
    pub source: Option<IpAddr>,
    /// How far, see [`scope`].
    pub scope: u8,
    /// The order among routes to the same place.
    pub priority: u32,
    /// The table; the main one for 0.
    pub table: u32,
}

impl Route {
    fn is_ipv6(&self) -> bool {
        let one = self.to.map(|(address, _)| address).or(self.gateway).or(self.source);
        one.is_some_and(|address| address.is_ipv6())
    }

    fn message(&self, kind: u16, flags: u16, protocol: u8) -> Message {
        let family = if self.is_ipv6() { 10 } else { 2 };
        let bits = self.to.map_or(0, |(_, bits)| bits);
        let table = if self.table == 0 { MAIN_TABLE } else { self.table };
        let short = u8::try_from(table).unwrap_or(0);
        let what = if kind == DELETE_ROUTE { 0 } else { UNICAST };
        let body = [family, bits, 0, 0, short, protocol, self.scope, what, 0, 0, 0, 0];
        let mut message = Message::new(kind, flags, &body).attribute(RTA_OIF, &self.link.to_ne_bytes());
        let address = |message: Message, kind, address: Option<IpAddr>| match address {
            Some(address) => message.attribute(kind, &octets(address)),
            None => message,
        };
        message = address(message, RTA_DST, self.to.filter(|(_, bits)| *bits > 0).map(|(to, _)| to));
        message = address(message, RTA_GATEWAY, self.gateway);
        message = address(message, RTA_PREFSRC, self.source);
        for (kind, value) in [(RTA_PRIORITY, self.priority), (RTA_TABLE, if short == 0 { table } else { 0 })]
        {
            if value != 0 {
                message = message.attribute(kind, &value.to_ne_bytes());
            }
        }
        message
    }
}

/// Makes a route, as one message of several; beside one to the same place it is one more way.
pub fn add(route: &Route) -> Message {
    route.message(NEW_ROUTE, ACK | CREATE, BOOT)
}

/// Removes a route, as one message of several.
pub fn delete(route: &Route) -> Message {
    route.message(DELETE_ROUTE, ACK, 0)
}

/// Gives a link an address, as one message of several; one that it has already is refused.
pub fn add_address(index: u32, address: IpAddr, prefix: u8) -> Message {
    let flags = if address.is_ipv6() { NO_DETECTION } else { 0 };
    let message = address_message((NEW_ADDRESS, ACK | CREATE | EXCLUSIVE), flags, (index, address, prefix));
    match address {
        IpAddr::V4(address) if prefix < 31 => {
            let host = u32::MAX.checked_shr(u32::from(prefix)).unwrap_or(0);
            message.attribute(IFA_BROADCAST, &(u32::from(address) | host).to_be_bytes())
        }
        _ => message,
    }
}

fn address_message(
    (kind, how): (u16, u16),
    flags: u8,
    (index, address, prefix): (u32, IpAddr, u8),
) -> Message {
    let mut body = vec![family(address), prefix, flags, 0];
    body.extend(index.to_ne_bytes());
    let bytes = octets(address);
    Message::new(kind, how, &body).attribute(IFA_LOCAL, &bytes).attribute(IFA_ADDRESS, &bytes)
}

impl Socket {
    /// Gives a link an address; one that it has already is fine.
    pub fn add_address(&mut self, index: u32, address: IpAddr, prefix: u8) -> io::Result<()> {
        match self.execute(add_address(index, address, prefix)) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
            other => other,
        }
    }

    /// Takes an address from a link.
    pub fn delete_address(&mut self, index: u32, address: IpAddr, prefix: u8) -> io::Result<()> {
        self.execute(address_message((DELETE_ADDRESS, ACK), 0, (index, address, prefix)))
    }

    /// The addresses of a link, each with the bits of its subnet.
    pub fn addresses(&mut self, index: u32) -> io::Result<Vec<(IpAddr, u8)>> {
        let answers = self.dump(&Message::new(GET_ADDRESS, DUMP, &[0; 8]))?;
        let read = |body: &Vec<u8>| {
            let rest = body.get(8..).filter(|_| u32_at(body, 4) == index)?;
            let bytes = attribute(rest, IFA_LOCAL).or_else(|| attribute(rest, IFA_ADDRESS))?;
            Some((from_octets(bytes)?, body[1]))
        };
        Ok(answers.iter().filter_map(read).collect())
    }

    /// Every route of one family, of every table but those that the kernel keeps for its own addresses.
    pub fn routes(&mut self, ipv6: bool) -> io::Result<Vec<Route>> {
        const LOCAL_TABLE: u32 = 255;
        let family = if ipv6 { 10 } else { 2 };
        let mut body = [0; 12];
        body[0] = family;
        let answers = self.dump(&Message::new(GET_ROUTE, DUMP, &body))?;
        let mut routes: Vec<Route> = answers.iter().filter_map(|body| read(body, family)).collect();
        routes.retain(|route| route.table != LOCAL_TABLE);
        Ok(routes)
    }

    /// The number of the link by which an address is reached, none if it is not.
    pub fn link_towards(&mut self, address: IpAddr) -> io::Result<Option<u32>> {
        let bits = if address.is_ipv4() { 32 } else { 128 };
        let body = [family(address), bits, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
        let question = Message::new(GET_ROUTE, 0, &body).attribute(RTA_DST, &octets(address));
        let answers = match self.ask(question, false) {
            Err(error) if error.raw_os_error() == Some(101) => return Ok(None),
            other => other?,
        };
        let rest = answers.first().and_then(|answer| answer.body.get(12..)).unwrap_or_default();
        Ok(attribute(rest, RTA_OIF).map(|bytes| u32_at(bytes, 0)))
    }

    /// The way to everywhere.
    pub(crate) fn add_default_route(&mut self, index: u32, gateway: IpAddr) -> io::Result<()> {
        let route = Route { link: index, gateway: Some(gateway), ..Route::default() };
        self.execute(route.message(NEW_ROUTE, ACK | CREATE | EXCLUSIVE, BOOT))
    }
}

fn read(body: &[u8], family: u8) -> Option<Route> {
    let rest = body.get(12..).filter(|_| body[0] == family && body[7] == UNICAST)?;
    let address = |kind| attribute(rest, kind).and_then(from_octets);
    let number = |kind| attribute(rest, kind).map(|bytes| u32_at(bytes, 0));
    Some(Route {
        to: address(RTA_DST).map(|to| (to, body[1])),
        link: number(RTA_OIF).unwrap_or(0),
        gateway: address(RTA_GATEWAY),
        source: address(RTA_PREFSRC),
        scope: body[6],
        priority: number(RTA_PRIORITY).unwrap_or(0),
        table: number(RTA_TABLE).unwrap_or_else(|| body[4].into()),
    })
}

fn family(address: IpAddr) -> u8 {
    if address.is_ipv4() { 2 } else { 10 }
}

/// The bytes of an address, as they go over the wire.
pub fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    }
}

fn from_octets(bytes: &[u8]) -> Option<IpAddr> {
    let four = <[u8; 4]>::try_from(bytes).map(IpAddr::from);
    four.or_else(|_| <[u8; 16]>::try_from(bytes).map(IpAddr::from)).ok()
}
