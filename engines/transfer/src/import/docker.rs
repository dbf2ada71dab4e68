//! What `docker save` wrote before it wrote OCI layouts: `manifest.json` names a config, layers and tags.

use std::collections::HashMap;

use berth_archive::Compression;
use berth_core::{ContentStore, PlainLayers};
use berth_oci::image::{ImageConfig, Manifest, media};
use berth_types::{Descriptor, Digest, Error, ImageRef, Result};
use serde::Deserialize;

use super::files::{File, Files, json};
use super::{Import, names};
use crate::content;
use crate::graph::{self, CONFIG_LIMIT};
use crate::image::platform_of;
use crate::recompress::recompress;

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
    let mut layers = Layers { store, files, plain: options.plain, compressed: HashMap::new() };
    for image in saved {
        let target = target(&mut layers, &image).await?;
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

/// The layers of an archive's images.
struct Layers<'a> {
    store: &'a dyn ContentStore,
    files: &'a Files,
    plain: PlainLayers,
    /// Those that images share are compressed once.
    compressed: HashMap<Digest, Descriptor>,
}

impl Layers<'_> {
    async fn layer(&mut self, path: &str) -> Result<Descriptor> {
        let file = self.files.file(path)?;
        Ok(file.descriptor(match Compression::detect(&file.start) {
            Compression::Plain if self.plain == PlainLayers::Compressed => return self.compress(file).await,
            Compression::Plain => media::DOCKER_LAYER,
            Compression::Gzip => media::DOCKER_LAYER_GZIP,
            Compression::Zstd => media::DOCKER_LAYER_ZSTD,
        }))
    }

    async fn compress(&mut self, file: &File) -> Result<Descriptor> {
        if let Some(done) = self.compressed.get(&file.digest) {
            return Ok(done.clone());
        }
        let reader = self.store.reader(&file.digest).await?;
        let reference = format!("{}-gzip-{}", self.files.prefix, file.digest.hex()).parse()?;
        let made = recompress(self.store, &*reader, Some(&file.digest), Compression::Gzip, &reference).await;
        let made = made.map_err(|error| error.context(format!("cannot compress layer {}", file.digest)))?;
        let made = Descriptor::new(media::DOCKER_LAYER_GZIP, made.digest, made.size);
        self.compressed.insert(file.digest.clone(), made.clone());
        Ok(made)
    }
}

async fn target(of: &mut Layers<'_>, image: &Saved) -> Result<Descriptor> {
    let (store, files) = (of.store, of.files);
    let config = files.file(&image.config)?.descriptor(media::DOCKER_CONFIG);
    let mut layers = Vec::new();
    for path in image.layers.iter().flatten() {
        layers.push(of.layer(path).await?);
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
        target.platform = Some(platform_of(&parsed));
    }
    Ok(target)
}
