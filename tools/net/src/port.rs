//! Published ports.

use std::collections::BTreeSet;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, UdpSocket};

use berth_types::{Error, Result};
use serde::{Deserialize, Serialize};

/// Where ports are taken from when the host's is left open, as the kernel's own ephemeral ports.
const EPHEMERAL: std::ops::RangeInclusive<u16> = 32768..=60999;

/// A protocol with ports.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[expect(missing_docs, reason = "the names say it")]
pub enum Protocol {
    #[default]
    Tcp,
    Udp,
    Sctp,
}

impl Protocol {
    /// The number that IP has for it.
    pub fn number(self) -> u8 {
        match self {
            Self::Tcp => 6,
            Self::Udp => 17,
            Self::Sctp => 132,
        }
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
            Self::Sctp => "sctp",
        })
    }
}

/// A port of the host that leads to one of a container; the host's is 0 until one is chosen.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PortMapping {
    /// The address of the host; all of them if none.
    #[serde(default, skip_serializing_if = "Option::is_none", rename = "hostIP")]
    pub host_ip: Option<IpAddr>,
    /// The port of the host.
    pub host_port: u16,
    /// The port of the container.
    pub container_port: u16,
    /// The protocol.
    pub protocol: Protocol,
}

impl PortMapping {
    /// Reads Docker's `[ADDRESS:][PORT[-PORT]:]PORT[-PORT][/PROTOCOL]`.
    pub fn parse(text: &str) -> Result<Vec<Self>> {
        let wrong = |why: &str| Error::invalid_argument(format!("invalid port mapping {text:?}: {why}"));
        let (rest, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
        let protocol = match protocol.to_ascii_lowercase().as_str() {
            "tcp" => Protocol::Tcp,
            "udp" => Protocol::Udp,
            "sctp" => Protocol::Sctp,
            _ => return Err(wrong("the protocol is tcp, udp or sctp")),
        };
        let (before, container) = rest.rsplit_once(':').unwrap_or(("", rest));
        let (host_ip, host) = before.rsplit_once(':').unwrap_or(("", before));
        let host_ip = match host_ip.trim_matches(['[', ']']) {
            "" => None,
            address => Some(address.parse().map_err(|_| wrong("the host's address is no address"))?),
        };
        let container = range(container).ok_or_else(|| wrong("expected a port of the container"))?;
        let count = container.1 - container.0;
        let first = match host {
            "" => None,
            host => {
                let host = range(host).ok_or_else(|| wrong("expected a port of the host"))?;
                if host.1 - host.0 != count {
                    return Err(wrong("the ranges are not of one length"));
                }
                Some(host.0)
            }
        };
        let one = |step| Self {
            host_ip,
            host_port: first.map_or(0, |first| first + step),
            container_port: container.0 + step,
            protocol,
        };
        Ok((0..=count).map(one).collect())
    }

    /// Where it is published.
    pub fn host(&self) -> SocketAddr {
        SocketAddr::new(self.host_ip.unwrap_or(Ipv4Addr::UNSPECIFIED.into()), self.host_port)
    }

    /// The container's port as Docker writes it: `80/tcp`.
    pub fn inner(&self) -> String {
        format!("{}/{}", self.container_port, self.protocol)
    }

    /// Whether both cannot be at once.
    pub(crate) fn collides(&self, other: &Self) -> bool {
        let any = |address: Option<IpAddr>| address.is_none_or(|address| address.is_unspecified());
        self.protocol == other.protocol
            && self.host_port == other.host_port
            && (any(self.host_ip) || any(other.host_ip) || self.host_ip == other.host_ip)
    }

    /// Whether the host's own programs leave the port free; what cannot be tried counts as free.
    fn is_free(&self) -> bool {
        let address = self.host();
        let taken = |error: std::io::Error| error.kind() == std::io::ErrorKind::AddrInUse;
        match self.protocol {
            Protocol::Tcp => !TcpListener::bind(address).is_err_and(taken),
            Protocol::Udp => !UdpSocket::bind(address).is_err_and(taken),
            Protocol::Sctp => true,
        }
    }
}

impl fmt::Display for PortMapping {
    /// As `docker ps` has it.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}->{}", self.host(), self.inner())
    }
}

fn range(text: &str) -> Option<(u16, u16)> {
    let port = |text: &str| text.parse::<u16>().ok().filter(|port| *port > 0);
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let (first, last) = (port(first)?, port(last)?);
    (first <= last).then_some((first, last))
}

/// Chooses the host's ports that are left open, and refuses those that somebody has.
pub(crate) fn settle(wanted: &[PortMapping], others: &[(String, PortMapping)]) -> Result<Vec<PortMapping>> {
    let mut settled: Vec<PortMapping> = Vec::with_capacity(wanted.len());
    let used: BTreeSet<u16> = others.iter().map(|(_, port)| port.host_port).collect();
    for port in wanted {
        let mut port = port.clone();
        if port.host_port == 0 {
            let free = EPHEMERAL.filter(|number| !used.contains(number)).find(|number| {
                port.host_port = *number;
                settled.iter().all(|own| !own.collides(&port)) && port.is_free()
            });
            port.host_port = free.ok_or_else(|| Error::unavailable("no port of the host is free"))?;
        } else {
            if let Some((owner, _)) = others.iter().find(|(_, other)| other.collides(&port)) {
                return Err(Error::failed_precondition(format!(
                    "Bind for {} failed: port is already allocated (container {owner} has it, until it is removed)",
                    port.host()
                )));
            }
            if settled.iter().any(|own| own.collides(&port)) {
                return Err(Error::invalid_argument(format!("port {} is published twice", port.host())));
            }
            if !port.is_free() {
                return Err(Error::failed_precondition(format!(
                    "Bind for {} failed: a program of the host listens on it (address already in use)",
                    port.host()
                )));
            }
        }
        settled.push(port);
    }
    Ok(settled)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_are_dockers() {
        let shown = |text: &str| {
            PortMapping::parse(text).unwrap().iter().map(ToString::to_string).collect::<Vec<_>>()
        };
        assert_eq!(shown("8080:80"), ["0.0.0.0:8080->80/tcp"]);
        assert_eq!(shown("127.0.0.1:53:53/udp"), ["127.0.0.1:53->53/udp"]);
        assert_eq!(shown("[::1]:1:2"), ["[::1]:1->2/tcp"]);
        assert_eq!(shown("10-11:20-21"), ["0.0.0.0:10->20/tcp", "0.0.0.0:11->21/tcp"]);
        assert_eq!(shown("80"), ["0.0.0.0:0->80/tcp"]);
        assert_eq!(shown("127.0.0.1::80"), ["127.0.0.1:0->80/tcp"]);
        for bad in ["", "x", "0", "1:2:3", "80:", "1-3:1-2", "80/icmp", "99999", "3-1", "host:1:2"] {
            assert!(PortMapping::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_port_belongs_to_one_container() {
        let one = PortMapping::parse("8080:80").unwrap();
        let other = PortMapping::parse("127.0.0.1:8080:81").unwrap();
        let taken = vec![("web".to_owned(), one[0].clone())];
        assert!(settle(&other, &taken).unwrap_err().to_string().contains("container web"));
        assert!(settle(&PortMapping::parse("80").unwrap(), &taken).unwrap()[0].host_port >= 32768);
    }
}
