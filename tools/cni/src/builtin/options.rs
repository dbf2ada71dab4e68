//! Which configurations are done in process: those of which every option that is set is known here.

use serde_json::{Map, Value};

use crate::config::Plugin;
use crate::version::Version;

/// A plugin that is done in process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Bridge,
    Ptp,
    Loopback,
    Portmap,
    Firewall,
    Tuning,
}

/// What every configuration may have.
const COMMON: [&str; 6] = ["type", "name", "cniVersion", "capabilities", "dns", "runtimeConfig"];

impl Kind {
    fn of(name: &str) -> Option<Self> {
        Some(match name {
            "bridge" => Self::Bridge,
            "ptp" => Self::Ptp,
            "loopback" => Self::Loopback,
            "portmap" => Self::Portmap,
            "firewall" => Self::Firewall,
            "tuning" => Self::Tuning,
            _ => return None,
        })
    }

    fn options(self) -> &'static [&'static str] {
        match self {
            Self::Bridge => &[
                "bridge",
                "isGateway",
                "isDefaultGateway",
                "forceAddress",
                "ipMasq",
                "ipMasqBackend",
                "mtu",
                "hairpinMode",
                "promiscMode",
                "portIsolation",
                "ipam",
                "args",
            ],
            Self::Ptp => &["ipMasq", "ipMasqBackend", "mtu", "ipam", "args"],
            Self::Loopback => &[],
            Self::Portmap => &["backend", "snat"],
            Self::Firewall => &["backend", "iptablesAdminChainName", "ingressPolicy"],
            Self::Tuning => &["dataDir", "sysctl", "mac", "promisc", "mtu", "txQLen", "allmulti"],
        }
    }
}

/// What host-local takes.
const ADDRESSES: [&str; 10] = [
    "type",
    "name",
    "routes",
    "dataDir",
    "resolvConf",
    "ranges",
    "subnet",
    "rangeStart",
    "rangeEnd",
    "gateway",
];

/// Which plugin it is; the error says in words why it is not done in process.
pub(super) fn kind(plugin: &Plugin, version: Version) -> Result<Kind, String> {
    let name = &plugin.kind;
    let kind = Kind::of(name).ok_or_else(|| format!("plugin {name} is not one that is done in process"))?;
    known(&plugin.config, &[&COMMON, kind.options()])
        .map_err(|key| format!("option {key} of plugin {name} is not done in process"))?;
    let text = |key: &str| plugin.config.get(key).and_then(Value::as_str).unwrap_or_default();
    let backend = if matches!(kind, Kind::Bridge | Kind::Ptp) { "ipMasqBackend" } else { "backend" };
    let backends: &[&str] =
        if kind == Kind::Firewall { &["", "iptables", "nftables"] } else { &["", "nftables"] };
    if !backends.contains(&text(backend)) {
        return Err(format!("{backend} {} of plugin {name} is not done in process", text(backend)));
    }
    match kind {
        Kind::Firewall if version < Version::V0_4_0 => {
            return Err(format!("plugin firewall does not speak version {version}"));
        }
        Kind::Firewall if !["", "open"].contains(&text("ingressPolicy")) => {
            return Err(format!("ingressPolicy {} is not done in process", text("ingressPolicy")));
        }
        Kind::Bridge | Kind::Ptp => addresses(plugin, kind)?,
        _ => {}
    }
    Ok(kind)
}

fn addresses(plugin: &Plugin, kind: Kind) -> Result<(), String> {
    let ipam = match plugin.config.get("ipam").filter(|value| !is_unset(value)) {
        None if kind == Kind::Bridge => return Ok(()),
        None => return Err("plugin ptp has no ipam".into()),
        Some(ipam) => ipam,
    };
    match ipam.get("type").and_then(Value::as_str).unwrap_or_default() {
        "host-local" => {}
        "" if kind == Kind::Bridge => return Ok(()),
        other => return Err(format!("ipam {other:?} is not done in process")),
    }
    let all = ipam.as_object().ok_or("ipam is no object")?;
    known(all, &[&ADDRESSES]).map_err(|key| format!("option {key} of ipam host-local is not done in process"))
}

/// The first key that is set and not among these.
fn known(config: &Map<String, Value>, lists: &[&[&str]]) -> Result<(), String> {
    let is_known = |key: &str| lists.iter().any(|list| list.contains(&key));
    match config.iter().find(|(key, value)| !is_known(key) && !is_unset(value)) {
        Some((key, _)) => Err(key.clone()),
        None => Ok(()),
    }
}

/// Whether a value means the same as none.
fn is_unset(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Bool(on) => !on,
        Value::Number(number) => number.as_f64() == Some(0.0),
        Value::String(text) => text.is_empty(),
        Value::Array(list) => list.is_empty(),
        Value::Object(map) => map.is_empty(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn why(config: Value) -> String {
        let Value::Object(config) = config else { panic!("an object") };
        let plugin = Plugin { kind: config["type"].as_str().unwrap().into(), config };
        kind(&plugin, Version::V1_0_0).err().unwrap_or_default()
    }

    #[test]
    fn what_is_not_done_in_process_is_named() {
        let ipam = json!({"type": "host-local", "subnet": "10.0.0.0/24"});
        for (config, reason) in [
            (json!({"type": "macvlan"}), "plugin macvlan is not one that is done in process"),
            (json!({"type": "bridge", "vlan": 5}), "option vlan of plugin bridge is not done in process"),
            (json!({"type": "bridge", "ipam": {"type": "dhcp"}}), "ipam \"dhcp\" is not done in process"),
            (
                json!({"type": "bridge", "ipam": {"type": "host-local", "exclude": ["x"]}}),
                "option exclude of ipam host-local is not done in process",
            ),
            (
                json!({"type": "ptp", "ipMasqBackend": "iptables", "ipam": ipam}),
                "ipMasqBackend iptables of plugin ptp is not done in process",
            ),
            (json!({"type": "ptp"}), "plugin ptp has no ipam"),
            (
                json!({"type": "portmap", "backend": "iptables"}),
                "backend iptables of plugin portmap is not done in process",
            ),
            (
                json!({"type": "portmap", "masqAll": true}),
                "option masqAll of plugin portmap is not done in process",
            ),
            (
                json!({"type": "firewall", "ingressPolicy": "isolated"}),
                "ingressPolicy isolated is not done in process",
            ),
            (
                json!({"type": "firewall", "backend": "firewalld"}),
                "backend firewalld of plugin firewall is not done in process",
            ),
        ] {
            assert_eq!(why(config), reason);
        }
        assert_eq!(why(json!({"type": "bridge", "vlan": 0, "macspoofchk": false, "vlanTrunk": null})), "");
        assert_eq!(why(json!({"type": "ptp", "ipMasq": true, "ipam": ipam})), "");
        let plugin = Plugin { kind: "firewall".into(), config: Map::new() };
        assert!(kind(&plugin, Version::V0_3_1).unwrap_err().contains("does not speak version 0.3.1"));
    }
}
