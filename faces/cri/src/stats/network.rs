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

/// The devices of a network namespace, but for its loopback. Blocking.
pub(super) fn usage(namespace: &Path) -> Result<proto::NetworkUsage> {
    let read = || {
        let file = File::open(namespace)?;
        // Of the thread: the process's own view is another namespace's.
        held::inside(&[file.as_fd()], || fs::read_to_string("/proc/thread-self/net/dev"))
    };
    let text = read().map_err(|error| Error::io("cannot read what the pod's devices count", error))?;
    let mut interfaces: Vec<_> = text.lines().filter_map(interface).filter(|one| one.name != "lo").collect();
    let main = interfaces.iter().position(|one| one.name == MAIN).map(|at| interfaces.remove(at));
    Ok(proto::NetworkUsage { timestamp: now(), default_interface: main, interfaces })
}

/// A line of proc_pid_net(5)'s `dev`: a name, and eight counts each for what was received and sent.
fn interface(line: &str) -> Option<proto::NetworkInterfaceUsage> {
    let (name, counts) = line.split_once(':')?;
    let counts: Vec<u64> = counts.split_whitespace().map(str::parse).collect::<Result<_, _>>().ok()?;
    let at = |number: usize| counts.get(number).copied().and_then(value);
    Some(proto::NetworkInterfaceUsage {
        name: name.trim().to_owned(),
        rx_bytes: at(0),
        rx_errors: at(2),
        tx_bytes: at(8),
        tx_errors: at(10),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_tells_what_it_counts() {
        let line = "  eth0:    1656      22    3    0    0     0          0         0     1230      15    7    0    0     0       0          0";
        let found = interface(line).unwrap();
        let numbers = [&found.rx_bytes, &found.rx_errors, &found.tx_bytes, &found.tx_errors];
        assert_eq!(numbers.map(|number| number.as_ref().unwrap().value), [1656, 3, 1230, 7]);
        assert_eq!(found.name, "eth0");
        assert!(interface(" face |bytes    packets errs").is_none());
    }
}
