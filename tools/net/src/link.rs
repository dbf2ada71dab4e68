//! Links, addresses and routes (rtnetlink(7)).

use std::io;
use std::net::IpAddr;
use std::os::fd::{AsRawFd, BorrowedFd};

use crate::netlink::{ACK, CREATE, EXCLUSIVE, Message, Socket, attribute, u32_at};

const NEW_LINK: u16 = 16;
const DELETE_LINK: u16 = 17;
const GET_LINK: u16 = 18;
const SET_LINK: u16 = 19;
const NEW_ADDRESS: u16 = 20;
const NEW_ROUTE: u16 = 24;

const UP: u32 = 1;
const IFLA_ADDRESS: u16 = 1;
const IFLA_IFNAME: u16 = 3;
const IFLA_MTU: u16 = 4;
const IFLA_MASTER: u16 = 10;
const IFLA_PROTINFO: u16 = 12;
const IFLA_LINKINFO: u16 = 18;
const IFLA_NET_NS_FD: u16 = 28;
const INFO_KIND: u16 = 1;
const INFO_DATA: u16 = 2;
const VETH_PEER: u16 = 1;
const PORT_HAIRPIN: u16 = 4;
const AF_BRIDGE: u8 = 7;

/// A hardware address.
pub(crate) type Mac = [u8; 6];

/// A link that is there.
#[derive(Clone, Debug)]
pub(crate) struct Link {
    pub(crate) index: u32,
    pub(crate) mac: Mac,
    pub(crate) is_bridge: bool,
    pub(crate) is_up: bool,
    pub(crate) master: u32,
}

/// A pair of devices to be made: one end on a bridge here, the other in a container's namespace.
pub(crate) struct Pair<'a> {
    pub(crate) here: &'a str,
    pub(crate) there: &'a str,
    pub(crate) namespace: BorrowedFd<'a>,
    pub(crate) bridge: u32,
    pub(crate) mtu: u32,
    pub(crate) mac: Option<Mac>,
}

impl Socket {
    /// The link of a name, none if there is none.
    pub(crate) fn link(&mut self, name: &str) -> io::Result<Option<Link>> {
        let message = Message::new(GET_LINK, 0, &header(0, 0, 0)).text(IFLA_IFNAME, name);
        let answers = match self.ask(message, false) {
            Err(error) if is_missing(&error) => return Ok(None),
            other => other?,
        };
        let Some(answer) = answers.first().filter(|answer| answer.body.len() >= 16) else { return Ok(None) };
        let rest = &answer.body[16..];
        let mac = attribute(rest, IFLA_ADDRESS).and_then(|bytes| bytes.try_into().ok()).unwrap_or_default();
        let kind = attribute(rest, IFLA_LINKINFO).and_then(|info| attribute(info, INFO_KIND));
        Ok(Some(Link {
            index: u32_at(&answer.body, 4),
            mac,
            is_bridge: kind.is_some_and(|kind| kind.starts_with(b"bridge")),
            is_up: u32_at(&answer.body, 8) & UP != 0,
            master: attribute(rest, IFLA_MASTER).map_or(0, |bytes| u32_at(bytes, 0)),
        }))
    }

    /// Makes a bridge. Its hardware address is given, or it would change with every port.
    pub(crate) fn add_bridge(&mut self, name: &str, mtu: u32, mac: Mac) -> io::Result<()> {
        let mut message = Message::new(NEW_LINK, ACK | CREATE | EXCLUSIVE, &header(0, 0, UP))
            .text(IFLA_IFNAME, name)
            .attribute(IFLA_ADDRESS, &mac)
            .nest(IFLA_LINKINFO, |info| info.text(INFO_KIND, "bridge"));
        if mtu > 0 {
            message = message.attribute(IFLA_MTU, &mtu.to_ne_bytes());
        }
        self.execute(message)
    }

    /// Makes a pair in one step, with our end up; the other cannot be until it has a peer.
    pub(crate) fn add_pair(&mut self, pair: &Pair<'_>) -> io::Result<()> {
        let mtu = |message: Message| match pair.mtu {
            0 => message,
            mtu => message.attribute(IFLA_MTU, &mtu.to_ne_bytes()),
        };
        let peer = |message: Message| {
            let message = message.raw(&header(0, 0, 0)).text(IFLA_IFNAME, pair.there);
            let message = message.attribute(IFLA_NET_NS_FD, &pair.namespace.as_raw_fd().to_ne_bytes());
            mtu(match pair.mac {
                Some(mac) => message.attribute(IFLA_ADDRESS, &mac),
                None => message,
            })
        };
        let message = Message::new(NEW_LINK, ACK | CREATE | EXCLUSIVE, &header(0, 0, UP))
            .text(IFLA_IFNAME, pair.here)
            .attribute(IFLA_MASTER, &pair.bridge.to_ne_bytes())
            .nest(IFLA_LINKINFO, |info| {
                info.text(INFO_KIND, "veth").nest(INFO_DATA, |data| data.nest(VETH_PEER, peer))
            });
        self.execute(mtu(message))
    }

    /// Lets a port of a bridge send a packet back to where it came from.
    pub(crate) fn set_hairpin(&mut self, index: u32) -> io::Result<()> {
        let message = Message::new(SET_LINK, ACK, &header(AF_BRIDGE, index, 0))
            .nest(IFLA_PROTINFO, |port| port.attribute(PORT_HAIRPIN, &[1]));
        self.execute(message)
    }

    pub(crate) fn set_up(&mut self, index: u32) -> io::Result<()> {
        self.execute(Message::new(NEW_LINK, ACK, &header(0, index, UP)))
    }

    /// Removes a link; one that is gone already is fine.
    pub(crate) fn delete_link(&mut self, name: &str) -> io::Result<()> {
        match self.execute(Message::new(DELETE_LINK, ACK, &header(0, 0, 0)).text(IFLA_IFNAME, name)) {
            Err(error) if is_missing(&error) => Ok(()),
            other => other,
        }
    }

    /// Gives a link an address; one that it has already is fine.
    pub(crate) fn add_address(&mut self, index: u32, address: IpAddr, prefix: u8) -> io::Result<()> {
        /// No duplicate detection: the address is leased, and waiting for it would take a second.
        const NO_DETECTION: u8 = 0x02;
        let flags = if address.is_ipv6() { NO_DETECTION } else { 0 };
        let mut body = vec![family(address), prefix, flags, 0];
        body.extend(index.to_ne_bytes());
        let bytes = octets(address);
        let mut message = Message::new(NEW_ADDRESS, ACK | CREATE | EXCLUSIVE, &body)
            .attribute(2, &bytes)
            .attribute(1, &bytes);
        if let IpAddr::V4(address) = address {
            let host = u32::MAX.checked_shr(u32::from(prefix)).unwrap_or(0);
            message = message.attribute(4, &(u32::from(address) | host).to_be_bytes());
        }
        match self.execute(message) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
            other => other,
        }
    }

    /// The way to everywhere.
    pub(crate) fn add_default_route(&mut self, index: u32, gateway: IpAddr) -> io::Result<()> {
        // Main table, "boot" as the one who set it, unicast.
        let body = [family(gateway), 0, 0, 0, 254, 3, 0, 1, 0, 0, 0, 0];
        let message = Message::new(NEW_ROUTE, ACK | CREATE | EXCLUSIVE, &body)
            .attribute(5, &octets(gateway))
            .attribute(4, &index.to_ne_bytes());
        self.execute(message)
    }
}

fn is_missing(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(19 | 2))
}

fn family(address: IpAddr) -> u8 {
    if address.is_ipv4() { 2 } else { 10 }
}

pub(crate) fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    }
}

/// `struct ifinfomsg`.
fn header(family: u8, index: u32, flags: u32) -> [u8; 16] {
    let mut bytes = [0; 16];
    bytes[0] = family;
    bytes[4..8].copy_from_slice(&index.to_ne_bytes());
    bytes[8..12].copy_from_slice(&flags.to_ne_bytes());
    bytes[12..16].copy_from_slice(&flags.to_ne_bytes());
    bytes
}

/// A hardware address as text.
pub(crate) fn mac_text(mac: Mac) -> String {
    mac.map(|byte| format!("{byte:02x}")).join(":")
}

/// A hardware address from text; none if it is not one that a device may have.
pub(crate) fn parse_mac(text: &str) -> Option<Mac> {
    let bytes: Vec<u8> = text
        .split([':', '-'])
        .map(|part| if part.len() == 2 { u8::from_str_radix(part, 16).ok() } else { None })
        .collect::<Option<_>>()?;
    let mac: Mac = bytes.try_into().ok()?;
    (mac[0] & 1 == 0 && mac != [0; 6]).then_some(mac)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hardware_addresses_are_read_and_written() {
        assert_eq!(mac_text(parse_mac("02:42-ac:11:00:02").unwrap()), "02:42:ac:11:00:02");
        for bad in
            ["", "02:42", "01:00:00:00:00:00", "00:00:00:00:00:00", "zz:42:ac:11:00:02", "2:42:ac:11:00:02"]
        {
            assert!(parse_mac(bad).is_none(), "{bad}");
        }
    }
}
