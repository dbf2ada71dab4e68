//! Networks by name: what `berth network` makes and lists, each a small file.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use berth_types::{Error, Result};
use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::Subnet;

/// The network that containers are on unless they say otherwise.
pub const DEFAULT: &str = "bridge";
/// How long another may change the networks: it takes milliseconds, so whoever takes longer stands still.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// A network: a bridge with subnets.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Network {
    /// Its name.
    pub name: String,
    /// The bridge.
    pub bridge: String,
    /// Its subnets with their gateways: one of IPv4, perhaps one of IPv6.
    pub subnets: Vec<(String, String)>,
    /// The largest packet; the kernel's choice for 0.
    pub mtu: u32,
    /// No way out of it.
    pub internal: bool,
    /// What the user wrote on it.
    pub labels: BTreeMap<String, String>,
}

/// The networks and endpoints of a host: what is meant lies in `data`, what runs in `run`.
#[derive(Clone, Debug)]
pub struct Networks {
    pub(crate) data: PathBuf,
    pub(crate) run: PathBuf,
}

impl Network {
    /// The subnets, as values.
    pub fn parsed(&self) -> Result<Vec<Subnet>> {
        self.subnets.iter().map(|(subnet, gateway)| Subnet::parse(subnet, Some(gateway))).collect()
    }

    /// The same as a list of plugins, which anybody's CNI plugins take (CNI 1.0, section 1).
    pub fn conflist(&self, leases: &Path) -> Value {
        let ranges: Vec<Value> = self
            .subnets
            .iter()
            .map(|(subnet, gateway)| json!([{"subnet": subnet, "gateway": gateway}]))
            .collect();
        let routes: Vec<Value> = self
            .subnets
            .iter()
            .filter(|_| !self.internal)
            .map(|(subnet, _)| json!({"dst": if subnet.contains(':') { "::/0" } else { "0.0.0.0/0" }}))
            .collect();
        json!({
            "cniVersion": "1.0.0",
            "name": self.name,
            "plugins": [
                {
                    "type": "bridge", "bridge": self.bridge, "isGateway": true, "ipMasq": !self.internal,
                    "hairpinMode": true, "mtu": self.mtu,
                    "ipam": { "type": "host-local", "dataDir": leases, "ranges": ranges, "routes": routes },
                },
                { "type": "portmap", "capabilities": { "portMappings": true } },
                { "type": "firewall" },
            ],
        })
    }
}

impl Networks {
    /// The networks whose files lie in `data`; namespaces are held in `run`. Nothing is made yet.
    pub fn new(data: PathBuf, run: PathBuf) -> Self {
        Self { data, run }
    }

    /// Every network, sorted by name.
    pub fn list(&self) -> Result<Vec<Network>> {
        let folder = self.data.join("networks");
        let mut all: Vec<Network> = read_all(&folder)?;
        all.sort_by(|one, other| one.name.cmp(&other.name));
        Ok(all)
    }

    /// A network by its name. The default one is made when it is first asked for.
    pub fn find(&self, name: &str) -> Result<Network> {
        if let Some(network) = read(&self.file(name)?)? {
            return Ok(network);
        }
        if name == DEFAULT {
            return self.create(Network { name: DEFAULT.into(), ..Network::default() });
        }
        Err(Error::not_found(format!("network {name} not found: make it with berth network create {name}")))
    }

    /// Makes a network, with a free subnet if it names none.
    pub fn create(&self, mut network: Network) -> Result<Network> {
        let file = self.file(&network.name)?;
        let _lock = self.lock()?;
        if let Some(there) = read(&file)? {
            if network.name == DEFAULT {
                return Ok(there);
            }
            return Err(Error::already_exists(format!("network with name {} already exists", network.name)));
        }
        let others = self.list()?;
        let mut taken = host_subnets();
        for other in &others {
            taken.extend(other.parsed()?);
        }
        if network.subnets.is_empty() {
            let free =
                (0..=255).filter_map(|number| Subnet::parse(&format!("10.4.{number}.0/24"), None).ok());
            let free = free.into_iter().find(|subnet| taken.iter().all(|other| !other.overlaps(subnet)));
            let free =
                free.ok_or_else(|| Error::failed_precondition("no subnet in 10.4.0.0/16 is free: give one"))?;
            network.subnets.push((free.to_string(), free.gateway.to_string()));
        } else {
            for (number, subnet) in network.parsed()?.into_iter().enumerate() {
                if taken.iter().any(|other| other.overlaps(&subnet)) {
                    return Err(Error::failed_precondition(format!(
                        "Pool overlaps with other one on this address space: subnet {subnet} of network {}",
                        network.name
                    )));
                }
                network.subnets[number].0 = subnet.to_string();
            }
        }
        if network.bridge.is_empty() {
            let wrong =
                |error| Error::io(format!("cannot name the bridge of network {}", network.name), error);
            let mut socket = crate::netlink::Socket::route().map_err(wrong)?;
            let mut number = u32::from(network.name != DEFAULT);
            network.bridge = loop {
                let name = format!("berth{number}");
                if others.iter().all(|other| other.bridge != name)
                    && socket.link(&name).map_err(wrong)?.is_none()
                {
                    break name;
                }
                number += 1;
            };
        }
        write(&file, &network)?;
        // Networks are made by people and outlive the power; endpoints are on the way of a container's start.
        File::open(&file)
            .and_then(|file| file.sync_all())
            .map_err(|error| Error::io(format!("cannot sync {}", file.display()), error))?;
        Ok(network)
    }

    /// Removes a network that nobody is on, with its bridge.
    pub fn remove(&self, name: &str) -> Result<()> {
        if name == DEFAULT {
            return Err(Error::failed_precondition(format!(
                "{name} is a pre-defined network and cannot be removed"
            )));
        }
        let network = self.find(name)?;
        let _lock = self.lock()?;
        if let Some(endpoint) = self.endpoints()?.into_iter().find(|endpoint| endpoint.network == name) {
            return Err(Error::failed_precondition(format!(
                "error while removing network: network {name} has active endpoints (name:\"{}\")",
                endpoint.name
            )));
        }
        let wrong = |error| {
            Error::io(format!("cannot remove the bridge {} of network {name}", network.bridge), error)
        };
        let mut socket = crate::netlink::Socket::route().map_err(wrong)?;
        socket.delete_link(&network.bridge).map_err(wrong)?;
        let leases = self.leases(name);
        if leases.exists() {
            fs::remove_dir_all(&leases)
                .map_err(|error| Error::io(format!("cannot remove {}", leases.display()), error))?;
        }
        remove(&self.file(name)?)
    }

    /// The folder of a network's leases.
    pub fn leases(&self, network: &str) -> PathBuf {
        self.lease_folder().join(network)
    }

    /// The folder that host-local calls `dataDir`.
    pub fn lease_folder(&self) -> PathBuf {
        self.data.join("leases")
    }

    /// One change at a time, for as long as the file is held; not to be asked for twice.
    pub fn lock(&self) -> Result<File> {
        let path = self.data.join("lock");
        lock(&path).map_err(|error| Error::io(format!("cannot lock {}", path.display()), error))
    }

    fn file(&self, name: &str) -> Result<PathBuf> {
        let letters = |byte: u8| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte);
        let first = name.bytes().next().is_some_and(|byte| byte.is_ascii_alphanumeric());
        if !first
            || name.len() > 128
            || !name.bytes().all(letters)
            || matches!(name, "host" | "none" | "default" | "container")
        {
            return Err(Error::invalid_argument(format!(
                "invalid network name {name:?}: letters, digits, _ . and -, and not host, none, default or container"
            )));
        }
        Ok(self.data.join("networks").join(format!("{name}.json")))
    }
}

/// The subnets that the host has routes to, so that a new network is none of them.
fn host_subnets() -> Vec<Subnet> {
    let table = fs::read_to_string("/proc/thread-self/net/route").unwrap_or_default();
    let route = |line: &str| {
        let mut words = line.split_whitespace();
        let base = u32::from_str_radix(words.nth(1)?, 16).ok()?.swap_bytes();
        let mask = u32::from_str_radix(words.nth(5)?, 16).ok()?.swap_bytes();
        Subnet::parse(&format!("{}/{}", std::net::Ipv4Addr::from(base), mask.count_ones()), None).ok()
    };
    table.lines().skip(1).filter_map(route).collect()
}

/// Locks a file for as long as it is held, and makes it before, with its folder.
pub(crate) fn lock(path: &Path) -> io::Result<File> {
    lock_within(path, PATIENCE)
}

/// The same, with how long another may hold it meanwhile.
#[expect(clippy::disallowed_methods, reason = "the kernel's own wait for such a lock has no deadline")]
pub(crate) fn lock_within(path: &Path, patience: Duration) -> io::Result<File> {
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder)?;
    }
    let file = File::options().read(true).write(true).create(true).truncate(false).open(path)?;
    let began = Instant::now();
    loop {
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => return Ok(file),
            Err(Errno::WOULDBLOCK) if began.elapsed() < patience => {
                std::thread::sleep(Duration::from_millis(1));
            }
            Err(Errno::WOULDBLOCK) => {
                return Err(io::Error::new(io::ErrorKind::TimedOut, "another process holds the lock"));
            }
            Err(error) => return Err(error.into()),
        }
    }
}

/// Reads a file of ours, none if it is not there.
pub(crate) fn read<T: serde::de::DeserializeOwned>(path: &Path) -> Result<Option<T>> {
    match fs::read(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(Error::io(format!("cannot read {}", path.display()), error)),
        // What a power cut leaves of a record that was just written. What it named is gone with the power too.
        Ok(bytes) if bytes.is_empty() => Ok(None),
        Ok(bytes) => serde_json::from_slice(&bytes).map(Some).map_err(|error| {
            Error::data_loss(format!("{} cannot be understood", path.display())).caused_by(error)
        }),
    }
}

pub(crate) fn read_all<T: serde::de::DeserializeOwned>(folder: &Path) -> Result<Vec<T>> {
    let wrong = |error| Error::io(format!("cannot list {}", folder.display()), error);
    let entries = match fs::read_dir(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        other => other.map_err(wrong)?,
    };
    let mut all = Vec::new();
    for entry in entries {
        let path = entry.map_err(wrong)?.path();
        if path.extension().is_some_and(|kind| kind == "json") {
            all.extend(read(&path)?);
        }
    }
    Ok(all)
}

/// Puts a file in place in one step.
pub(crate) fn write(path: &Path, value: &impl Serialize) -> Result<()> {
    let put = || -> io::Result<()> {
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent)?;
        }
        let partial = path.with_extension(format!("partial{}", std::process::id()));
        fs::write(&partial, serde_json::to_vec(value)?)?;
        fs::rename(&partial, path)
    };
    put().map_err(|error| Error::io(format!("cannot write {}", path.display()), error))
}

pub(crate) fn remove(path: &Path) -> Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(Error::io(format!("cannot remove {}", path.display()), error))
        }
        _ => Ok(()),
    }
}
