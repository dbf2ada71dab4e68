//! The listener of figures for Prometheus, where the configuration asks for one.

use std::sync::Arc;

use anyhow::{Context, Result};
use berth_core::Catalog;
use berth_metrics::{Build, Source};
use tokio::net::TcpListener;

use crate::config::Config;
use crate::identity;

/// The plugin that a configuration may disable.
pub(crate) const URI: &str = "io.containerd.server.v1.metrics";

/// Opens the listener; none without an address.
pub(crate) async fn listen(config: &Config) -> Result<Option<TcpListener>> {
    let address = &config.plugins.metrics.address;
    if address.is_empty() || config.disabled_plugins.iter().any(|uri| uri == URI) {
        return Ok(None);
    }
    let listener = TcpListener::bind(address).await.with_context(|| {
        format!("cannot listen for metrics at {address} (the key address of plugins.{URI:?}, HOST:PORT)")
    })?;
    tracing::info!(address, "serving metrics...");
    Ok(Some(listener))
}

/// Serves figures of `catalog` for as long as the daemon lives.
pub(crate) async fn serve(listener: TcpListener, catalog: Arc<dyn Catalog>, containers: bool) {
    let build = Build { version: identity::version(), revision: identity::revision() };
    berth_metrics::serve(listener, Source { catalog, build, containers }, std::future::pending()).await;
}
