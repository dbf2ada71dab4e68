//! The parts of one image: manifest, configuration, layers.

use std::collections::HashSet;

use berth_core::{Catalog, ContentStore, Scope};
use berth_oci::image::{
    Document, History, ImageConfig, Manifest, PlatformMatch, chain_id, media, platform_string,
};
use berth_types::{Descriptor, Error, ErrorKind, Platform, Result, SnapshotKey, SnapshotterName};

use crate::content;
use crate::graph::{CONFIG_LIMIT, Limits, Missing, walk};
use crate::platforms::Platforms;

/// One platform's image.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// The manifest's descriptor.
    pub descriptor: Descriptor,
    /// The manifest.
    pub manifest: Manifest,
    /// The configuration.
    pub config: ImageConfig,
}

impl Loaded {
    /// The name of the snapshot that holds all its layers; nothing for an image without layers.
    pub fn chain(&self) -> Result<Option<SnapshotKey>> {
        chain_id(&self.config.rootfs.diff_ids).map(|id| id.as_str().parse()).transpose()
    }
}

/// Loads manifest and configuration of the image behind `target` that runs on `platform`.
///
/// An index is searched for the best one. An image of another platform is `NotFound`, with its name.
pub async fn load(store: &dyn ContentStore, target: &Descriptor, platform: &PlatformMatch) -> Result<Loaded> {
    let limits = Limits::default();
    let mut at = target.clone();
    for _ in 0..=limits.depth {
        let data = content::document(store, &at, limits.document).await?;
        match Document::parse(&at.media_type, &data)? {
            Document::Index(index) => at = best(&at, index.manifests, platform)?,
            Document::Manifest(manifest) => return load_manifest(store, at, manifest, platform).await,
        }
    }
    Err(Error::invalid_argument(format!("the image {} is too deep", target.digest)))
}

fn best(index: &Descriptor, manifests: Vec<Descriptor>, platform: &PlatformMatch) -> Result<Descriptor> {
    if let Some(best) = platform.best(&manifests) {
        return Ok(best.clone());
    }
    let known = manifests.iter().filter_map(|one| one.platform.as_ref()).filter(|one| one.os != "unknown");
    let known: Vec<String> = known.map(platform_string).collect();
    Err(Error::not_found(format!(
        "the image {} is not for this platform but for {}",
        index.digest,
        if known.is_empty() { "none".to_owned() } else { known.join(", ") }
    )))
}

async fn load_manifest(
    store: &dyn ContentStore,
    descriptor: Descriptor,
    manifest: Manifest,
    platform: &PlatformMatch,
) -> Result<Loaded> {
    if !media::is_config(&manifest.config.media_type) {
        return Err(Error::invalid_argument(format!(
            "{} is no image to run: its configuration is a {}",
            descriptor.digest, manifest.config.media_type
        )));
    }
    let config = config_of(store, &manifest).await?;
    let own = platform_of(&config);
    let says = !own.os.is_empty() && !own.architecture.is_empty();
    if descriptor.platform.is_none() && says && platform.rank(&own).is_none() {
        return Err(Error::not_found(format!(
            "the image {} is not for this platform but for {}",
            descriptor.digest,
            platform_string(&own)
        )));
    }
    Ok(Loaded { descriptor, manifest, config })
}

/// The configuration that a manifest names.
pub(crate) async fn config_of(store: &dyn ContentStore, manifest: &Manifest) -> Result<ImageConfig> {
    let data = content::document(store, &manifest.config, CONFIG_LIMIT).await?;
    serde_json::from_slice(&data).map_err(|source| {
        let text = format!("the image's configuration {} is not valid", manifest.config.digest);
        Error::invalid_argument(text).caused_by(source)
    })
}

/// The platform that a configuration says it is for.
pub(crate) fn platform_of(config: &ImageConfig) -> Platform {
    Platform {
        architecture: config.architecture.clone(),
        os: config.os.clone(),
        os_version: config.os_version.clone().unwrap_or_default(),
        os_features: Vec::new(),
        variant: config.variant.clone().unwrap_or_default(),
    }
}

/// The configuration of the image behind `target` that runs on `platform`.
pub async fn config(
    catalog: &dyn Catalog,
    scope: &Scope,
    target: &Descriptor,
    platform: &PlatformMatch,
) -> Result<ImageConfig> {
    Ok(load(&*catalog.content(scope), target, platform).await?.config)
}

/// What an image takes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ImageSizes {
    /// Bytes of its documents and layers as they are stored, each once, of every platform that is here.
    pub content: u64,
    /// Bytes of its snapshots, once it is unpacked.
    pub unpacked: Option<u64>,
}

/// Adds up an image. What it shares with others counts in full.
pub async fn sizes(
    catalog: &dyn Catalog,
    scope: &Scope,
    target: &Descriptor,
    platform: &PlatformMatch,
    snapshotter: &SnapshotterName,
) -> Result<ImageSizes> {
    let store = catalog.content(scope);
    let nodes = walk(&*store, target, &Platforms::All, Missing::Skip, Limits::default()).await?;
    let mut counted = HashSet::new();
    let mut sizes = ImageSizes::default();
    for descriptor in nodes.iter().flat_map(|node| std::iter::once(&node.descriptor).chain(&node.children)) {
        if counted.insert(&descriptor.digest) {
            sizes.content += descriptor.size;
        }
    }
    let loaded = match load(&*store, target, platform).await {
        Ok(loaded) => loaded,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(sizes),
        Err(error) => return Err(error),
    };
    let snapshots = catalog.snapshotter(snapshotter, scope)?;
    let mut next = loaded.chain()?;
    while let Some(key) = next {
        let info = match snapshots.stat(&key).await {
            Ok(info) => info,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(sizes),
            Err(error) => return Err(error),
        };
        let usage = snapshots.usage(&key).await?;
        sizes.unpacked = Some(sizes.unpacked.unwrap_or_default() + usage.size);
        next = info.parent;
    }
    Ok(sizes)
}

/// One step of an image's history.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// What was done.
    pub history: History,
    /// The layer that came of it, if one did.
    pub layer: Option<Descriptor>,
}

/// How an image came to be, the oldest step first. Layers without a history get a step that says nothing.
pub fn history(image: &Loaded) -> Vec<Step> {
    let mut layers = image.manifest.layers.iter().cloned();
    let mut steps: Vec<Step> = Vec::new();
    for entry in &image.config.history {
        let layer = if entry.empty_layer { None } else { layers.next() };
        steps.push(Step { history: entry.clone(), layer });
    }
    steps.extend(layers.map(|layer| Step { history: History::default(), layer: Some(layer) }));
    steps
}
