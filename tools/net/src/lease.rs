//! Addresses by the `host-local` plugin's files: `FOLDER/ADDRESS` holds the container's id and the interface,
//! `last_reserved_ip.N` where to go on in range N, `lock` is locked meanwhile.
//!
//! A lease is on disk before anybody uses the address, so no crash gives one to two containers.

use std::fs::{self, File};
use std::io::{self, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::{Path, PathBuf};

use berth_types::{Error, Result};

use crate::Subnet;
use crate::network::{lock, remove};

/// The leases of one network, locked.
pub(crate) struct Leases {
    folder: PathBuf,
    _lock: File,
}

impl Leases {
    /// Waits for the lock of the network's folder, which is made if need be.
    pub(crate) fn lock(folder: &Path) -> Result<Self> {
        let lock = lock(&folder.join("lock")).map_err(|error| {
            Error::io(format!("cannot lock the addresses in {}", folder.display()), error)
        })?;
        Ok(Self { folder: folder.to_owned(), _lock: lock })
    }

    /// The addresses of an owner.
    pub(crate) fn of(&self, owner: &str, interface: &str) -> Result<Vec<IpAddr>> {
        let text = content(owner, interface);
        Ok(self.all()?.into_iter().filter(|(_, own)| *own == text).map(|(address, _)| address).collect())
    }

    /// Takes an address: the wanted one, or the next free one after the last that was given.
    pub(crate) fn take(
        &self,
        (index, subnet): (usize, &Subnet),
        (owner, interface): (&str, &str),
        wanted: Option<IpAddr>,
    ) -> Result<IpAddr> {
        let text = content(owner, interface);
        if let Some(address) = wanted {
            if !subnet.contains(address) || address == subnet.gateway {
                return Err(Error::invalid_argument(format!(
                    "address {address} is not one that {subnet} has for containers"
                )));
            }
            if !self.reserve(address, index, &text)? {
                return Err(Error::failed_precondition(format!("address {address} is already in use")));
            }
            return Ok(address);
        }
        let last: Option<IpAddr> =
            fs::read_to_string(self.last(index)).ok().and_then(|text| text.trim().parse().ok());
        let (first, end) = subnet.range();
        // Round robin: an address that was just given back is not the next one given.
        let last = last.filter(|last| subnet.contains(*last)).map_or(end, number);
        let taken = self.all()?.len() as u128 + 2;
        for step in 1..=taken.min(end - first + 1) {
            let next = first + (last - first + step) % (end - first + 1);
            let candidate = address(next, subnet.gateway);
            if candidate != subnet.gateway && self.reserve(candidate, index, &text)? {
                return Ok(candidate);
            }
        }
        Err(Error::new(
            berth_types::ErrorKind::ResourceExhausted,
            format!("no address of {subnet} is free: remove containers or make a larger network"),
        ))
    }

    /// Gives an owner's addresses back; having none is fine.
    pub(crate) fn give_back(&self, owner: &str, interface: &str) -> Result<()> {
        self.of(owner, interface)?.into_iter().try_for_each(|address| self.free(address))
    }

    /// Gives one address back.
    pub(crate) fn free(&self, address: IpAddr) -> Result<()> {
        remove(&self.folder.join(address.to_string()))
    }

    /// Every address that is taken, with what its file says.
    pub(crate) fn all(&self) -> Result<Vec<(IpAddr, String)>> {
        let wrong =
            |error| Error::io(format!("cannot read the addresses in {}", self.folder.display()), error);
        let mut all = Vec::new();
        for entry in fs::read_dir(&self.folder).map_err(wrong)? {
            let entry = entry.map_err(wrong)?;
            let Some(address) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else {
                continue;
            };
            let text = fs::read_to_string(entry.path()).unwrap_or_default();
            all.push((address, text.trim().to_owned()));
        }
        Ok(all)
    }

    fn reserve(&self, address: IpAddr, index: usize, text: &str) -> Result<bool> {
        let path = self.folder.join(address.to_string());
        let wrong = |error| Error::io(format!("cannot reserve the address {}", path.display()), error);
        match File::options().write(true).create_new(true).open(&path) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => return Ok(false),
            file => file.and_then(|mut file| file.write_all(text.as_bytes())).map_err(wrong)?,
        }
        fs::write(self.last(index), address.to_string()).map_err(wrong)?;
        Ok(true)
    }

    fn last(&self, index: usize) -> PathBuf {
        self.folder.join(format!("last_reserved_ip.{index}"))
    }
}

/// What host-local writes into the file of an address.
fn content(owner: &str, interface: &str) -> String {
    format!("{owner}\r\n{interface}")
}

pub(crate) fn number(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => u128::from(u32::from(address)),
        IpAddr::V6(address) => u128::from(address),
    }
}

/// The address of a number, of the family that `like` has.
pub(crate) fn address(number: u128, like: IpAddr) -> IpAddr {
    match like {
        IpAddr::V4(_) => Ipv4Addr::from(number as u32).into(),
        IpAddr::V6(_) => Ipv6Addr::from(number).into(),
    }
}
