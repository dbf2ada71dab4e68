//! A device in a namespace gets its addresses and routes, or is checked for them.

use std::io;
use std::net::IpAddr;

use berth_net::link::{Link, up};
use berth_net::netlink::Socket;
use berth_net::route::{self, add, add_address};
use berth_types::{Error, Result};

use crate::outcome::{Outcome, Route, split};

/// Gives a device the addresses and routes of a result, and sets it up; in one exchange with the kernel.
pub(super) fn configure(inside: &mut Socket, link: &Link, outcome: &Outcome) -> io::Result<()> {
    let mut messages = Vec::new();
    let ips = super::parsed(&outcome.ips);
    for (address, prefix, _) in &ips {
        messages.push(add_address(link.index, *address, *prefix));
    }
    messages.push(up(link.index));
    for route in &outcome.routes {
        let to = split(&route.dst).ok_or(io::ErrorKind::InvalidInput)?;
        let of_family = |gateway: &IpAddr| gateway.is_ipv4() == to.0.is_ipv4();
        let default = ips.iter().filter_map(|(.., gateway)| *gateway).find(of_family);
        messages.push(add(&route::Route {
            to: Some(to),
            link: link.index,
            gateway: gateway(route).or(default),
            scope: route.scope.and_then(|scope| u8::try_from(scope).ok()).unwrap_or(route::scope::UNIVERSE),
            priority: route.priority.try_into().unwrap_or(0),
            table: route.table.and_then(|table| u32::try_from(table).ok()).unwrap_or(0),
            ..route::Route::default()
        }));
    }
    inside.execute_all(messages)
}

fn gateway(route: &Route) -> Option<IpAddr> {
    route.gw.as_deref().and_then(|gateway| gateway.parse().ok())
}

/// Whether a device has the addresses of a result, and its namespace the routes; the error says what is missing.
pub(super) fn check(inside: &mut Socket, link: &Link, outcome: &Outcome) -> Result<()> {
    let missing = |what: String| Error::failed_precondition(what);
    let wrong = |error| Error::io(format!("cannot look at {}", link.name), error);
    let has = inside.addresses(link.index).map_err(wrong)?;
    let ips = super::parsed(&outcome.ips);
    if let Some((address, prefix, _)) =
        ips.iter().find(|(address, prefix, _)| !has.contains(&(*address, *prefix)))
    {
        return Err(missing(format!("Failed to match addr {address}/{prefix} on interface {}", link.name)));
    }
    let mut routes = inside.routes(false).map_err(wrong)?;
    routes.extend(inside.routes(true).map_err(wrong)?);
    let leads = |to: (IpAddr, u8)| {
        let to = (berth_net::lease::address(network(to), to.0), to.1);
        move |route: &route::Route| match route.to {
            Some(own) => own == to,
            None => to.1 == 0 && route.gateway.is_none_or(|gateway| gateway.is_ipv4() == to.0.is_ipv4()),
        }
    };
    for (address, prefix, _) in ips {
        if !routes.iter().any(leads((address, prefix))) {
            return Err(missing(format!("the route to the subnet of {address}/{prefix} is gone")));
        }
    }
    for wanted in &outcome.routes {
        let Some(to) = split(&wanted.dst) else { continue };
        let is_it = leads(to);
        let by = gateway(wanted).filter(|_| to.1 != 0);
        if !routes.iter().any(|route| is_it(route) && (by.is_none() || route.gateway == by)) {
            return Err(missing(format!("Expected Route to {} not found in routing table", wanted.dst)));
        }
    }
    Ok(())
}

/// The number of a subnet's own address.
fn network((address, prefix): (IpAddr, u8)) -> u128 {
    let width = if address.is_ipv4() { 32 } else { 128 };
    let hosts = u128::MAX.checked_shr(128 - u32::from(width - prefix)).unwrap_or(0);
    berth_net::lease::number(address) & !hosts
}
