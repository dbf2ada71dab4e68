//! What can be set in the file that `--config` names, or in `/etc/berth/lazyd.toml`.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};
use serde::Deserialize;

const USUAL: &str = "/etc/berth/lazyd.toml";

/// How long a registry may take to accept a connection and may be silent: whoever reads a file waits for it.
const CONNECT: Duration = Duration::from_secs(5);
const SILENCE: Duration = Duration::from_secs(10);
/// How often a request is repeated within the time that a read has.
const RETRIES: u32 = 2;

/// The configuration.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Config {
    /// Snapshots, tables and the cache.
    pub(crate) root: PathBuf,
    /// The socket.
    pub(crate) address: PathBuf,
    /// How lazy layers behave.
    pub(crate) lazy: berth_lazy::Config,
    /// How registries are reached.
    pub(crate) registry: Registry,
    /// Figures for Prometheus.
    pub(crate) metrics: Metrics,
}

/// `[metrics]`, as berthd has it.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Metrics {
    /// HOST:PORT; empty means that nothing is served.
    pub(crate) address: String,
}

/// `[registry]`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Registry {
    /// Folders with `HOST/hosts.toml`; empty means the usual ones.
    config_path: Vec<PathBuf>,
    /// Docker's config.json, whose credentials are used; empty means root's own.
    docker_config: PathBuf,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            root: "/var/lib/berth-lazyd".into(),
            address: "/run/berth-lazyd/lazyd.sock".into(),
            lazy: berth_lazy::Config::default(),
            registry: Registry::default(),
            metrics: Metrics::default(),
        }
    }
}

impl Config {
    /// Reads the file that is given, else the usual one if it is there.
    pub(crate) fn read(path: Option<&Path>) -> Result<Self> {
        let file = path.unwrap_or(Path::new(USUAL));
        let text = match std::fs::read_to_string(file) {
            Err(error) if path.is_none() && error.kind() == io::ErrorKind::NotFound => {
                return Ok(Self::default());
            }
            read => read.with_context(|| format!("cannot read {}", file.display()))?,
        };
        toml::from_str(&text).with_context(|| format!("{} is not as it should be", file.display()))
    }
}

impl Registry {
    /// As the client of registries takes it.
    pub(crate) fn client(&self) -> berth_registry::Config {
        let mut config = berth_registry::Config::system(Some(Path::new("/root/.docker")));
        if !self.config_path.is_empty() {
            config.hosts.clone_from(&self.config_path);
        }
        if !self.docker_config.as_os_str().is_empty() {
            config.docker = Some(self.docker_config.clone());
        }
        berth_registry::Config { connect_timeout: CONNECT, read_timeout: SILENCE, retries: RETRIES, ..config }
    }
}
