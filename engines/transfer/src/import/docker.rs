//! What `docker save` wrote before it wrote OCI layouts: `manifest.json` names a config, layers and tags.

use berth_archive::Compression;
use berth_core::{ContentStore, PlainLayers};
use berth_oci::image::{ImageConfig, Manifest, media};
use berth_types::{Descriptor, Error, ImageRef, Platform, Result};
use serde::Deserialize;

use super::compress::compressed;
use super::files::{Files, json};
use super::{Import, names};
use crate::content;
use crate::graph::{self, CONFIG_LIMIT};

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Saved {
    config: String,
    #[serde(default)]
    repo_tags: Option<Vec<String>>,
    #[serde(default)]
    layers: Option<Vec<String>>,
}

/// Makes a manifest of each image that is listed and describes it, once for each of its tags.
pub(super) async fn tops(
    store: &dyn ContentStore,
    files: &Files,
    manifest: &[u8],
    options: &Import,
) -> Result<Vec<Descriptor>> {
    let saved: Vec<Saved> = json("manifest.json", manifest)?;
    if saved.len() > options.limits.nodes {
        return Err(Error::resource_exhausted("manifest.json lists too many images"));
    }
    let mut tops = Vec::new();
    for image in saved {
        let target = target(store, files, &image, options.plain).await?;
        let tags = image.repo_tags.unwrap_or_default();
        if tags.is_empty() {
            tops.push(target);
            continue;
        }
        for tag in tags {
            let reference: ImageRef = tag.parse()?;
            let mut named = target.clone();
            names::annotate(&mut named, &reference.to_string());
            tops.push(named);
        }
    }
    Ok(tops)
}

async fn target(
    store: &dyn ContentStore,
    files: &Files,
    image: &Saved,
    plain: PlainLayers,
) -> Result<Descriptor> {
    let config = files.file(&image.config)?.descriptor(media::DOCKER_CONFIG);
    let mut layers = Vec::new();
    for path in image.layers.iter().flatten() {
        let file = files.file(path)?;
        layers.push(file.descriptor(match Compression::detect(&file.start) {
            Compression::Plain if plain == PlainLayers::Compressed => {
                layers.push(compressed(store, file).await?.descriptor(media::DOCKER_LAYER_GZIP));
                continue;
            }
            Compression::Plain => media::DOCKER_LAYER,
            Compression::Gzip => media::DOCKER_LAYER_GZIP,
            Compression::Zstd => media::DOCKER_LAYER_ZSTD,
        }));
    }
    let data = content::document(store, &config, CONFIG_LIMIT).await?;
    let parsed: ImageConfig = json(&image.config, &data)?;
    if parsed.rootfs.diff_ids.len() != layers.len() {
        return Err(Error::invalid_argument(format!(
            "manifest.json lists {} layers for {}, which has {}",
            layers.len(),
            image.config,
            parsed.rootfs.diff_ids.len()
        )));
    }
    let manifest = Manifest {
        schema_version: 2,
        media_type: media::DOCKER_MANIFEST.to_owned(),
        artifact_type: None,
        config,
        layers,
        subject: None,
        annotations: std::collections::BTreeMap::new(),
    };
    let children: Vec<Descriptor> =
        std::iter::once(manifest.config.clone()).chain(manifest.layers.iter().cloned()).collect();
    let labels = graph::gc_labels(&children);
    let mut target =
        content::write_document(store, "manifest", media::DOCKER_MANIFEST, &manifest, labels).await?;
    if !parsed.os.is_empty() && !parsed.architecture.is_empty() {
        target.platform = Some(Platform {
            architecture: parsed.architecture,
            os: parsed.os,
            os_version: parsed.os_version.unwrap_or_default(),
            os_features: Vec::new(),
            variant: parsed.variant.unwrap_or_default(),
        });
    }
    Ok(target)
}
