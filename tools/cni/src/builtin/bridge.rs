//! The bridge plugin.

use std::net::IpAddr;

use berth_net::lease::{address, number};
use berth_net::link::{self, Change, Link, Port, mac_text};
use berth_types::{Error, Result};
use serde::Deserialize;

use super::host_local::Pool;
use super::veth::{self, Wanted};
use super::{Call, Input, addresses, arguments, device_here, device_there, masquerade, parsed};
use crate::outcome::{Device, Outcome, Route};

#[derive(Deserialize)]
#[serde(default, rename_all = "camelCase")]
#[expect(clippy::struct_excessive_bools, reason = "the plugin's options")]
struct Options {
    bridge: String,
    is_gateway: bool,
    is_default_gateway: bool,
    force_address: bool,
    ip_masq: bool,
    mtu: u32,
    hairpin_mode: bool,
    promisc_mode: bool,
    port_isolation: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            bridge: "cni0".into(),
            is_gateway: false,
            is_default_gateway: false,
            force_address: false,
            ip_masq: false,
            mtu: 0,
            hairpin_mode: false,
            promisc_mode: false,
            port_isolation: false,
        }
    }
}

fn options(input: &Input) -> Result<Options> {
    let mut options: Options = arguments::options(input)?;
    options.is_gateway |= options.is_default_gateway;
    if options.hairpin_mode && options.promisc_mode {
        return Err(Error::invalid_argument("cannot set hairpin mode and promiscuous mode at the same time"));
    }
    crate::invoke::check_interface(&options.bridge)?;
    Ok(options)
}

/// ADD.
pub(super) fn add(call: &mut Call<'_>, input: &Input) -> Result<Outcome> {
    let options = options(input)?;
    let mac = arguments::hardware_address(call, input, "")?;
    let pool = Pool::read(call, input)?;
    let bridge = ensure(call, &options)?;
    let mut outcome = match &pool {
        Some(pool) => pool.take(call, input)?,
        None => Outcome::default(),
    };
    gateways(&mut outcome, &options);
    let ips = parsed(&outcome.ips);
    let wanted = Wanted {
        bridge: bridge.index,
        mtu: options.mtu,
        mac,
        has_addresses: !ips.is_empty(),
        has_ipv6: ips.iter().any(|(address, ..)| address.is_ipv6()),
    };
    let port = Port { hairpin: options.hairpin_mode, isolated: options.port_isolation };
    let connect = |call: &mut Call<'_>| -> std::io::Result<(Link, Link)> {
        let mut pair = veth::make(call, wanted)?;
        call.here.set_port(pair.here.index, port)?;
        addresses::configure(&mut pair.inside, &pair.there, &outcome)?;
        Ok((pair.here, pair.there))
    };
    let (here, there) = connect(call).map_err(|error| {
        Error::io(format!("cannot connect {} to the bridge {}", call.device, options.bridge), error)
    })?;
    if options.is_gateway && pool.is_some() {
        for (address, prefix, gateway) in &ips {
            let gateway = gateway.unwrap_or_else(|| first(*address, *prefix));
            ensure_address(call, &bridge, (gateway, *prefix), options.force_address)?;
        }
        veth::forward(&ips)?;
    }
    if options.ip_masq && pool.is_some() {
        masquerade::put(call, &ips)?;
    }
    let here = veth::operating(&mut call.here, &here.name)?;
    let bridge = find(call, &options.bridge)?.unwrap_or(bridge);
    outcome.interfaces = vec![
        device_here(&bridge.name, bridge.mac),
        device_here(&here.name, here.mac),
        device_there(call, there.mac),
    ];
    if let Some(dns) = veth::dns(input)? {
        outcome.dns = dns;
    }
    Ok(outcome)
}

/// Says of a result where addresses are, and adds the gateways and default routes that the options ask for.
fn gateways(outcome: &mut Outcome, options: &Options) {
    let mut done = [false; 2];
    for number in 0..outcome.ips.len() {
        outcome.ips[number].interface = Some(2);
        let Some((address, prefix)) = crate::outcome::split(&outcome.ips[number].address) else { continue };
        if outcome.ips[number].gateway.is_none() && options.is_gateway {
            outcome.ips[number].gateway = Some(first(address, prefix).to_string());
        }
        let family = usize::from(address.is_ipv6());
        if !options.is_default_gateway || done[family] {
            continue;
        }
        done[family] = true;
        let dst = if address.is_ipv4() { "0.0.0.0/0" } else { "::/0" };
        if !outcome.routes.iter().any(|route| route.gw.is_some() && route.dst == dst) {
            let gw = outcome.ips[number].gateway.clone();
            outcome.routes.push(Route { dst: dst.into(), gw, ..Route::default() });
        }
    }
}

/// The first address of a subnet.
fn first(own: IpAddr, prefix: u8) -> IpAddr {
    let width = if own.is_ipv4() { 32 } else { 128 };
    let hosts = u128::MAX.checked_shr(128 - u32::from(width - prefix)).unwrap_or(0);
    address((number(own) & !hosts) + 1, own)
}

fn find(call: &mut Call<'_>, name: &str) -> Result<Option<Link>> {
    call.here.link(name).map_err(|error| Error::io(format!("cannot look for the bridge {name}"), error))
}

/// The bridge, made if it is not there.
fn ensure(call: &mut Call<'_>, options: &Options) -> Result<Link> {
    let name = &options.bridge;
    let wrong = |error| Error::io(format!("cannot make the bridge {name}"), error);
    let mut there = find(call, name)?;
    if there.is_none() {
        let mac = link::random_mac().map_err(wrong)?;
        match call.here.add_bridge(name, options.mtu, mac) {
            // Another ADD has just made it.
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {}
            other => other.map_err(wrong)?,
        }
        let _ = std::fs::write(format!("/proc/sys/net/ipv6/conf/{name}/accept_ra"), "0");
        there = find(call, name)?;
    }
    let bridge = there.ok_or_else(|| Error::not_found(format!("the bridge {name} is gone")))?;
    if !bridge.is_bridge() {
        return Err(Error::failed_precondition(format!("{name:?} already exists but is not a bridge")));
    }
    if options.promisc_mode && bridge.promiscuity == 0 {
        let change = Change { flags: Some((link::PROMISCUOUS, true)), ..Change::default() };
        call.here.change(bridge.index, change).map_err(wrong)?;
    }
    if !bridge.is_up() {
        call.here.set_up(bridge.index).map_err(wrong)?;
    }
    Ok(bridge)
}

/// Gives the bridge the address of a gateway. One that it has in the same place is in the way, unless it may be taken.
fn ensure_address(
    call: &mut Call<'_>,
    bridge: &Link,
    (address, prefix): (IpAddr, u8),
    force: bool,
) -> Result<()> {
    let wrong =
        |error| Error::io(format!("cannot give the bridge {} the address {address}", bridge.name), error);
    let has = call.here.addresses(bridge.index).map_err(wrong)?;
    if has.contains(&(address, prefix)) {
        return Ok(());
    }
    let same = |one: (IpAddr, u8), other: IpAddr| first(one.0, one.1) == first(other, one.1);
    for own in has.into_iter().filter(|(own, _)| own.is_ipv4() == address.is_ipv4()) {
        if address.is_ipv6() && !same(own, address) && !same((address, prefix), own.0) {
            continue;
        }
        if !force {
            return Err(Error::failed_precondition(format!(
                "{:?} already has an IP address different from {address}/{prefix}",
                bridge.name
            )));
        }
        call.here.delete_address(bridge.index, own.0, own.1).map_err(wrong)?;
    }
    call.here.add_address(bridge.index, address, prefix).map_err(wrong)?;
    // A bridge that others made takes the address of some port, another one as ports come and go.
    let change = Change { mac: Some(bridge.mac), ..Change::default() };
    call.here.change(bridge.index, change).map_err(wrong)
}

/// CHECK.
pub(super) fn check(call: &mut Call<'_>, input: &Input, before: &Outcome) -> Result<()> {
    let options = options(input)?;
    let missing = |what: String| Error::failed_precondition(what);
    if let Some(pool) = Pool::read(call, input)? {
        pool.check(call, before)?;
    }
    let bridge = find(call, &options.bridge)?.filter(Link::is_bridge);
    let bridge = bridge.ok_or_else(|| missing(format!("the bridge {} is gone", options.bridge)))?;
    if (bridge.promiscuity != 0) != options.promisc_mode {
        return Err(missing(format!("the bridge {} is not as promiscuous as it should be", bridge.name)));
    }
    let named = |name: &str| before.interfaces.iter().find(|device| device.name == name);
    let listed = named(&bridge.name).ok_or_else(|| missing(format!("the result has no {}", bridge.name)))?;
    same_mac(listed, &bridge)?;
    let wrong = |error| Error::io("cannot look at the devices", error);
    let (mut inside, there) = inside(call, before)?;
    let port =
        before.interfaces.iter().filter(|device| device.sandbox.is_empty() && device.name != bridge.name);
    let mut found = false;
    for device in port {
        let link = call.here.link(&device.name).map_err(wrong)?;
        let link = link.ok_or_else(|| missing(format!("the device {} is gone", device.name)))?;
        if link.index == there.peer && link.peer == there.index && link.master == bridge.index {
            same_mac(device, &link)?;
            found = true;
        }
    }
    if !found {
        return Err(missing(format!("{} is not connected to the bridge {}", there.name, bridge.name)));
    }
    addresses::check(&mut inside, &there, before)
}

/// The device in the namespace that a result names, and a socket to it.
pub(super) fn inside(call: &Call<'_>, before: &Outcome) -> Result<(berth_net::netlink::Socket, Link)> {
    let missing = |what: String| Error::failed_precondition(what);
    let sandbox = call.namespace.display().to_string();
    let is_it = |device: &&Device| device.name == call.device && device.sandbox == sandbox;
    let listed = before.interfaces.iter().find(is_it);
    let listed = listed.ok_or_else(|| missing(format!("the result has no {} in {sandbox}", call.device)))?;
    let wrong = |error| Error::io(format!("cannot look at {} in {sandbox}", call.device), error);
    let mut inside = veth::look(call).map_err(wrong)?;
    let there = inside.link(call.device).map_err(wrong)?.filter(|link| link.kind == "veth");
    let there = there.ok_or_else(|| missing(format!("the device {} is gone", call.device)))?;
    same_mac(listed, &there)?;
    Ok((inside, there))
}

fn same_mac(listed: &Device, link: &Link) -> Result<()> {
    if !listed.mac.is_empty() && !listed.mac.eq_ignore_ascii_case(&mac_text(link.mac)) {
        return Err(Error::failed_precondition(format!(
            "{} has the hardware address {}, not {}",
            link.name,
            mac_text(link.mac),
            listed.mac
        )));
    }
    Ok(())
}
