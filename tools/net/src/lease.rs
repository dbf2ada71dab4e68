//! Addresses by the `host-local` plugin's files: `FOLDER/ADDRESS` holds the container's id and the interface,
//! `last_reserved_ip.N` where to go on in range set N, `lock` is locked meanwhile. Whoever keeps to that may work
//! beside us in the same folder.
//!
//! A lease is on disk before anybody uses the address, so no crash gives one to two containers.

use std::collections::HashSet;
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use berth_types::{Error, Result};

use crate::network::{PATIENCE, lock_within, remove};

/// Addresses that may be given, from the first to the last; all of one subnet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Range {
    /// The first.
    pub first: IpAddr,
    /// The last.
    pub last: IpAddr,
    /// The one in or beside them that nobody gets.
    pub gateway: IpAddr,
    /// The bits that the addresses of the subnet have in common.
    pub prefix: u8,
}

impl Range {
    /// Whether an address is one of them.
    pub fn contains(&self, address: IpAddr) -> bool {
        address.is_ipv4() == self.first.is_ipv4()
            && (number(self.first)..=number(self.last)).contains(&number(address))
    }

    /// Whether two have addresses in common.
    pub fn overlaps(&self, other: &Self) -> bool {
        self.contains(other.first) || self.contains(other.last) || other.contains(self.first)
    }

    fn count(&self) -> u128 {
        (number(self.last) - number(self.first)).saturating_add(1)
    }
}

/// The leases of one network, locked.
#[derive(Debug)]
pub struct Leases {
    folder: PathBuf,
    _lock: File,
}

impl Leases {
    /// Waits for the lock of the network's folder, which is made if need be, for at most `patience`.
    pub fn lock_within(folder: &Path, patience: Duration) -> Result<Self> {
        let lock = lock_within(&folder.join("lock"), patience).map_err(|error| {
            Error::io(format!("cannot lock the addresses in {}", folder.display()), error)
        })?;
        Ok(Self { folder: folder.to_owned(), _lock: lock })
    }

    /// The same, as long as another may take who does nothing wrong.
    pub(crate) fn lock(folder: &Path) -> Result<Self> {
        Self::lock_within(folder, PATIENCE)
    }

    /// The addresses of an owner. Those that an old plugin wrote without an interface are among them.
    pub fn of(&self, owner: &str, interface: &str) -> Result<Vec<IpAddr>> {
        let text = content(owner, interface);
        let own = |(_, own): &(IpAddr, String)| *own == text || own == owner;
        Ok(self.all()?.into_iter().filter(own).map(|(address, _)| address).collect())
    }

    /// Whether an address is an owner's.
    pub fn is_of(&self, address: IpAddr, owner: &str, interface: &str) -> bool {
        self.text(address) == content(owner, interface)
    }

    /// Takes one address for range set `index`; false if somebody has it.
    pub fn take(&self, index: usize, (owner, interface): (&str, &str), address: IpAddr) -> Result<bool> {
        self.reserve(address, index, &content(owner, interface))
    }

    /// Takes the next free address of range set `index` after the last that was given from it, so that one that was
    /// just given back is not the next one given. Answers the address and the number of its range, none if all are
    /// taken.
    pub fn take_next(
        &self,
        (index, ranges): (usize, &[Range]),
        (owner, interface): (&str, &str),
    ) -> Result<Option<(IpAddr, usize)>> {
        let text = content(owner, interface);
        let last: Option<IpAddr> =
            fs::read_to_string(self.last(index)).ok().and_then(|text| text.trim().parse().ok());
        let taken: HashSet<IpAddr> = self.names()?.into_iter().collect();
        // As many as may be refused, and one.
        let most = taken.len() + ranges.len() + 1;
        for (candidate, range) in candidates(ranges, last).take(most) {
            if candidate != ranges[range].gateway
                && !taken.contains(&candidate)
                && self.reserve(candidate, index, &text)?
            {
                return Ok(Some((candidate, range)));
            }
        }
        Ok(None)
    }

    /// Gives an owner's addresses back; having none is fine.
    pub fn give_back(&self, owner: &str, interface: &str) -> Result<()> {
        self.free_nameless()?;
        self.of(owner, interface)?.into_iter().try_for_each(|address| self.free(address))
    }

    /// Gives back what is nobody's: whoever took it was killed before its name was written, as we hold the lock.
    pub fn free_nameless(&self) -> Result<()> {
        let nameless = self.all()?.into_iter().filter(|(_, text)| text.is_empty());
        nameless.map(|(address, _)| address).try_for_each(|address| self.free(address))
    }

    /// Gives one address back.
    pub fn free(&self, address: IpAddr) -> Result<()> {
        remove(&self.folder.join(address.to_string()))
    }

    /// Every address that is taken, with what its file says.
    pub fn all(&self) -> Result<Vec<(IpAddr, String)>> {
        Ok(self.names()?.into_iter().map(|address| (address, self.text(address))).collect())
    }

    /// The owner and the interface in the text of a lease.
    pub fn owner(text: &str) -> (&str, &str) {
        text.split_once("\r\n").unwrap_or((text, ""))
    }

    /// What the file of an address says. An addition reads every file, so one is read in one go.
    fn text(&self, address: IpAddr) -> String {
        let mut buffer = [0; 512];
        let file = File::open(self.folder.join(address.to_string()));
        let length = file.and_then(|mut file| file.read(&mut buffer)).unwrap_or(0);
        String::from_utf8_lossy(&buffer[..length]).trim().to_owned()
    }

    fn names(&self) -> Result<Vec<IpAddr>> {
        let wrong =
            |error| Error::io(format!("cannot read the addresses in {}", self.folder.display()), error);
        let mut all = Vec::new();
        for entry in fs::read_dir(&self.folder).map_err(wrong)? {
            let name = entry.map_err(wrong)?.file_name();
            all.extend(name.to_str().and_then(|name| name.parse::<IpAddr>().ok()));
        }
        Ok(all)
    }

    fn reserve(&self, address: IpAddr, index: usize, text: &str) -> Result<bool> {
        let path = self.folder.join(address.to_string());
        let wrong = |error| Error::io(format!("cannot reserve the address {}", path.display()), error);
        match File::options().write(true).create_new(true).mode(0o600).open(&path) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => return Ok(false),
            file => file.and_then(|mut file| file.write_all(text.as_bytes())).map_err(wrong)?,
        }
        let mut options = File::options();
        let last = options.write(true).create(true).truncate(true).mode(0o600).open(self.last(index));
        last.and_then(|mut file| file.write_all(address.to_string().as_bytes())).map_err(wrong)?;
        Ok(true)
    }

    fn last(&self, index: usize) -> PathBuf {
        self.folder.join(format!("last_reserved_ip.{index}"))
    }
}

/// Every address of the ranges once, from the one after `last` on, or from the first if `last` is none of them.
fn candidates(ranges: &[Range], last: Option<IpAddr>) -> impl Iterator<Item = (IpAddr, usize)> {
    let total = ranges.iter().fold(0u128, |sum, range| sum.saturating_add(range.count()));
    let before =
        |index: usize| ranges[..index].iter().fold(0u128, |sum, range| sum.saturating_add(range.count()));
    let start = last.and_then(|last| {
        let index = ranges.iter().position(|range| range.contains(last))?;
        Some(before(index).saturating_add(number(last) - number(ranges[index].first)).saturating_add(1))
    });
    let start = start.unwrap_or(0);
    let mut step = 0;
    std::iter::from_fn(move || {
        if step >= total {
            return None;
        }
        let mut place = (start % total).checked_add(step).map_or(0, |place| place % total);
        step += 1;
        for (index, range) in ranges.iter().enumerate() {
            if place < range.count() {
                return Some((address(number(range.first) + place, range.first), index));
            }
            place -= range.count();
        }
        None
    })
}

/// What host-local writes into the file of an address.
fn content(owner: &str, interface: &str) -> String {
    format!("{owner}\r\n{interface}")
}

/// An address as a number.
pub fn number(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => u128::from(u32::from(address)),
        IpAddr::V6(address) => u128::from(address),
    }
}

/// The address of a number, of the family that `like` has.
pub fn address(number: u128, like: IpAddr) -> IpAddr {
    match like {
        IpAddr::V4(_) => Ipv4Addr::from(number as u32).into(),
        IpAddr::V6(_) => Ipv6Addr::from(number).into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range(first: &str, last: &str) -> Range {
        let (first, last) = (first.parse().unwrap(), last.parse().unwrap());
        Range { first, last, gateway: "10.0.0.1".parse().unwrap(), prefix: 24 }
    }

    #[test]
    fn addresses_go_round_through_all_ranges() {
        let ranges = [range("10.0.0.1", "10.0.0.3"), range("10.1.0.8", "10.1.0.9")];
        let shown = |last: Option<&str>| -> Vec<String> {
            let last = last.map(|last| last.parse().unwrap());
            candidates(&ranges, last).map(|(address, range)| format!("{address}/{range}")).collect()
        };
        let whole = ["10.0.0.1/0", "10.0.0.2/0", "10.0.0.3/0", "10.1.0.8/1", "10.1.0.9/1"];
        assert_eq!(shown(None), whole);
        assert_eq!(shown(Some("10.1.0.9")), whole);
        assert_eq!(shown(Some("10.7.0.9")), whole);
        assert_eq!(shown(Some("10.0.0.3"))[..3], ["10.1.0.8/1", "10.1.0.9/1", "10.0.0.1/0"]);
        assert!(ranges[0].overlaps(&range("10.0.0.0", "10.0.0.9")));
        assert!(!ranges[0].overlaps(&ranges[1]));
    }

    #[test]
    fn a_range_of_every_address_has_no_end_that_overflows() {
        let all = [range("::", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff")];
        let last = Some("ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff".parse().unwrap());
        assert!(candidates(&all, last).next().is_some());
        assert!(all[0].contains("::5".parse().unwrap()));
    }
}
