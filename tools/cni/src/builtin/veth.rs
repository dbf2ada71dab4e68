//! The pair of devices that leads into a namespace, for the plugins bridge and ptp.

use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use berth_net::link::{Link, Mac, Pair, random_name};
use berth_net::netlink::Socket;
use berth_types::{Error, ErrorKind, Result};
use rustix::event::{Timespec, poll};

use super::host_local::Pool;
use super::{Call, Input, masquerade};
use crate::outcome::{Dns, Outcome};

/// How often a name that somebody has is drawn again.
const DRAWS: u32 = 10;
/// How long a port may take until packets pass. The kernel says so from a work queue.
const PATIENCE: Duration = Duration::from_millis(2500);

/// A parameter of the kernel with its value, and whether it may be missing.
type Parameter = (PathBuf, &'static str, bool);

/// Enters the namespace, does something there, and opens a socket that stays in it.
pub(super) fn enter(call: &Call<'_>, work: impl FnOnce() -> io::Result<()> + Send) -> io::Result<Socket> {
    let file = File::open(call.namespace)?;
    berth_sys::thread::in_network(file.as_fd(), || {
        work()?;
        Socket::route()
    })
}

/// Opens a socket into the namespace.
pub(super) fn look(call: &Call<'_>) -> io::Result<Socket> {
    enter(call, || Ok(()))
}

/// What the pair is to be.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Wanted {
    /// The number of our end's bridge; 0 for none.
    pub(super) bridge: u32,
    pub(super) mtu: u32,
    pub(super) mac: Option<Mac>,
    /// Whether it gets addresses, and of IPv6.
    pub(super) has_addresses: bool,
    pub(super) has_ipv6: bool,
}

/// A pair that was made.
pub(super) struct Made {
    /// Our end.
    pub(super) here: Link,
    /// The other end, and a socket to it.
    pub(super) there: Link,
    pub(super) inside: Socket,
}

/// Makes the pair; its other end is in the namespace from the beginning.
pub(super) fn make(call: &mut Call<'_>, wanted: Wanted) -> io::Result<Made> {
    let file = File::open(call.namespace)?;
    let mut draws = 0;
    let name = loop {
        let name = random_name()?;
        let pair = Pair {
            here: &name,
            there: call.device,
            namespace: file.as_fd(),
            bridge: wanted.bridge,
            mtu: wanted.mtu,
            mac: wanted.mac,
        };
        match call.here.add_pair(&pair) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                if draws == DRAWS || call.here.link(&name)?.is_none() {
                    let text = format!("the namespace has a device {} already", call.device);
                    return Err(io::Error::new(io::ErrorKind::AlreadyExists, text));
                }
                draws += 1;
            }
            other => break other.map(|()| name)?,
        }
    };
    let here = call.here.link(&name)?.ok_or(io::ErrorKind::NotFound)?;
    // The host's routes are its own affair.
    let _ = std::fs::write(format!("/proc/sys/net/ipv6/conf/{name}/accept_ra"), "0");
    let parameters = parameters(call.device, wanted);
    let mut inside = enter(call, || set(&parameters))?;
    let there = inside.link(call.device)?.ok_or(io::ErrorKind::NotFound)?;
    Ok(Made { here, there, inside })
}

fn set(parameters: &[Parameter]) -> io::Result<()> {
    for (path, value, may_be_missing) in parameters {
        match std::fs::write(path, value) {
            Err(error) if !may_be_missing => {
                return Err(io::Error::new(error.kind(), format!("{}: {error}", path.display())));
            }
            _ => {}
        }
    }
    Ok(())
}

/// The kernel's parameters of a device that gets addresses.
fn parameters(device: &str, wanted: Wanted) -> Vec<Parameter> {
    let of = |family: &str, device: &str, name: &str| {
        PathBuf::from(format!("/proc/sys/net/{family}/conf/{device}/{name}"))
    };
    let mut all = Vec::new();
    if wanted.bridge != 0 && wanted.has_addresses {
        // An address that is leased is nobody else's, and neighbours are told of it.
        all.push((of("ipv6", device, "accept_dad"), "0", true));
        all.push((of("ipv4", device, "arp_notify"), "1", true));
    }
    if wanted.has_ipv6 {
        all.push((of("ipv6", "lo", "disable_ipv6"), "0", true));
        all.push((of("ipv6", device, "disable_ipv6"), "0", false));
        all.push((of("ipv6", device, "keep_addr_on_down"), "1", false));
    }
    all
}

/// Waits until packets pass by a link, and gives it as it is then.
pub(super) fn operating(here: &mut Socket, name: &str) -> Result<Link> {
    let wrong = |error| Error::io(format!("cannot look at {name}"), error);
    let (began, mut pause) = (Instant::now(), Duration::from_micros(100));
    loop {
        let link = here.link(name).map_err(wrong)?;
        let link = link.ok_or_else(|| Error::not_found(format!("the device {name} is gone")))?;
        if link.is_operating {
            return Ok(link);
        }
        if began.elapsed() > PATIENCE {
            return Err(Error::unavailable(format!("the device {name} does not come up")));
        }
        let time = Timespec { tv_sec: 0, tv_nsec: pause.as_nanos() as i64 };
        let _ = poll(&mut [], Some(&time));
        pause = (pause * 2).min(Duration::from_millis(20));
    }
}

/// Makes the host a router for these families.
pub(super) fn forward(ips: &[(std::net::IpAddr, u8, Option<std::net::IpAddr>)]) -> Result<()> {
    for (path, six) in
        [("/proc/sys/net/ipv4/ip_forward", false), ("/proc/sys/net/ipv6/conf/all/forwarding", true)]
    {
        let is_on = || std::fs::read_to_string(path).is_ok_and(|text| text.trim() == "1");
        if ips.iter().any(|(address, ..)| address.is_ipv6() == six) && !is_on() {
            std::fs::write(path, "1").map_err(|error| Error::io(format!("cannot set {path}"), error))?;
        }
    }
    Ok(())
}

/// The name service of the plugin's own configuration, if it says any.
pub(super) fn dns(input: &Input) -> Result<Option<Dns>> {
    let Some(dns) = input.get("dns").filter(|dns| dns.as_object().is_some_and(|dns| !dns.is_empty())) else {
        return Ok(None);
    };
    let dns = serde_json::from_value(dns.clone());
    dns.map(Some).map_err(|error| Error::invalid_argument("its dns cannot be understood").caused_by(error))
}

/// DEL of both plugins: the pair, what masquerades, and last the addresses, by which a removal that was cut off finds
/// the rest again.
pub(super) fn del(call: &mut Call<'_>, input: &Input, before: &Outcome) -> Result<()> {
    if call.has_namespace() {
        let file = File::open(call.namespace);
        let sockets = file.and_then(|file| {
            berth_sys::thread::in_network(file.as_fd(), || Ok((Socket::route()?, Socket::watching_links()?)))
        });
        let removed = sockets.and_then(|(inside, watch)| berth_net::remove_link(inside, watch, call.device));
        removed.map_err(|error| Error::io(format!("cannot remove the device {}", call.device), error))?;
    }
    if input.get("ipMasq") == Some(&serde_json::Value::Bool(true)) {
        masquerade::remove(call)?;
    }
    match Pool::read(call, input) {
        Ok(Some(pool)) => pool.give_back(call, before),
        // From what cannot be understood nothing was taken.
        Ok(None) => Ok(()),
        Err(error) if error.kind() == ErrorKind::InvalidArgument => Ok(()),
        Err(error) => Err(error),
    }
}
