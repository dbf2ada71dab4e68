//! An image with its layers compressed in another way.
//!
//! What a layer holds stays the same, byte by byte, and is looked at: the configuration, with its diff ids, is the
//! old one. Layers that are compressed as wanted already are taken as they are.

use std::collections::HashMap;

use berth_archive::Compression;
use berth_core::{Catalog, ContentStore, Scope};
use berth_oci::image::{Document, ImageConfig, Manifest, media};
use berth_types::{Descriptor, Digest, Error, Image, ImageName, Result};

use crate::graph::{self, CONFIG_LIMIT, Node};
use crate::hold::{Hold, unique};
use crate::image::publish;
use crate::recipes;
use crate::recompress::recompress;
use crate::{Limits, content};

/// Stores an image's layers in another compression and gives the result a name. Of a list, the images that are here
/// are converted, and the others left out.
pub async fn convert(
    catalog: &dyn Catalog,
    scope: &Scope,
    from: &ImageName,
    to: &ImageName,
    compression: Compression,
) -> Result<Image> {
    let source = catalog.images(scope).image(from).await?;
    let hold = Hold::begin(catalog, scope).await?;
    let converted = async {
        let store = catalog.content(hold.scope());
        let mut work =
            Work { catalog, scope: hold.scope(), store: &*store, compression, done: HashMap::new() };
        let target = work.document(&source.target).await?;
        let record = Image { labels: source.labels.clone(), ..Image::new(to.clone(), target) };
        publish(&*catalog.images(hold.scope()), record).await
    };
    let converted = converted.await;
    hold.over(converted).await
}

struct Work<'a> {
    catalog: &'a dyn Catalog,
    scope: &'a Scope,
    store: &'a dyn ContentStore,
    compression: Compression,
    /// Layers that several images share are converted once.
    done: HashMap<Digest, Descriptor>,
}

impl Work<'_> {
    async fn document(&mut self, target: &Descriptor) -> Result<Descriptor> {
        let data = content::document(self.store, target, Limits::default().document).await?;
        match Document::parse(&target.media_type, &data)? {
            Document::Manifest(manifest) => self.manifest(target, manifest).await,
            Document::Index(mut index) => {
                let mut manifests = Vec::new();
                for child in std::mem::take(&mut index.manifests) {
                    if !media::is_manifest(&child.media_type)
                        || !content::exists(self.store, &child.digest).await?
                    {
                        continue;
                    }
                    let data = content::document(self.store, &child, Limits::default().document).await?;
                    if let Document::Manifest(manifest) = Document::parse(&child.media_type, &data)? {
                        manifests.push(self.manifest(&child, manifest).await?);
                    }
                }
                if manifests.is_empty() {
                    return Err(Error::not_found(format!("no image of the list {} is here", target.digest)));
                }
                let labels = graph::gc_labels(&manifests);
                index.manifests = manifests;
                content::write_document(self.store, "index", &target.media_type, &index, labels).await
            }
        }
    }

    async fn manifest(&mut self, target: &Descriptor, mut manifest: Manifest) -> Result<Descriptor> {
        let node = Node { descriptor: target.clone(), children: manifest.layers.clone() };
        recipes::restore(self.catalog, self.scope, &[node]).await?;
        let config = content::document(self.store, &manifest.config, CONFIG_LIMIT).await?;
        let diff_ids = serde_json::from_slice::<ImageConfig>(&config).map(|config| config.rootfs.diff_ids);
        let diff_ids = diff_ids.unwrap_or_default();
        for (number, layer) in manifest.layers.iter_mut().enumerate() {
            if media::is_layer(&layer.media_type) {
                *layer = self.layer(layer, diff_ids.get(number)).await?;
            }
        }
        let children: Vec<Descriptor> =
            std::iter::once(manifest.config.clone()).chain(manifest.layers.iter().cloned()).collect();
        let labels = graph::gc_labels(&children);
        let made =
            content::write_document(self.store, "manifest", &target.media_type, &manifest, labels).await?;
        let platform = target.platform.clone();
        Ok(Descriptor { platform, annotations: target.annotations.clone(), ..made })
    }

    async fn layer(&mut self, layer: &Descriptor, diff_id: Option<&Digest>) -> Result<Descriptor> {
        if let Some(done) = self.done.get(&layer.digest) {
            return Ok(done.clone());
        }
        let reader = self.store.reader(&layer.digest).await?;
        let start = reader.read_at(0, Compression::MAGIC_LENGTH).await?;
        let converted = if Compression::detect(&start) == self.compression {
            layer.clone()
        } else {
            let reference = unique("convert").parse()?;
            let made = recompress(self.store, &*reader, diff_id, self.compression, &reference).await;
            let (digest, size) =
                made.map_err(|error| error.context(format!("cannot convert layer {}", layer.digest)))?;
            let made = Descriptor::new(media_type(&layer.media_type, self.compression), digest, size);
            Descriptor { annotations: layer.annotations.clone(), ..made }
        };
        self.done.insert(layer.digest.clone(), converted.clone());
        Ok(converted)
    }
}

/// The same kind of layer in another compression.
fn media_type(kind: &str, compression: Compression) -> &'static str {
    let docker = kind.starts_with("application/vnd.docker.");
    match (docker, compression) {
        (false, Compression::Plain) => media::OCI_LAYER,
        (false, Compression::Gzip) => media::OCI_LAYER_GZIP,
        (false, Compression::Zstd) => media::OCI_LAYER_ZSTD,
        (true, Compression::Plain) => media::DOCKER_LAYER,
        (true, Compression::Gzip) => media::DOCKER_LAYER_GZIP,
        (true, Compression::Zstd) => media::DOCKER_LAYER_ZSTD,
    }
}
