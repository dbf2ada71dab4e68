//! The configuration: containerd's TOML, with its keys and its versions.
//!
//! ```text
//!   file ─ keys checked ─ migrated to version 4 ─┐
//!   its imports, the same ───────────────────────┴─▶ laid over the defaults ─▶ Config
//! ```
//! A key that nobody knows in a table that is known is an error which names the nearest one. Tables of plugins that
//! are not ours (CRI, NRI, other people's) are kept as they are. Flags and the environment have no place here.

mod duration;
mod keys;
mod load;
mod merge;
mod migrate;
mod nearest;
mod plugins;
mod transfer;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

pub(crate) use duration::GoDuration;
pub(crate) use load::ConfigError;
pub(crate) use plugins::Plugins;

use crate::identity::Identity;

/// The version that is written; older ones are migrated.
pub(crate) const VERSION: i64 = 4;

/// Everything that can be configured, in the order in which it is written.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Config {
    pub(crate) version: i64,
    /// What survives a reboot.
    pub(crate) root: PathBuf,
    /// What does not.
    pub(crate) state: PathBuf,
    /// Where temporary files go; empty for the system's place.
    pub(crate) temp: PathBuf,
    pub(crate) disabled_plugins: Vec<String>,
    pub(crate) required_plugins: Vec<String>,
    /// Of the daemon itself; 0 leaves it as it is.
    pub(crate) oom_score: i32,
    pub(crate) imports: Vec<String>,
    pub(crate) debug: Debug,
    pub(crate) cgroup: Cgroup,
    pub(crate) timeouts: BTreeMap<String, GoDuration>,
    pub(crate) proxy_plugins: BTreeMap<String, ProxyPlugin>,
    pub(crate) stream_processors: BTreeMap<String, StreamProcessor>,
    pub(crate) plugins: Plugins,
    /// What whoever wrote the files should know.
    #[serde(skip)]
    pub(crate) warnings: Vec<String>,
}

/// The log.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Debug {
    /// trace, debug, info, warn, error, fatal or panic; empty is info.
    pub(crate) level: String,
    /// text or json; empty is text.
    pub(crate) format: String,
    pub(crate) log_trace_id: bool,
}

/// The daemon's own cgroup.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Cgroup {
    /// Below the cgroup filesystem; empty for the one that the daemon is started in.
    pub(crate) path: String,
}

/// A part of the daemon that is another process.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct ProxyPlugin {
    /// `snapshot`, `content`, `diff` or `sandbox`, or the whole kind.
    pub(crate) r#type: String,
    pub(crate) address: String,
    pub(crate) platform: String,
    pub(crate) exports: BTreeMap<String, String>,
    pub(crate) capabilities: Vec<String>,
}

/// A program that turns layers of one media type into another.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct StreamProcessor {
    pub(crate) accepts: Vec<String>,
    pub(crate) returns: String,
    pub(crate) path: String,
    pub(crate) args: Vec<String>,
    pub(crate) env: Vec<String>,
}

impl StreamProcessor {
    /// The program as the differ runs it.
    pub(crate) fn named(&self, id: &str) -> anyhow::Result<berth_diff::Processor> {
        let Self { accepts, returns, path, args, env } = self.clone();
        anyhow::ensure!(
            !path.is_empty() && !returns.is_empty(),
            "[stream_processors.{id:?}] needs a path and a type that it returns"
        );
        if let Some(pair) = env.iter().find(|pair| !pair.contains('=')) {
            anyhow::bail!("{pair:?} in the env of [stream_processors.{id:?}] is not of the form NAME=VALUE");
        }
        Ok(berth_diff::Processor { accepts, returns, args, env, ..berth_diff::Processor::new(id, path) })
    }
}

impl Config {
    /// What holds when nobody says otherwise.
    pub(crate) fn defaults(identity: &Identity) -> Self {
        let timeouts = [
            ("io.containerd.timeout.bolt.open", 0),
            ("io.containerd.timeout.shim.cleanup", 5),
            ("io.containerd.timeout.shim.load", 5),
            ("io.containerd.timeout.shim.shutdown", 3),
            ("io.containerd.timeout.task.state", 2),
            ("io.containerd.timeout.metrics.shimstats", 2),
        ];
        let timeouts = timeouts.map(|(name, seconds)| (name.to_owned(), GoDuration::from_secs(seconds)));
        Self {
            version: VERSION,
            root: identity.root.into(),
            state: identity.state.into(),
            temp: PathBuf::new(),
            disabled_plugins: Vec::new(),
            required_plugins: Vec::new(),
            oom_score: 0,
            imports: vec![identity.imports.to_owned()],
            debug: Debug::default(),
            cgroup: Cgroup::default(),
            timeouts: timeouts.into(),
            proxy_plugins: BTreeMap::new(),
            stream_processors: BTreeMap::new(),
            plugins: Plugins::defaults(identity),
            warnings: Vec::new(),
        }
    }

    /// The configuration of a file and of what it imports.
    pub(crate) fn load(path: &Path, identity: &Identity) -> Result<Self, ConfigError> {
        load::load(path, identity)
    }

    /// The whole of it as a file of the newest version.
    pub(crate) fn to_toml(&self) -> String {
        toml::to_string_pretty(self).expect("every value of a configuration has a form in TOML")
    }

    /// How long something outside the daemon may take.
    pub(crate) fn timeout(&self, name: &str) -> Option<std::time::Duration> {
        self.timeouts.get(name).map(|duration| duration.as_std())
    }

    /// Fills in what depends on other values: the shims' socket is beside the clients' unless it is set.
    pub(crate) fn complete(&mut self) {
        let Plugins { grpc, ttrpc, .. } = &mut self.plugins;
        if ttrpc.address.is_empty() {
            ttrpc.address = format!("{}.ttrpc", grpc.address);
            if (ttrpc.uid, ttrpc.gid) == plugins::own_ids() {
                (ttrpc.uid, ttrpc.gid) = (grpc.uid, grpc.gid);
            }
        }
    }
}

#[cfg(test)]
mod tests;
