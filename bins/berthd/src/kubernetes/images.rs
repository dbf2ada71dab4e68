//! The table of Kubernetes' images.

use std::collections::BTreeMap;

use serde::Deserialize;

use crate::config::GoDuration;

/// The image of pods' own containers, for those who want such: containerd's.
const PAUSE: &str = "registry.k8s.io/pause:3.10.2";

/// What of the table of images is heeded; the other keys are kept.
#[derive(Debug, Deserialize)]
#[serde(default)]
pub(super) struct Images {
    pub(super) snapshotter: String,
    pub(super) image_pull_progress_timeout: GoDuration,
    pub(super) pinned_images: BTreeMap<String, String>,
    pub(super) discard_unpacked_layers: bool,
    pub(super) registry: Registry,
}

/// How registries are spoken to.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Registry {
    pub(super) config_path: String,
    pub(super) headers: BTreeMap<String, Vec<String>>,
}

impl Default for Images {
    fn default() -> Self {
        Self {
            snapshotter: "overlayfs".to_owned(),
            image_pull_progress_timeout: GoDuration::from_secs(300),
            pinned_images: BTreeMap::from([("sandbox".to_owned(), PAUSE.to_owned())]),
            discard_unpacked_layers: false,
            registry: Registry::default(),
        }
    }
}
