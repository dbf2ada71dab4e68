//! The table of the Node Resource Interface.

use std::path::PathBuf;
use std::time::Duration;

use berth_nri::{Config, ValidatorConfig};
use serde::Deserialize;

use crate::config::GoDuration;
use crate::identity;

/// What plugins take the runtime for: the one whose interface this is.
const RUNTIME: &str = "containerd";

/// The plugin, and its table.
pub(crate) const NRI: &str = "io.containerd.nri.v1.nri";

/// `[plugins.'io.containerd.nri.v1.nri']`.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Nri {
    disable: bool,
    disable_connections: bool,
    plugin_config_path: PathBuf,
    plugin_path: PathBuf,
    plugin_registration_timeout: GoDuration,
    plugin_request_timeout: GoDuration,
    socket_path: PathBuf,
    default_validator: ValidatorConfig,
}

impl Nri {
    /// As the interface takes it; none where it is disabled. What is empty or zero is as by default, as in containerd.
    pub(super) fn config(self) -> Option<Config> {
        let Self {
            disable,
            disable_connections,
            plugin_config_path,
            plugin_path,
            plugin_registration_timeout,
            plugin_request_timeout,
            socket_path,
            default_validator,
        } = self;
        let default = Config::default();
        let path = |set: PathBuf, default| if set.as_os_str().is_empty() { default } else { set };
        let limit =
            |set: GoDuration, default| if set.as_std() == Duration::ZERO { default } else { set.as_std() };
        (!disable).then(|| Config {
            plugin_path: path(plugin_path, default.plugin_path),
            plugin_config_path: path(plugin_config_path, default.plugin_config_path),
            socket_path: path(socket_path, default.socket_path),
            disable_connections,
            plugin_registration_timeout: limit(
                plugin_registration_timeout,
                default.plugin_registration_timeout,
            ),
            plugin_request_timeout: limit(plugin_request_timeout, default.plugin_request_timeout),
            default_validator,
            runtime_name: RUNTIME.to_owned(),
            runtime_version: identity::version(),
        })
    }
}
