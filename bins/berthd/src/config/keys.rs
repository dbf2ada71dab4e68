//! Which keys there are. What is known is read off the defaults, so that no list can fall behind the types.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::Serialize;
use toml::Table;
use toml::de::{DeTable, DeValue};

use super::migrate::RENAMED;
use super::nearest::{distance, nearest};
use super::{Config, ProxyPlugin, StreamProcessor, VERSION};
use crate::identity::Identity;

/// A key that nobody knows.
#[derive(Debug, thiserror::Error)]
#[error("{}:{line}: unknown key {key:?} in {place}{hint}", path.display())]
pub(crate) struct UnknownKey {
    path: PathBuf,
    line: usize,
    key: String,
    place: String,
    hint: String,
}

/// Tables of versions 2 and 3 that are tables of plugins today, with their keys.
const SERVERS: [(&str, &[&str]); 3] = [
    (
        "grpc",
        &[
            "address",
            "gid",
            "max_recv_message_size",
            "max_send_message_size",
            "tcp_address",
            "tcp_tls_ca",
            "tcp_tls_cert",
            "tcp_tls_common_name",
            "tcp_tls_key",
            "uid",
        ],
    ),
    ("ttrpc", &["address", "gid", "uid"]),
    ("metrics", &["address", "grpc_histogram"]),
];
/// Keys of `[debug]` in versions 2 and 3 beside those of today.
const OLD_DEBUG: [&str; 3] = ["address", "gid", "uid"];
/// A key of containerd 1.x that has had no effect since 2.0.
const PLUGIN_DIR: &str = "plugin_dir";
/// A key of the task plugin that became a variable of the shims' environment.
const SCHED_CORE: &str = "sched_core";

/// Plugins of containerd whose tables berthd keeps and does not read, or whose name tells it something.
const KEPT: [&str; 28] = [
    "io.containerd.content.v1.content",
    "io.containerd.cri.v1.images",
    "io.containerd.cri.v1.runtime",
    "io.containerd.differ.v1.erofs",
    "io.containerd.differ.v1.walking",
    "io.containerd.grpc.v1.cri",
    "io.containerd.internal.v1.cri",
    "io.containerd.internal.v1.opt",
    "io.containerd.internal.v1.tracing",
    "io.containerd.lease.v1.manager",
    "io.containerd.metrics.v1.grpc-otel",
    "io.containerd.metrics.v1.grpc-prometheus",
    "io.containerd.mount-handler.v1.erofs",
    "io.containerd.mount-manager.v1.bolt",
    "io.containerd.nri.v1.nri",
    "io.containerd.podsandbox.controller.v1.podsandbox",
    "io.containerd.runtime.v1.linux",
    "io.containerd.sandbox.controller.v1.shim",
    "io.containerd.sandbox.store.v1.local",
    "io.containerd.server.v1.debug",
    "io.containerd.server.v1.grpc-tcp",
    "io.containerd.service.v1.tasks-service",
    "io.containerd.snapshotter.v1.aufs",
    "io.containerd.snapshotter.v1.devmapper",
    "io.containerd.snapshotter.v1.overlaybd",
    "io.containerd.snapshotter.v1.zfs",
    "io.containerd.streaming.v1.manager",
    "io.containerd.tracing.processor.v1.otlp",
];

/// The keys of every table that is known.
pub(super) struct Known {
    top: Vec<String>,
    debug: Vec<String>,
    cgroup: Vec<String>,
    proxy_plugin: Vec<String>,
    stream_processor: Vec<String>,
    plugins: BTreeMap<String, Vec<String>>,
}

impl Known {
    pub(super) fn new(identity: &Identity) -> Self {
        let defaults = table(&Config::defaults(identity));
        let below =
            |key: &str| defaults.get(key).and_then(toml::Value::as_table).cloned().unwrap_or_default();
        let plugins = below("plugins");
        let plugins = plugins.iter().filter_map(|(id, table)| Some((id.clone(), keys(table.as_table()?))));
        Self {
            top: keys(&defaults),
            debug: keys(&below("debug")),
            cgroup: keys(&below("cgroup")),
            proxy_plugin: keys(&table(&ProxyPlugin::default())),
            stream_processor: keys(&table(&StreamProcessor::default())),
            plugins: plugins.collect(),
        }
    }

    /// Checks the keys of a file, before it is migrated.
    pub(super) fn check(
        &self,
        path: &Path,
        text: &str,
        file: &DeTable<'_>,
        version: i64,
    ) -> Result<(), UnknownKey> {
        let check = Check { path, text, old: version < VERSION };
        check.top(self, file)
    }

    /// The plugin that an id nobody knows probably means; none for a third party's.
    pub(super) fn meant(&self, id: &str) -> Option<&str> {
        let known = || self.plugins.keys().map(String::as_str).chain(KEPT).chain(RENAMED.map(|(old, _)| old));
        if !id.starts_with("io.containerd.") || known().any(|one| one == id) {
            return None;
        }
        nearest(id, known()).filter(|meant| distance(id, meant) <= 3)
    }
}

fn table(value: &impl Serialize) -> Table {
    Table::try_from(value).expect("a configuration has a form in TOML")
}

fn keys(table: &Table) -> Vec<String> {
    table.keys().cloned().collect()
}

struct Check<'a> {
    path: &'a Path,
    text: &'a str,
    /// Versions 2 and 3 have the server's settings at the top.
    old: bool,
}

impl Check<'_> {
    fn top(&self, known: &Known, file: &DeTable<'_>) -> Result<(), UnknownKey> {
        for (key, value) in file {
            let name = key.get_ref().as_ref();
            let server = SERVERS.iter().find(|(table, _)| *table == name);
            match (server, self.old) {
                (Some((table, keys)), true) => self.keys(value.get_ref(), keys, &format!("[{table}]"))?,
                (Some((table, _)), false) => {
                    let hint = format!(
                        ": since version 4 it is [plugins.'io.containerd.server.v1.{table}']; \
                         `config migrate` rewrites older files"
                    );
                    return Err(self.unknown(key.span().start, name, "the file", hint));
                }
                (None, _) if known.top.iter().any(|known| known == name) => {
                    self.below(known, name, value.get_ref())?;
                }
                (None, true) if name == PLUGIN_DIR => {}
                (None, _) => {
                    let near = hint(name, known.top.iter().map(String::as_str));
                    return Err(self.unknown(key.span().start, name, "the file", near));
                }
            }
        }
        Ok(())
    }

    fn below(&self, known: &Known, name: &str, value: &DeValue<'_>) -> Result<(), UnknownKey> {
        match name {
            "debug" => {
                let mut keys: Vec<&str> = known.debug.iter().map(String::as_str).collect();
                if self.old {
                    keys.extend(OLD_DEBUG);
                }
                self.keys(value, &keys, "[debug]")
            }
            "cgroup" => self.keys(value, &strs(&known.cgroup), "[cgroup]"),
            "proxy_plugins" => self.entries(value, &known.proxy_plugin, "proxy_plugins"),
            "stream_processors" => self.entries(value, &known.stream_processor, "stream_processors"),
            "plugins" => self.plugins(known, value),
            _ => Ok(()),
        }
    }

    fn entries(&self, value: &DeValue<'_>, keys: &[String], table: &str) -> Result<(), UnknownKey> {
        let DeValue::Table(entries) = value else { return Ok(()) };
        for (name, entry) in entries {
            let place = format!("[{table}.{:?}]", name.get_ref().as_ref());
            self.keys(entry.get_ref(), &strs(keys), &place)?;
        }
        Ok(())
    }

    fn plugins(&self, known: &Known, value: &DeValue<'_>) -> Result<(), UnknownKey> {
        let DeValue::Table(plugins) = value else { return Ok(()) };
        for (id, table) in plugins {
            let id = id.get_ref().as_ref();
            let today = RENAMED.iter().find(|(old, _)| *old == id).map_or(id, |(_, new)| new);
            let Some(keys) = known.plugins.get(today) else { continue };
            let mut keys = strs(keys);
            if self.old && today.ends_with("runtime.v2.task") {
                keys.push(SCHED_CORE);
            }
            self.keys(table.get_ref(), &keys, &format!("[plugins.'{id}']"))?;
        }
        Ok(())
    }

    fn keys(&self, value: &DeValue<'_>, known: &[&str], place: &str) -> Result<(), UnknownKey> {
        let DeValue::Table(table) = value else { return Ok(()) };
        let unknown = table.keys().find(|key| !known.contains(&key.get_ref().as_ref()));
        unknown.map_or(Ok(()), |key| {
            let name = key.get_ref().as_ref();
            Err(self.unknown(key.span().start, name, place, hint(name, known.iter().copied())))
        })
    }

    fn unknown(&self, at: usize, key: &str, place: &str, hint: String) -> UnknownKey {
        let line = self.text.bytes().take(at).filter(|byte| *byte == b'\n').count() + 1;
        UnknownKey { path: self.path.to_owned(), line, key: key.to_owned(), place: place.to_owned(), hint }
    }
}

fn strs(keys: &[String]) -> Vec<&str> {
    keys.iter().map(String::as_str).collect()
}

fn hint<'a>(key: &str, known: impl IntoIterator<Item = &'a str>) -> String {
    nearest(key, known).map(|near| format!("; the nearest is {near:?}")).unwrap_or_default()
}
