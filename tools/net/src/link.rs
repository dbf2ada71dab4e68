//! Links (rtnetlink(7)): pairs, bridges and their ports.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

use crate::netlink::{ACK, CREATE, EXCLUSIVE, Message, Socket, attribute, u32_at};

const NEW_LINK: u16 = 16;
const DELETE_LINK: u16 = 17;
const GET_LINK: u16 = 18;
const SET_LINK: u16 = 19;

/// The flag of a link that is set up.
pub const UP: u32 = 1;
/// That of one that takes every packet, whomever it is for.
pub const PROMISCUOUS: u32 = 0x100;
/// That of one that takes every multicast packet.
pub const ALL_MULTICAST: u32 = 0x200;
const IFLA_ADDRESS: u16 = 1;
const IFLA_IFNAME: u16 = 3;
const IFLA_MTU: u16 = 4;
const IFLA_LINK: u16 = 5;
const IFLA_MASTER: u16 = 10;
const IFLA_PROTINFO: u16 = 12;
const IFLA_TXQLEN: u16 = 13;
const IFLA_OPERSTATE: u16 = 16;
const IFLA_LINKINFO: u16 = 18;
const IFLA_NET_NS_FD: u16 = 28;
const IFLA_PROMISCUITY: u16 = 30;
const INFO_KIND: u16 = 1;
const INFO_DATA: u16 = 2;
const VETH_PEER: u16 = 1;
const PORT_HAIRPIN: u16 = 4;
const PORT_ISOLATED: u16 = 33;
const AF_BRIDGE: u8 = 7;
/// `IF_OPER_UP`.
const OPERATING: u8 = 6;

/// A hardware address.
pub type Mac = [u8; 6];

/// A link that is there.
#[derive(Clone, Debug)]
pub struct Link {
    /// Its number in its namespace.
    pub index: u32,
    /// Its name.
    pub name: String,
    /// Its hardware address.
    pub mac: Mac,
    /// `veth`, `bridge` and so on; empty for a piece of hardware.
    pub kind: String,
    /// Its flags, as `ip link` shows them.
    pub flags: u32,
    /// The number of the bridge that it is a port of, 0 for none.
    pub master: u32,
    /// The number of the other end of a pair, in that one's namespace; 0 for none.
    pub peer: u32,
    /// Its largest packet.
    pub mtu: u32,
    /// How long its queue for sending is.
    pub queue: u32,
    /// By how many it is asked to take every packet.
    pub promiscuity: u32,
    /// Whether packets pass.
    pub is_operating: bool,
}

impl Link {
    /// Whether it is a bridge.
    pub fn is_bridge(&self) -> bool {
        self.kind == "bridge"
    }

    /// Whether it is set up.
    pub fn is_up(&self) -> bool {
        self.flags & UP != 0
    }
}

/// A pair of devices to be made: one end here, perhaps on a bridge, the other in a container's namespace.
#[derive(Clone, Copy, Debug)]
pub struct Pair<'a> {
    /// The name of our end.
    pub here: &'a str,
    /// The name of the container's.
    pub there: &'a str,
    /// Where that is.
    pub namespace: BorrowedFd<'a>,
    /// The number of our end's bridge; 0 for none.
    pub bridge: u32,
    /// The largest packet of both; the kernel's choice for 0.
    pub mtu: u32,
    /// The hardware address of the container's.
    pub mac: Option<Mac>,
}

/// What a port of a bridge does.
#[derive(Clone, Copy, Debug, Default)]
pub struct Port {
    /// Sends a packet back to where it came from.
    pub hairpin: bool,
    /// Reaches no other port that is isolated.
    pub isolated: bool,
}

/// What is to become of a link; what is none stays.
#[derive(Clone, Copy, Debug, Default)]
pub struct Change {
    /// Flags with what they are to be.
    pub flags: Option<(u32, bool)>,
    /// The hardware address.
    pub mac: Option<Mac>,
    /// The largest packet.
    pub mtu: Option<u32>,
    /// The queue's length.
    pub queue: Option<u32>,
}

impl Socket {
    /// The link of a name, none if there is none.
    pub fn link(&mut self, name: &str) -> io::Result<Option<Link>> {
        self.look(Message::new(GET_LINK, 0, &header(0, 0, 0)).text(IFLA_IFNAME, name))
    }

    /// The link of a number, none if there is none.
    pub fn link_at(&mut self, index: u32) -> io::Result<Option<Link>> {
        self.look(Message::new(GET_LINK, 0, &header(0, index, 0)))
    }

    fn look(&mut self, question: Message) -> io::Result<Option<Link>> {
        let answers = match self.ask(question, false) {
            Err(error) if is_missing(&error) => return Ok(None),
            other => other?,
        };
        Ok(answers.first().filter(|answer| answer.body.len() >= 16).map(|answer| read(&answer.body)))
    }

    /// Makes a bridge. Its hardware address is given, or it would change with every port.
    pub fn add_bridge(&mut self, name: &str, mtu: u32, mac: Mac) -> io::Result<()> {
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
    ///
    /// The other end is made where it belongs: a device that is moved costs the kernel a wait for all its readers.
    pub fn add_pair(&mut self, pair: &Pair<'_>) -> io::Result<()> {
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
        let mut message = Message::new(NEW_LINK, ACK | CREATE | EXCLUSIVE, &header(0, 0, UP))
            .text(IFLA_IFNAME, pair.here)
            .nest(IFLA_LINKINFO, |info| {
                info.text(INFO_KIND, "veth").nest(INFO_DATA, |data| data.nest(VETH_PEER, peer))
            });
        if pair.bridge != 0 {
            message = message.attribute(IFLA_MASTER, &pair.bridge.to_ne_bytes());
        }
        self.execute(mtu(message))
    }

    /// Says what a port of a bridge does.
    pub fn set_port(&mut self, index: u32, port: Port) -> io::Result<()> {
        let message = Message::new(SET_LINK, ACK, &header(AF_BRIDGE, index, 0)).nest(IFLA_PROTINFO, |info| {
            let info = info.attribute(PORT_HAIRPIN, &[port.hairpin.into()]);
            // An old kernel does not know this one.
            if port.isolated { info.attribute(PORT_ISOLATED, &[1]) } else { info }
        });
        self.execute(message)
    }

    /// Sets a link up.
    pub fn set_up(&mut self, index: u32) -> io::Result<()> {
        self.execute(up(index))
    }

    /// Changes a link.
    pub fn change(&mut self, index: u32, change: Change) -> io::Result<()> {
        let mut header = header(0, index, 0);
        if let Some((flags, on)) = change.flags {
            header[8..12].copy_from_slice(&if on { flags } else { 0 }.to_ne_bytes());
            header[12..16].copy_from_slice(&flags.to_ne_bytes());
        }
        let mut message = Message::new(SET_LINK, ACK, &header);
        if let Some(mac) = change.mac {
            message = message.attribute(IFLA_ADDRESS, &mac);
        }
        for (kind, value) in [(IFLA_MTU, change.mtu), (IFLA_TXQLEN, change.queue)] {
            if let Some(value) = value {
                message = message.attribute(kind, &value.to_ne_bytes());
            }
        }
        self.execute(message)
    }

    /// Removes a link; one that is gone already is fine.
    pub fn delete_link(&mut self, name: &str) -> io::Result<()> {
        match self.execute(Message::new(DELETE_LINK, ACK, &header(0, 0, 0)).text(IFLA_IFNAME, name)) {
            Err(error) if is_missing(&error) => Ok(()),
            other => other,
        }
    }
}

/// Sets a link up, as one message of several.
pub fn up(index: u32) -> Message {
    Message::new(NEW_LINK, ACK, &header(0, index, UP))
}

/// Whether what was asked for is not there.
pub(crate) fn is_missing(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(19 | 2))
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

fn read(body: &[u8]) -> Link {
    let rest = &body[16..];
    let number = |kind| attribute(rest, kind).map_or(0, |bytes| u32_at(bytes, 0));
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim_end_matches('\0').to_owned();
    let kind = attribute(rest, IFLA_LINKINFO).and_then(|info| attribute(info, INFO_KIND));
    Link {
        index: u32_at(body, 4),
        name: attribute(rest, IFLA_IFNAME).map(text).unwrap_or_default(),
        mac: attribute(rest, IFLA_ADDRESS).and_then(|bytes| bytes.try_into().ok()).unwrap_or_default(),
        kind: kind.map(text).unwrap_or_default(),
        flags: u32_at(body, 8),
        master: number(IFLA_MASTER),
        peer: number(IFLA_LINK),
        mtu: number(IFLA_MTU),
        queue: number(IFLA_TXQLEN),
        promiscuity: number(IFLA_PROMISCUITY),
        is_operating: attribute(rest, IFLA_OPERSTATE).is_some_and(|state| state == [OPERATING]),
    }
}

/// A hardware address as text.
pub fn mac_text(mac: Mac) -> String {
    mac.map(|byte| format!("{byte:02x}")).join(":")
}

/// A hardware address from text; none if it is not one that a device may have.
pub fn parse_mac(text: &str) -> Option<Mac> {
    let bytes: Vec<u8> = text
        .split([':', '-'])
        .map(|part| if part.len() == 2 { u8::from_str_radix(part, 16).ok() } else { None })
        .collect::<Option<_>>()?;
    let mac: Mac = bytes.try_into().ok()?;
    (mac[0] & 1 == 0 && mac != [0; 6]).then_some(mac)
}

/// The name of a new device on the host's side, as CNI's plugins form it.
pub fn random_name() -> io::Result<String> {
    Ok(format!("veth{:08x}", random_u32()?))
}

/// A hardware address for a bridge that is made: one that no maker of hardware has.
pub fn random_mac() -> io::Result<Mac> {
    let random = random_u32()?.to_ne_bytes();
    Ok([0x02, 0xbe, random[0], random[1], random[2], random[3]])
}

fn random_u32() -> io::Result<u32> {
    let mut bytes = [0; 4];
    rustix::rand::getrandom(&mut bytes[..], rustix::rand::GetRandomFlags::empty())?;
    Ok(u32::from_ne_bytes(bytes))
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
