//! The Container Runtime Interface, as the configuration wants it.

mod images;
mod nri;
mod runtime;
mod streaming;

use std::sync::Arc;

use anyhow::{Context, Result};
use berth_core::{Catalog, UnpackedBlobs};
use berth_cri::Cri;
use berth_server::MoreServices;
use serde::de::DeserializeOwned;

use crate::config::Config;
use crate::identity;

use images::Images;
use nri::Nri;
use runtime::Runtime;
use streaming::Streaming;

/// The plugin that serves it.
pub(crate) const URI: &str = "io.containerd.grpc.v1.cri";
/// The plugin of its images, and its table.
pub(crate) const IMAGES: &str = "io.containerd.cri.v1.images";
pub(crate) use nri::NRI;
pub(crate) use runtime::RUNTIME;

/// Opens the interface, which takes up the pods of the daemon before; none where one of its plugins is disabled.
pub(crate) async fn open(config: &Config, catalog: Arc<dyn Catalog>) -> Result<Option<Arc<Cri>>> {
    if [URI, IMAGES, RUNTIME].into_iter().any(|uri| is_disabled(config, uri)) {
        return Ok(None);
    }
    let cri = Cri::open(settings(config)?, catalog).await;
    cri.map(Some).map_err(|error| anyhow::anyhow!(error.chain())).context("cannot take up Kubernetes' pods")
}

/// What adds its services to the daemon's.
pub(crate) fn services(cri: Option<Arc<Cri>>) -> MoreServices {
    match cri {
        None => Box::new(|routes, _| routes),
        Some(cri) => Box::new(move |routes, receive| cri.serve(routes, receive)),
    }
}

fn is_disabled(config: &Config, uri: &str) -> bool {
    config.disabled_plugins.iter().any(|disabled| disabled == uri)
}

fn settings(config: &Config) -> Result<berth_cri::Config> {
    let images: Images = table(config, IMAGES)?;
    let runtime: Runtime = table(config, RUNTIME)?;
    for warning in runtime.warnings() {
        tracing::warn!("passed over, of plugins.{RUNTIME:?}: {warning}");
    }
    let streaming: Streaming = table(config, URI)?;
    if let Some(warning) = streaming.warning() {
        tracing::warn!("passed over, of plugins.{URI:?}: {warning}");
    }
    let headers = images.registry.headers.into_iter();
    Ok(berth_cri::Config {
        image_folder: config.root.join(format!("io.containerd.snapshotter.v1.{}", images.snapshotter)),
        snapshotter: images
            .snapshotter
            .parse()
            .with_context(|| format!("key snapshotter of plugins.{IMAGES:?}"))?,
        registry_hosts: std::env::split_paths(&images.registry.config_path)
            .filter(|path| !path.as_os_str().is_empty())
            .collect(),
        registry_headers: headers
            .flat_map(|(name, values)| values.into_iter().map(move |value| (name.clone(), value)))
            .collect(),
        blobs: if images.discard_unpacked_layers { UnpackedBlobs::LetGo } else { UnpackedBlobs::Kept },
        pinned_images: images.pinned_images,
        pull_patience: images.image_pull_progress_timeout.as_std(),
        version: identity::version(),
        streaming: streaming.config()?,
        pods: runtime.pods(config)?,
        nri: if is_disabled(config, NRI) { None } else { table::<Nri>(config, NRI)?.config() },
    })
}

fn table<T: DeserializeOwned + Default>(config: &Config, name: &str) -> Result<T> {
    let table = config.plugins.others.get(name).cloned();
    table
        .map_or_else(|| Ok(T::default()), toml::Value::try_into)
        .with_context(|| format!("cannot read plugins.{name:?} of the config"))
}
