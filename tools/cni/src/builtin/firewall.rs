//! The firewall plugin: packets to and from an attachment are let through, in the chain `CNI-FORWARD` of `ip filter`
//! and `ip6 filter`, as iptables-nft writes it: its program, and the plugin through it, can read it.

use std::io;
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};

use berth_net::nft::{Batch, Expression, Family, Hook, Listed, Rule, Table, Tracked};
use berth_net::route::octets;
use berth_types::{Error, Result};
use serde::Deserialize;

use super::{Input, arguments, parsed};
use crate::outcome::Outcome;

const ENTRY: &str = "FORWARD";
const CHAIN: &str = "CNI-FORWARD";
const ADMIN: &str = "CNI-ADMIN";

/// One at a time in this process looks whether the chains are there and makes them.
static FIRST: Mutex<()> = Mutex::new(());

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Options {
    iptables_admin_chain_name: String,
}

fn table(ipv6: bool) -> Table<'static> {
    Table { family: if ipv6 { Family::Six } else { Family::Four }, name: "filter" }
}

/// How the state of a connection is asked for: by iptables' extension, which iptables' program understands, or, if
/// the kernel does not have it, by what the packet filter itself has.
#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Extension,
    Own,
}

fn admin(input: &Input) -> Result<String> {
    let Options { iptables_admin_chain_name: name } = arguments::options(input)?;
    Ok(if name.is_empty() { ADMIN.into() } else { name })
}

/// ADD.
pub(super) fn add(input: &Input, before: Outcome) -> Result<Outcome> {
    let admin = admin(input)?;
    let wrong = |error| Error::io("cannot set the rules that let its packets through", error);
    for ipv6 in [false, true] {
        let addresses = addresses(&before, ipv6);
        if addresses.is_empty() {
            continue;
        }
        match put(table(ipv6), &admin, &addresses, State::Extension) {
            Err(error) if matches!(error.raw_os_error(), Some(2 | 95)) => {
                put(table(ipv6), &admin, &addresses, State::Own).map_err(wrong)?;
            }
            other => other.map_err(wrong)?,
        }
    }
    Ok(before)
}

fn put(table: Table<'_>, admin: &str, addresses: &[IpAddr], state: State) -> io::Result<()> {
    let _one = FIRST.lock().unwrap_or_else(PoisonError::into_inner);
    let mut batch = Batch::begin();
    batch.table(table, None);
    batch.chain(table, ENTRY, Some(Hook { kind: "filter", number: Hook::FORWARD, priority: 0 }), None);
    batch.chain(table, CHAIN, None, None);
    batch.chain(table, admin, None, None);
    let own = table.rules(CHAIN)?;
    if !table.rules(ENTRY)?.iter().any(|rule| rule.leads_to(CHAIN)) {
        batch.insert(table, ENTRY, None, jump("CNI firewall plugin rules", CHAIN));
    }
    if !own.iter().any(|rule| rule.leads_to(admin)) {
        batch.insert(table, CHAIN, None, jump("CNI firewall plugin admin overrides", admin));
    }
    for address in addresses {
        if !own.iter().any(|rule| lets_in(rule, *address)) {
            batch.append(table, CHAIN, None, inwards(*address, state));
        }
        if !own.iter().any(|rule| lets_out(rule, *address)) {
            batch.append(table, CHAIN, None, Rule::default().from(*address).counter().accept());
        }
    }
    batch.send()
}

/// With its comment as iptables' extension has it: 256 bytes of text.
fn jump(comment: &str, chain: &str) -> Rule {
    let mut bytes = comment.as_bytes().to_vec();
    bytes.resize(256, 0);
    Rule::default().extension("comment", 0, bytes).counter().jump(chain)
}

/// Packets of connections that the container has begun, or that belong to one.
fn inwards(address: IpAddr, state: State) -> Rule {
    let rule = Rule::default().to(address);
    let rule = match state {
        State::Extension => rule.extension("conntrack", 3, connection_state()),
        State::Own => {
            rule.tracked(Tracked::State, Tracked::ESTABLISHED_OR_RELATED, berth_net::nft::Compare::Different)
        }
    };
    rule.counter().accept()
}

/// `struct xt_conntrack_mtinfo3` for `--ctstate RELATED,ESTABLISHED`: what is asked, and which states.
fn connection_state() -> Vec<u8> {
    const SIZE: usize = 168;
    const FLAGS: usize = 146;
    const STATES: usize = 150;
    const ASK_FOR_STATE: u16 = 1;
    const ESTABLISHED_OR_RELATED: u16 = 1 << 1 | 1 << 2;
    let mut bytes = vec![0; SIZE];
    bytes[FLAGS..FLAGS + 2].copy_from_slice(&ASK_FOR_STATE.to_ne_bytes());
    bytes[STATES..STATES + 2].copy_from_slice(&ESTABLISHED_OR_RELATED.to_ne_bytes());
    bytes
}

/// DEL.
pub(super) fn del(before: &Outcome) -> Result<()> {
    for ipv6 in [false, true] {
        let addresses = addresses(before, ipv6);
        if addresses.is_empty() {
            continue;
        }
        let own = |rule: &Listed| {
            addresses.iter().any(|address| lets_in(rule, *address) || lets_out(rule, *address))
        };
        table(ipv6)
            .remove(&[CHAIN], &own)
            .map_err(|error| Error::io("cannot remove the rules that let its packets through", error))?;
    }
    Ok(())
}

/// CHECK.
pub(super) fn check(input: &Input, before: &Outcome) -> Result<()> {
    let admin = admin(input)?;
    let wrong = |error| Error::io("cannot look at the rules that let its packets through", error);
    let missing = |what: String| Error::failed_precondition(format!("expected {what} not found"));
    for ipv6 in [false, true] {
        let addresses = addresses(before, ipv6);
        if addresses.is_empty() {
            continue;
        }
        let rules = table(ipv6).rules(CHAIN).map_err(wrong)?;
        if !table(ipv6).rules(ENTRY).map_err(wrong)?.iter().any(|rule| rule.leads_to(CHAIN)) {
            return Err(missing(format!("{ENTRY} rule to {CHAIN}")));
        }
        if !rules.iter().any(|rule| rule.leads_to(&admin)) {
            return Err(missing(format!("{CHAIN} rule to {admin}")));
        }
        for address in addresses {
            if !rules.iter().any(|rule| lets_in(rule, address))
                || !rules.iter().any(|rule| lets_out(rule, address))
            {
                return Err(missing(format!("rule of {address}")));
            }
        }
    }
    Ok(())
}

fn addresses(before: &Outcome, ipv6: bool) -> Vec<IpAddr> {
    let all = parsed(&before.ips).into_iter().map(|(address, ..)| address);
    all.filter(|address| address.is_ipv6() == ipv6).collect()
}

fn lets_out(rule: &Listed, address: IpAddr) -> bool {
    let offset = if address.is_ipv4() { 12 } else { 8 };
    !rule.has("match") && !rule.has("ct") && is_for(rule, offset, address) && rule.core().len() == 3
}

fn lets_in(rule: &Listed, address: IpAddr) -> bool {
    let offset = if address.is_ipv4() { 16 } else { 24 };
    let asks = (rule.has("match") && rule.core().len() == 3) || (rule.has("ct") && rule.core().len() == 4);
    asks && is_for(rule, offset, address)
}

/// Whether a rule begins with comparing the address at an offset, and accepts.
fn is_for(rule: &Listed, offset: u32, address: IpAddr) -> bool {
    let octets = octets(address);
    let load = Expression::Payload(1, offset, octets.len() as u32);
    let accepts = |one: &&Expression| matches!(one, Expression::Verdict(verdict) if verdict.code == 1);
    match rule.core().as_slice() {
        [first, second, .., last] => {
            **first == load && **second == Expression::Compare(0, octets) && accepts(last)
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use testkit::need;

    use super::*;

    #[test]
    fn rules_are_found_again_in_either_form_and_made_once() -> Result<(), need::Missing> {
        need::root()?;
        let addresses: [IpAddr; 2] = [[10, 99, 0, 2].into(), [10, 99, 0, 20].into()];
        for state in [State::Extension, State::Own] {
            berth_sys::thread::in_new_network(|| {
                let table = table(false);
                put(table, ADMIN, &addresses, state)?;
                put(table, ADMIN, &addresses[..1], state)?;
                let rules = table.rules(CHAIN)?;
                assert_eq!(rules.len(), 5, "{rules:?}");
                let own = |rule: &Listed| lets_in(rule, addresses[0]) || lets_out(rule, addresses[0]);
                assert_eq!(table.remove(&[CHAIN], &own)?, 2);
                assert_eq!(table.rules(CHAIN)?.len(), 3);
                Ok(())
            })
            .unwrap();
        }
        Ok(())
    }
}
