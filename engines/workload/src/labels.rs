//! The labels of a container that is managed by us. Where nerdctl has one, it is nerdctl's, so that both
//! tools list each other's containers.

/// The name that people use.
pub const NAME: &str = "nerdctl/name";
/// The namespace, as nerdctl repeats it.
pub const NAMESPACE: &str = "nerdctl/namespace";
/// The host name inside.
pub const HOSTNAME: &str = "nerdctl/hostname";
/// Our folder of the container.
pub const STATE_DIR: &str = "nerdctl/state-dir";
/// The networks, a JSON list.
pub const NETWORKS: &str = "nerdctl/networks";
/// The platform of the image.
pub const PLATFORM: &str = "nerdctl/platform";
/// Where its log goes.
pub const LOG_URI: &str = "nerdctl/log-uri";
/// Whether it is removed when it ends.
pub const AUTO_REMOVE: &str = "nerdctl/auto-remove";

/// The record of its endpoint, which the restart monitor makes whole before a start.
pub const ENDPOINT: &str = "berth/endpoint";

/// What the restart monitor should keep it at: `running` or `stopped`.
pub const RESTART_STATUS: &str = "containerd.io/restart.status";
/// Its restart policy.
pub const RESTART_POLICY: &str = "containerd.io/restart.policy";
/// How often it was restarted.
pub const RESTART_COUNT: &str = "containerd.io/restart.count";
/// Where the log goes after a restart.
pub const RESTART_LOG_URI: &str = "containerd.io/restart.loguri";
/// That somebody stopped it, for `unless-stopped`.
pub const RESTART_EXPLICITLY_STOPPED: &str = "containerd.io/restart.explicitly-stopped";

/// The key of our description among a container's extensions, and the type of the value.
pub const DEFINITION: &str = "berth.container";

/// Labels that mean something to a daemon or a tool: an image or a user never sets them.
pub fn is_reserved(key: &str) -> bool {
    ["nerdctl/", "containerd.io/", "io.containerd", "io.cri-containerd", "berth/", "io.kubernetes.cri"]
        .iter()
        .any(|prefix| key.starts_with(prefix))
}
