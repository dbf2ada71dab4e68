//! A range of addresses with its gateway.

use std::fmt;
use std::net::IpAddr;

use berth_types::{Error, Result};

use crate::lease::{Range, address, number};

/// A subnet of a network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Subnet {
    /// Its first address.
    pub base: IpAddr,
    /// The bits that its addresses have in common.
    pub prefix: u8,
    /// The bridge's address in it.
    pub gateway: IpAddr,
}

impl Subnet {
    /// Reads `10.4.0.0/24`; the gateway is the first address unless given.
    pub fn parse(text: &str, gateway: Option<&str>) -> Result<Self> {
        let wrong = |why: &str| Error::invalid_argument(format!("invalid subnet {text:?}: {why}"));
        let (base, prefix) = text.split_once('/').ok_or_else(|| wrong("expected ADDRESS/BITS"))?;
        let base: IpAddr = base.parse().map_err(|_| wrong("expected ADDRESS/BITS"))?;
        let prefix: u8 = prefix.parse().map_err(|_| wrong("expected ADDRESS/BITS"))?;
        let width = if base.is_ipv4() { 32 } else { 128 };
        if prefix == 0 || prefix > width - 2 {
            return Err(wrong("it must have room for a gateway and a container"));
        }
        let host = (1u128 << (width - prefix)) - 1;
        let base = address(number(base) & !host, base);
        let mut subnet = Self { base, prefix, gateway: address(number(base) + 1, base) };
        if let Some(gateway) = gateway {
            let gateway: IpAddr = gateway.parse().map_err(|_| wrong("its gateway is no address"))?;
            if !subnet.contains(gateway) {
                return Err(wrong("its gateway is outside"));
            }
            subnet.gateway = gateway;
        }
        Ok(subnet)
    }

    /// The bits that containers may have in their addresses, all set.
    fn host(&self) -> u128 {
        (1 << (if self.base.is_ipv4() { 32 } else { 128 } - self.prefix)) - 1
    }

    /// The numbers of the first and the last address for containers.
    pub(crate) fn range(&self) -> (u128, u128) {
        let base = number(self.base);
        (base + 1, base + self.host() - u128::from(self.base.is_ipv4()))
    }

    /// The same as what addresses are taken from.
    pub(crate) fn leasable(&self) -> Range {
        let (first, last) = self.range();
        let (first, last) = (address(first, self.base), address(last, self.base));
        Range { first, last, gateway: self.gateway, prefix: self.prefix }
    }

    /// Whether an address is one of its own, not counting the first and, for IPv4, the last.
    pub fn contains(&self, address: IpAddr) -> bool {
        let (first, last) = self.range();
        address.is_ipv4() == self.base.is_ipv4() && (first..=last).contains(&number(address))
    }

    /// Whether two have addresses in common.
    pub fn overlaps(&self, other: &Self) -> bool {
        let (own, theirs) = (number(self.base), number(other.base));
        self.base.is_ipv4() == other.base.is_ipv4()
            && own <= theirs + other.host()
            && theirs <= own + self.host()
    }

    /// The mask, as the packet filter compares with it.
    pub(crate) fn mask(&self) -> Vec<u8> {
        let all = if self.base.is_ipv4() { u128::from(u32::MAX) } else { u128::MAX };
        crate::route::octets(address(all & !self.host(), self.base))
    }
}

impl fmt::Display for Subnet {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}/{}", self.base, self.prefix)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_subnet_knows_its_addresses() {
        let subnet = Subnet::parse("10.4.0.9/24", None).unwrap();
        assert_eq!(subnet.to_string(), "10.4.0.0/24");
        assert_eq!(subnet.gateway.to_string(), "10.4.0.1");
        for (text, inside) in [
            ("10.4.0.0", false),
            ("10.4.0.254", true),
            ("10.4.0.255", false),
            ("10.5.0.1", false),
            ("::1", false),
        ] {
            assert_eq!(subnet.contains(text.parse().unwrap()), inside, "{text}");
        }
        assert_eq!(subnet.mask(), [255, 255, 255, 0]);
        assert!(subnet.overlaps(&Subnet::parse("10.0.0.0/8", None).unwrap()));
        assert!(!subnet.overlaps(&Subnet::parse("10.4.1.0/24", None).unwrap()));
        let six = Subnet::parse("fd00::/64", Some("fd00::9")).unwrap();
        assert!(six.contains("fd00::ffff".parse().unwrap()) && !six.contains("fd01::1".parse().unwrap()));
        for bad in ["10.4.0.0", "x/8", "10.4.0.0/31", "10.4.0.0/0", "10.4.0.0/99", "fd00::/127"] {
            assert!(Subnet::parse(bad, None).is_err(), "{bad}");
        }
        assert!(Subnet::parse("10.4.0.0/24", Some("10.5.0.1")).is_err());
    }
}
