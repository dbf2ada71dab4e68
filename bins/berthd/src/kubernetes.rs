//! The Container Runtime Interface, as the configuration wants it.

use std::collections::BTreeMap;
use std::sync::Arc;

use anyhow::{Context, Result};
use berth_core::Catalog;
use berth_cri::Cri;
use berth_server::MoreServices;
use serde::Deserialize;

use crate::config::{Config, GoDuration};
use crate::identity;

/// The plugin that serves it.
pub(crate) const URI: &str = "io.containerd.grpc.v1.cri";
/// The plugin of its images, and its table.
pub(crate) const IMAGES: &str = "io.containerd.cri.v1.images";

/// What of the table of images is heeded; the other keys are kept.
#[derive(Debug, Deserialize)]
#[serde(default)]
struct Images {
    snapshotter: String,
    image_pull_progress_timeout: GoDuration,
    pinned_images: BTreeMap<String, String>,
    registry: Registry,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Registry {
    config_path: String,
    headers: BTreeMap<String, Vec<String>>,
}

impl Default for Images {
    fn default() -> Self {
        Self {
            snapshotter: "overlayfs".to_owned(),
            image_pull_progress_timeout: GoDuration::from_secs(300),
            pinned_images: BTreeMap::new(),
            registry: Registry::default(),
        }
    }
}

/// What adds the interface's services to the daemon's; nothing where one of its plugins is disabled.
pub(crate) fn services(config: &Config, catalog: Arc<dyn Catalog>) -> Result<MoreServices> {
    if config.disabled_plugins.iter().any(|uri| uri == URI || uri == IMAGES) {
        return Ok(Box::new(|routes, _| routes));
    }
    let cri = Cri::open(settings(config)?, catalog)?;
    Ok(Box::new(move |routes, receive| cri.serve(routes, receive)))
}

fn settings(config: &Config) -> Result<berth_cri::Config> {
    let table = config.plugins.others.get(IMAGES).cloned();
    let images: Images = table
        .map_or_else(|| Ok(Images::default()), toml::Value::try_into)
        .with_context(|| format!("cannot read plugins.{IMAGES:?} of the config"))?;
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
        pinned_images: images.pinned_images,
        pull_patience: images.image_pull_progress_timeout.as_std(),
        version: identity::version(),
    })
}
