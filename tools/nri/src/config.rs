//! What is configured: containerd's table `[plugins.'io.containerd.nri.v1.nri']`.

use std::path::PathBuf;
use std::time::Duration;

use crate::ValidatorConfig;

/// Where plugins are and how long they may take.
#[derive(Clone, Debug)]
pub struct Config {
    /// The folder of plugins that are started with the daemon; each executable in it is `NN-name`.
    pub plugin_path: PathBuf,
    /// The folder of their configurations: `NN-name.conf`, else `name.conf`.
    pub plugin_config_path: PathBuf,
    /// The socket to which other plugins connect.
    pub socket_path: PathBuf,
    /// Whether there is no such socket.
    pub disable_connections: bool,
    /// How long a plugin that has connected may take to register.
    pub plugin_registration_timeout: Duration,
    /// How long a plugin may take to answer a request.
    pub plugin_request_timeout: Duration,
    /// What the built-in validator refuses.
    pub default_validator: ValidatorConfig,
    /// What plugins are told about the runtime: its name.
    pub runtime_name: String,
    /// And its version.
    pub runtime_version: String,
}

impl Default for Config {
    /// containerd's defaults.
    fn default() -> Self {
        Self {
            plugin_path: "/opt/nri/plugins".into(),
            plugin_config_path: "/etc/nri/conf.d".into(),
            socket_path: "/var/run/nri/nri.sock".into(),
            disable_connections: false,
            plugin_registration_timeout: Duration::from_secs(5),
            plugin_request_timeout: Duration::from_secs(2),
            default_validator: ValidatorConfig::default(),
            runtime_name: "berth".to_owned(),
            runtime_version: env!("CARGO_PKG_VERSION").to_owned(),
        }
    }
}
