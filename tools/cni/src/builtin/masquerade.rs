//! What the plugins bridge and ptp do for `ipMasq`: packets of an attachment that leave its subnet get the host's
//! address. In nftables' form (`inet cni_plugins_masquerade`); what was made with iptables-nft is removed too.

use std::fmt::Write as _;
use std::io;
use std::net::IpAddr;

use berth_net::lease::{address, number};
use berth_net::nft::{Batch, Compare, Family, Hook, LONGEST_COMMENT, Rule, Table, shortened};
use berth_net::route::octets;
use berth_types::{Error, Result};
use sha2::{Digest, Sha512};

use super::Call;

const TABLE: Table<'_> = Table { family: Family::Inet, name: "cni_plugins_masquerade" };
const CHAIN: &str = "masq_checks";
const ENTRY: &str = "postrouting";

/// Puts the rules of an attachment in place of those that it has.
pub(super) fn put(call: &Call<'_>, ips: &[(IpAddr, u8, Option<IpAddr>)]) -> Result<()> {
    let wrong = |error| Error::io("cannot set the rules that masquerade", error);
    let comment = comment(&call.list.name, call.device, call.container);
    let stale = TABLE.rules(CHAIN).map_err(wrong)?;
    let mut batch = Batch::begin();
    let about = "Masquerading for plugins from github.com/containernetworking/plugins";
    batch.table(TABLE, Some(about));
    let about = "Masquerade traffic from certain IPs to any (non-multicast) IP outside their subnet";
    batch.chain(TABLE, CHAIN, None, Some(about));
    let hook = Hook { kind: "nat", number: Hook::POSTROUTING, priority: Hook::SOURCE_NAT };
    batch.chain(TABLE, ENTRY, Some(hook), None);
    batch.flush(TABLE, ENTRY);
    for (like, mask, value) in [
        (IpAddr::from([0, 0, 0, 0]), vec![0xf0, 0, 0, 0], vec![0xe0, 0, 0, 0]),
        (IpAddr::from([0u16; 8]), first_byte(), first_byte()),
    ] {
        let to = Rule::default().family(like).load_destination(like);
        batch.append(TABLE, ENTRY, None, to.masked(mask).compare(Compare::Equal, value).back());
    }
    batch.append(TABLE, ENTRY, None, Rule::default().go_to(CHAIN));
    for rule in stale.iter().filter(|rule| rule.comment == comment) {
        batch.delete(TABLE, rule);
    }
    for (own, prefix, _) in ips {
        batch.append(TABLE, CHAIN, Some(&comment), rule(*own, *prefix));
    }
    batch.send().map_err(wrong)
}

/// The first byte of every multicast address of IPv6.
fn first_byte() -> Vec<u8> {
    let mut bytes = vec![0; 16];
    bytes[0] = 0xff;
    bytes
}

fn rule(own: IpAddr, prefix: u8) -> Rule {
    let width = if own.is_ipv4() { 32 } else { 128 };
    let hosts = u128::MAX.checked_shr(128 - u32::from(width - prefix)).unwrap_or(0);
    let (subnet, all) =
        (address(number(own) & !hosts, own), if own.is_ipv4() { u32::MAX.into() } else { u128::MAX });
    let mask = octets(address(all & !hosts, own));
    let from = Rule::default().family(own).from(own).load_destination(own);
    from.masked(mask).compare(Compare::Different, octets(subnet)).masquerade()
}

/// Removes the rules of an attachment; it may have none.
pub(super) fn remove(call: &Call<'_>) -> Result<()> {
    let wrong = |error| Error::io("cannot remove the rules that masquerade", error);
    let own = prefix(&call.list.name, call.device, call.container);
    TABLE.remove(&[CHAIN], &|rule| rule.comment.starts_with(&own)).map_err(wrong)?;
    // With iptables the plugins have a chain for each container, whatever its device.
    remove_chain(&chain(&call.list.name, call.container, ""), &["POSTROUTING"]).map_err(wrong)
}

/// Removes the rules of a network that are of nobody valid.
pub(super) fn collect(network: &str, valid: &[(String, String)]) -> Result<()> {
    let valid: Vec<String> =
        valid.iter().map(|(container, device)| comment(network, device, container)).collect();
    let own = format!("{}-", hash(network, 16));
    let stale =
        |rule: &berth_net::nft::Listed| rule.comment.starts_with(&own) && !valid.contains(&rule.comment);
    TABLE.remove(&[CHAIN], &stale).map(drop).map_err(|error| {
        Error::io(format!("cannot remove rules of network {network} that masquerade"), error)
    })
}

/// Removes what a plugin has made with iptables-nft in its table for NAT.
pub(super) fn remove_chain(chain: &str, callers: &[&str]) -> io::Result<()> {
    for family in [Family::Four, Family::Six] {
        Table { family, name: "nat" }.remove_chain(chain, callers)?;
    }
    Ok(())
}

/// The name of the chain that a plugin makes for a container with iptables.
pub(super) fn chain(network: &str, container: &str, prefix: &str) -> String {
    let prefix = format!("CNI-{prefix}");
    let length = 28 - prefix.len();
    format!("{prefix}{}", hash(&format!("{network}{container}"), length))
}

fn prefix(network: &str, device: &str, container: &str) -> String {
    format!("{}-{}", hash(network, 16), hash(&format!("{device}:{container}"), 16))
}

/// The comment of an attachment's rules. Names have no quotes.
fn comment(network: &str, device: &str, container: &str) -> String {
    let own = prefix(network, device, container);
    let whole = format!("{own}, net: {network}, if: {device}, id: {container}");
    shortened(&whole, LONGEST_COMMENT).to_owned()
}

fn hash(text: &str, length: usize) -> String {
    let mut whole = String::new();
    for byte in Sha512::digest(text) {
        let _ = write!(whole, "{byte:02x}");
    }
    whole.truncate(length);
    whole
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_of_the_plugins() {
        // As Go's utils.FormatChainName and the prefix of comments have them.
        assert_eq!(chain("test", "1234", "").len(), 28);
        assert!(chain("test", "1234", "DN-").starts_with("CNI-DN-"));
        assert_eq!(hash("", 16), "cf83e1357eefb8bd");
        let long = comment("net", "eth0", &"f".repeat(200));
        assert_eq!(long.len(), LONGEST_COMMENT);
    }
}
