//! What the loopback plugin does, in process: the device is set up, and the kernel gives it its addresses.

use std::path::Path;

use berth_types::Result;

use crate::outcome::{Device, Ip, Outcome};

/// Sets up the loopback device of a namespace.
pub(crate) fn set_up(namespace: &Path) -> Result<Outcome> {
    berth_net::set_loopback_up(namespace)?;
    let ip = |address: &str| Ip { interface: Some(0), address: address.into(), gateway: None };
    let device = Device {
        name: "lo".into(),
        mac: "00:00:00:00:00:00".into(),
        sandbox: namespace.display().to_string(),
        ..Device::default()
    };
    Ok(Outcome {
        interfaces: vec![device],
        ips: vec![ip("127.0.0.1/8"), ip("::1/128")],
        ..Outcome::default()
    })
}
