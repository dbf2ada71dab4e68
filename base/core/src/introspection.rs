//! What a daemon is made of.

use async_trait::async_trait;
use berth_types::{Any, PluginInfo, Result, ServerInfo};

/// Tells what a daemon is made of.
#[async_trait]
pub trait Introspection: Send + Sync {
    /// The daemon itself.
    async fn server(&self) -> Result<ServerInfo>;

    /// Its parts that pass the filters (`type==…`, `id==…`).
    async fn plugins(&self, filters: &[String]) -> Result<Vec<PluginInfo>>;

    /// One part, asked with options of its own: for a runtime, `containerd.types.RuntimeInfo`.
    async fn plugin(&self, kind: &str, id: &str, options: Option<Any>) -> Result<(PluginInfo, Option<Any>)>;

    /// The version and revision of the daemon.
    async fn version(&self) -> Result<(String, String)>;
}
