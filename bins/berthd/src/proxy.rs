//! `[proxy_plugins]`: parts of the daemon that are other processes, spoken to with the client.

use std::collections::BTreeMap;
use std::sync::Arc;

use berth_client::Client;
use berth_core::{Catalog, Differ, Scope, Snapshotter};
use berth_types::{Namespace, PluginInfo, SnapshotterName};

use crate::config::{Config, ProxyPlugin};
use crate::introspection::ready;
use crate::parts::Opened;

/// Under which namespace the daemon speaks to a snapshotter: the keys that it sends are unique by themselves.
const NAMESPACE: &str = "default";

const SNAPSHOT: [&str; 2] = ["snapshot", "io.containerd.snapshotter.v1"];
const DIFF: [&str; 2] = ["diff", "io.containerd.differ.v1"];
const SANDBOX: [&str; 2] = ["sandbox", "io.containerd.sandbox.controller.v1"];

/// The snapshotters among them. Connecting waits for the first request, so each is ready at once.
pub(crate) fn snapshotters(
    config: &Config,
) -> impl Iterator<Item = (String, Opened<dyn Snapshotter>)> + use<'_> {
    of_kind(config, SNAPSHOT).map(|(name, plugin)| (name.clone(), snapshotter(name, plugin)))
}

fn snapshotter(name: &str, plugin: &ProxyPlugin) -> Opened<dyn Snapshotter> {
    let Ok(called) = name.parse::<SnapshotterName>() else {
        return Opened::Failed(format!("{name:?} cannot be the name of a snapshotter"));
    };
    let namespace: Namespace = NAMESPACE.parse().expect("it is an identifier");
    match Client::connect(&plugin.address).snapshotter(&called, &Scope::new(namespace)) {
        Ok(part) => {
            Opened::Ready { part, exports: exports(plugin), capabilities: plugin.capabilities.clone() }
        }
        Err(error) => Opened::Failed(error.chain()),
    }
}

/// The differs among them, which look at the content of the namespace that they are used in.
pub(crate) fn differs(config: &Config) -> BTreeMap<String, Client> {
    of_kind(config, DIFF).map(|(name, plugin)| (name.clone(), Client::connect(&plugin.address))).collect()
}

/// The controllers of sandboxes among them.
pub(crate) fn controllers(config: &Config) -> BTreeMap<String, Client> {
    of_kind(config, SANDBOX).map(|(name, plugin)| (name.clone(), Client::connect(&plugin.address))).collect()
}

/// Whether one of them has this name.
pub(crate) fn is_controller(config: &Config, name: &str) -> bool {
    of_kind(config, SANDBOX).any(|(known, _)| known == name)
}

/// Their records.
pub(crate) fn controller_records(config: &Config) -> Vec<PluginInfo> {
    let record = |(name, plugin): (&String, &ProxyPlugin)| {
        let mut record = ready(SANDBOX[1], name, &[]);
        record.exports = exports(plugin);
        record.capabilities.clone_from(&plugin.capabilities);
        record
    };
    of_kind(config, SANDBOX).map(record).collect()
}

/// A remote differ for one namespace.
pub(crate) fn differ(client: &Client, scope: &Scope) -> Arc<dyn Differ> {
    client.differ(scope)
}

/// What is named there and is not taken up, with the reason.
pub(crate) fn warnings(config: &Config) -> Vec<String> {
    let known = |kind: &str| [SNAPSHOT, DIFF, SANDBOX].iter().any(|kinds| kinds.contains(&kind));
    let others = config.proxy_plugins.iter().filter(|(_, plugin)| !known(&plugin.r#type));
    others
        .map(|(name, plugin)| {
            format!(
                "the proxy plugin {name:?} of type {:?} is not used: snapshot, diff and sandbox are known",
                plugin.r#type
            )
        })
        .collect()
}

fn of_kind<'a>(
    config: &'a Config,
    kinds: [&'static str; 2],
) -> impl Iterator<Item = (&'a String, &'a ProxyPlugin)> {
    config.proxy_plugins.iter().filter(move |(_, plugin)| kinds.contains(&plugin.r#type.as_str()))
}

fn exports(plugin: &ProxyPlugin) -> BTreeMap<String, String> {
    let mut exports = plugin.exports.clone();
    exports.insert("address".to_owned(), plugin.address.clone());
    exports
}
