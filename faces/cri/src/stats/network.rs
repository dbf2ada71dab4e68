//! What a pod has sent and received, by its devices.

use std::fs::{self, File};
use std::os::fd::AsFd as _;
use std::path::Path;

use berth_proto::runtime::v1 as proto;
use berth_sys::held;
use berth_types::{Error, Result};

use super::reading::value;
use crate::time::now;

/// The device that a kubelet shows by itself.
const MAIN: &str = "eth0";

/// What a device counts.
#[derive(Debug)]
pub(super) struct Device {
    pub(super) name: String,
    pub(super) received: Counts,
    pub(super) sent: Counts,
}

/// In one direction.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Counts {
    pub(super) bytes: u64,
    pub(super) packets: u64,
    pub(super) errors: u64,
    pub(super) dropped: u64,
}

/// The devices of a network namespace, but for its loopback. Blocking.
pub(super) fn devices(namespace: &Path) -> Result<Vec<Device>> {
    let read = || {
        let file = File::open(namespace)?;
        // Of the thread: the process's own view is another namespace's.
        held::inside(&[file.as_fd()], || fs::read_to_string("/proc/thread-self/net/dev"))
    };
    let text = read().map_err(|error| Error::io("cannot read what the pod's devices count", error))?;
    Ok(text.lines().filter_map(device).filter(|one| one.name != "lo").collect())
}

/// The same in the words of a pod's stats.
pub(super) fn usage(namespace: &Path) -> Result<proto::NetworkUsage> {
    let mut interfaces: Vec<_> = devices(namespace)?.into_iter().map(interface).collect();
    let main = interfaces.iter().position(|one| one.name == MAIN).map(|at| interfaces.remove(at));
    Ok(proto::NetworkUsage { timestamp: now(), default_interface: main, interfaces })
}

fn interface(Device { name, received, sent }: Device) -> proto::NetworkInterfaceUsage {
    proto::NetworkInterfaceUsage {
        name,
        rx_bytes: value(received.bytes),
        rx_errors: value(received.errors),
        tx_bytes: value(sent.bytes),
        tx_errors: value(sent.errors),
    }
}

/// A line of proc_pid_net(5)'s `dev`: a name, and eight counts each for what was received and sent.
fn device(line: &str) -> Option<Device> {
    let (name, counts) = line.split_once(':')?;
    let counts: Vec<u64> = counts.split_whitespace().map(str::parse).collect::<Result<_, _>>().ok()?;
    let (received, sent) = counts.split_at_checked(8)?;
    Some(Device { name: name.trim().to_owned(), received: direction(received)?, sent: direction(sent)? })
}

fn direction(counts: &[u64]) -> Option<Counts> {
    let [bytes, packets, errors, dropped, ..] = *counts else { return None };
    Some(Counts { bytes, packets, errors, dropped })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_tells_what_it_counts() {
        let line = "  eth0:    1656      22    3    4    0     0          0         0     1230      15    7    9    0     0       0          0";
        let found = device(line).unwrap();
        assert_eq!(found.received, Counts { bytes: 1656, packets: 22, errors: 3, dropped: 4 });
        assert_eq!(found.sent, Counts { bytes: 1230, packets: 15, errors: 7, dropped: 9 });
        assert_eq!(found.name, "eth0");
        assert!(device(" face |bytes    packets errs").is_none());
        assert!(device("eth0: 1 2 3").is_none());
    }
}
