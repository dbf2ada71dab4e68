//! The ptp plugin: a pair with one end on the host, to which the host routes.

use std::net::IpAddr;

use berth_net::lease::{address, number};
use berth_net::netlink::Message;
use berth_net::route::{self, Route, scope};
use berth_types::{Error, Result};
use serde::Deserialize;

use super::host_local::Pool;
use super::veth::{self, Wanted};
use super::{Call, Input, addresses, arguments, bridge, device_here, device_there, masquerade, parsed};
use crate::outcome::Outcome;

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Options {
    ip_masq: bool,
    mtu: u32,
}

fn pool(call: &Call<'_>, input: &Input) -> Result<Pool> {
    Pool::read(call, input)?.ok_or_else(|| Error::invalid_argument("it has no ipam"))
}

/// ADD.
pub(super) fn add(call: &mut Call<'_>, input: &Input) -> Result<Outcome> {
    let options: Options = arguments::options(input)?;
    let mut outcome = pool(call, input)?.take(call, input)?;
    outcome.ips.iter_mut().for_each(|ip| ip.interface = Some(1));
    let ips = parsed(&outcome.ips);
    veth::forward(&ips)?;
    let has_ipv6 = ips.iter().any(|(address, ..)| address.is_ipv6());
    let wanted = Wanted { mtu: options.mtu, has_addresses: true, has_ipv6, ..Wanted::default() };
    let mut connect = || -> std::io::Result<_> {
        let mut pair = veth::make(call, wanted)?;
        addresses::configure(&mut pair.inside, &pair.there, &outcome)?;
        pair.inside.execute_all(ips.iter().flat_map(|ip| routes_there(pair.there.index, ip)).collect())?;
        for (address, _, gateway) in &ips {
            let gateway = gateway.ok_or(std::io::ErrorKind::InvalidInput)?;
            call.here.add_address(pair.here.index, gateway, whole(gateway))?;
            let route = Route {
                to: Some((*address, whole(*address))),
                link: pair.here.index,
                scope: scope::HOST,
                ..Route::default()
            };
            match call.here.execute(route::add(&route)) {
                Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {}
                other => other?,
            }
        }
        Ok((pair.here, pair.there))
    };
    let (here, there) =
        connect().map_err(|error| Error::io(format!("cannot connect {} to the host", call.device), error))?;
    if options.ip_masq {
        masquerade::put(call, &ips)?;
    }
    outcome.interfaces = vec![device_here(&here.name, here.mac), device_there(call, there.mac)];
    if let Some(dns) = veth::dns(input)? {
        outcome.dns = dns;
    }
    Ok(outcome)
}

/// The subnet is not on the link: the route to it that the kernel made gives way to one over the gateway, which is.
fn routes_there(link: u32, &(own, prefix, gateway): &(IpAddr, u8, Option<IpAddr>)) -> Vec<Message> {
    let Some(gateway) = gateway else { return Vec::new() };
    let width = whole(own);
    let hosts = u128::MAX.checked_shr(128 - u32::from(width - prefix)).unwrap_or(0);
    let subnet = (address(number(own) & !hosts, own), prefix);
    let on_link = Route { to: Some(subnet), link, scope: scope::NOWHERE, ..Route::default() };
    let to_gateway =
        Route { to: Some((gateway, width)), link, scope: scope::LINK, source: Some(own), ..Route::default() };
    let over_it =
        Route { to: Some(subnet), link, gateway: Some(gateway), source: Some(own), ..Route::default() };
    vec![route::delete(&on_link), route::add(&to_gateway), route::add(&over_it)]
}

/// The bits of a single address.
fn whole(address: IpAddr) -> u8 {
    if address.is_ipv4() { 32 } else { 128 }
}

/// CHECK.
pub(super) fn check(call: &mut Call<'_>, input: &Input, before: &Outcome) -> Result<()> {
    pool(call, input)?.check(call, before)?;
    let (mut inside, there) = bridge::inside(call, before)?;
    addresses::check(&mut inside, &there, before)
}
