//! What a host may have that leaves a network to the plugins' own programs.

use std::path::Path;

use berth_net::nft::{self, Family, Table};
use serde_json::Value;

use super::options::Kind;
use crate::config::Plugin;

/// Patterns of the parameters that the tuning plugin may set.
const ALLOW_LIST: &str = "/etc/cni/tuning/allowlist.conf";

/// Whether plugins can be done in process here; the error says in words why not.
pub(super) fn allows(plugins: &[(&Plugin, Kind)]) -> Result<(), String> {
    for (plugin, kind) in plugins {
        let is_set = |key: &str| plugin.config.get(key).is_some_and(|value| !value.is_null());
        match kind {
            Kind::Bridge | Kind::Ptp if plugin.config.get("ipMasq") == Some(&Value::Bool(true)) => {
                packet_filter(is_set("ipMasqBackend"))?;
            }
            Kind::Portmap => packet_filter(is_set("backend"))?,
            Kind::Firewall => {
                packet_filter(false)?;
                let firewalld = Table { family: Family::Inet, name: "firewalld" };
                if firewalld.exists().map_err(|error| format!("cannot look for firewalld: {error}"))? {
                    return Err("firewalld runs, which the plugin firewall talks to".into());
                }
            }
            Kind::Tuning if is_set("sysctl") && Path::new(ALLOW_LIST).exists() => {
                return Err(format!("{ALLOW_LIST} restricts the plugin tuning by patterns"));
            }
            _ => {}
        }
    }
    Ok(())
}

/// Whether nftables is there, and, unless it was asked for by name, nobody uses the tables that iptables had before
/// it: the plugins would put their rules there.
fn packet_filter(by_name: bool) -> Result<(), String> {
    nft::is_there().map_err(|error| format!("the kernel has no nftables: {error}"))?;
    for file in ["ip_tables_names", "ip6_tables_names"] {
        let path = Path::new("/proc/thread-self/net").join(file);
        if !by_name && std::fs::read_to_string(path).is_ok_and(|text| !text.trim().is_empty()) {
            return Err("iptables-legacy has rules on this host, which only its program can change".into());
        }
    }
    Ok(())
}
