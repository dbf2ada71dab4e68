//! An image with its layers made anew: compressed in another way, or with tables of contents.
//!
//! In another compression a layer stays the same tar, byte by byte, and that is looked at: the configuration, with its
//! diff ids, is the old one, and layers that are compressed as wanted already are taken as they are. With tables of
//! contents each layer is another tar of the same files, and the configuration says so. So it does where layers become
//! EROFS images, and there it also asks for a system that takes them, as containerd's own conversion does.

use std::collections::HashMap;

use berth_archive::{Compression, clean};
use berth_core::{BlobReader, Catalog, ContentStore, Scope};
use berth_erofs::Remembered;
use berth_oci::image::{Document, ImageConfig, Index, Manifest, media};
use berth_stargz::soci::media as soci;
use berth_stargz::{Format, Making, annotation};
use berth_types::{Descriptor, Digest, Error, Image, ImageName, Labels, Result};

use crate::graph::{self, CONFIG_LIMIT, Node};
use crate::hold::{Hold, unique};
use crate::image::publish;
use crate::imaged::{FEATURE, as_image};
use crate::platforms::Platforms;
use crate::recipes;
use crate::recompress::{recompress, with_table};
use crate::{Limits, content};

/// What becomes of an image.
#[derive(Clone, Debug)]
pub struct Conversion {
    /// What becomes of its layers.
    pub layers: Layers,
    /// Whether Docker's types of documents and layers become OCI's.
    pub types: Types,
    /// Of a list, which images are meant; those that are not here are left out.
    pub platforms: Platforms,
}

/// What becomes of layers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Layers {
    /// They are compressed so.
    Compressed(Compression),
    /// They get tables of contents, and can be used before they have arrived. Of several layers that have a file that
    /// is wanted first, the uppermost has it first.
    Tabled(Making),
    /// They become EROFS images, plain or with all of them compressed as one (zstd). Layers that are such already stay.
    Erofs(Compression),
}

/// Types of documents and layers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Types {
    /// As they are.
    Kept,
    /// OCI's.
    Oci,
}

/// Converts an image and gives the result a name.
pub async fn convert(
    catalog: &dyn Catalog,
    scope: &Scope,
    from: &ImageName,
    to: &ImageName,
    conversion: &Conversion,
) -> Result<Image> {
    let source = catalog.images(scope).image(from).await?;
    let hold = Hold::begin(catalog, scope).await?;
    let converted = async {
        let store = catalog.content(hold.scope());
        let mut work =
            Work { catalog, scope: hold.scope(), store: &*store, conversion, done: HashMap::new() };
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
    conversion: &'a Conversion,
    /// Layers that several images share are converted once.
    done: HashMap<Digest, Done>,
}

/// A layer that was made anew.
#[derive(Clone)]
struct Done {
    layer: Descriptor,
    /// Where it is another one.
    diff_id: Option<Digest>,
    /// Which of the files that are wanted first it has.
    first: Vec<Vec<u8>>,
}

impl Work<'_> {
    async fn document(&mut self, target: &Descriptor) -> Result<Descriptor> {
        let data = content::document(self.store, target, Limits::default().document).await?;
        match Document::parse(&target.media_type, &data)? {
            Document::Manifest(manifest) => self.manifest(target, manifest).await,
            Document::Index(index) => self.index(target, index).await,
        }
    }

    async fn index(&mut self, target: &Descriptor, mut index: Index) -> Result<Descriptor> {
        let mut manifests = Vec::new();
        for child in self.conversion.platforms.select(std::mem::take(&mut index.manifests)) {
            // What was made of the layers is not true of others.
            let is_index = child.artifact_type.as_deref() == Some(soci::INDEX_V2);
            if is_index
                || !media::is_manifest(&child.media_type)
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
            return Err(Error::not_found(format!("no such image of the list {} is here", target.digest)));
        }
        let labels = graph::gc_labels(&manifests);
        index.manifests = manifests;
        let kind = self.kind(&target.media_type);
        if !index.media_type.is_empty() {
            kind.clone_into(&mut index.media_type);
        }
        content::write_document(self.store, "index", kind, &index, labels).await
    }

    async fn manifest(&mut self, target: &Descriptor, mut manifest: Manifest) -> Result<Descriptor> {
        let node = Node { descriptor: target.clone(), children: manifest.layers.clone() };
        recipes::restore(self.catalog, self.scope, &[node]).await?;
        let config = content::document(self.store, &manifest.config, CONFIG_LIMIT).await?;
        let diff_ids = serde_json::from_slice::<ImageConfig>(&config).map(|config| config.rootfs.diff_ids);
        let mut diff_ids = diff_ids.unwrap_or_default();
        let mut first = match &self.conversion.layers {
            Layers::Tabled(making) => making.first.iter().map(|path| clean(path)).collect(),
            Layers::Compressed(_) | Layers::Erofs(_) => Vec::new(),
        };
        let mut changed = matches!(self.conversion.layers, Layers::Erofs(_));
        if let Layers::Erofs(compression) = self.conversion.layers {
            self.images(&mut manifest.layers, &mut diff_ids, compression).await?;
        }
        // From the top: what an upper layer has is not read in a lower one.
        for (number, layer) in manifest.layers.iter_mut().enumerate().rev() {
            if !media::is_layer(&layer.media_type) || matches!(self.conversion.layers, Layers::Erofs(_)) {
                continue;
            }
            let done = self.layer(layer, diff_ids.get(number), &first).await?;
            first.retain(|path| !done.first.contains(path));
            if let Some(diff_id) = done.diff_id {
                let named = diff_ids.get_mut(number).ok_or_else(|| {
                    Error::failed_precondition(format!(
                        "the configuration does not name layer {}",
                        layer.digest
                    ))
                })?;
                (*named, changed) = (diff_id, true);
            }
            *layer = done.layer;
        }
        if changed {
            manifest.config = self.config(&manifest.config, &config, &diff_ids).await?;
        }
        manifest.config.media_type = self.kind(&manifest.config.media_type).to_owned();
        manifest.annotations.remove(soci::INDEX_DIGEST);
        let kind = self.kind(&target.media_type);
        if !manifest.media_type.is_empty() {
            kind.clone_into(&mut manifest.media_type);
        }
        let children: Vec<Descriptor> =
            std::iter::once(manifest.config.clone()).chain(manifest.layers.iter().cloned()).collect();
        let labels = graph::gc_labels(&children);
        let made = content::write_document(self.store, "manifest", kind, &manifest, labels).await?;
        let (mut platform, mut annotations) = (target.platform.clone(), target.annotations.clone());
        if let (Layers::Erofs(_), Some(platform)) = (&self.conversion.layers, &mut platform)
            && !platform.os_features.iter().any(|feature| feature == FEATURE)
        {
            platform.os_features.push(FEATURE.to_owned());
        }
        annotations.remove(soci::INDEX_DIGEST);
        Ok(Descriptor { platform, annotations, ..made })
    }

    /// The configuration with other diff ids, and with all else that it says, also what is not known here.
    async fn config(&self, old: &Descriptor, bytes: &[u8], diff_ids: &[Digest]) -> Result<Descriptor> {
        let wrong = |error| {
            Error::invalid_argument(format!("the configuration {} is no JSON", old.digest)).caused_by(error)
        };
        let mut config: serde_json::Value = serde_json::from_slice(bytes).map_err(wrong)?;
        config["rootfs"]["diff_ids"] = serde_json::json!(diff_ids);
        if matches!(self.conversion.layers, Layers::Erofs(_)) {
            let features = config["os.features"].as_array().cloned().unwrap_or_default();
            let others = features.into_iter().filter(|feature| feature != FEATURE);
            config["os.features"] = others.chain([FEATURE.into()]).collect();
        }
        let kind = self.kind(&old.media_type);
        content::write_document(self.store, "config", kind, &config, Labels::new()).await
    }

    /// Makes layers images, from the lowest on: one that says nothing of a directory has what is below it.
    async fn images(
        &self,
        layers: &mut [Descriptor],
        diff_ids: &mut [Digest],
        compression: Compression,
    ) -> Result<()> {
        let mut below = Some(Remembered::default());
        let archives = layers.iter_mut().enumerate().filter(|(_, layer)| media::is_layer(&layer.media_type));
        for (number, layer) in archives {
            let of_layer = |error: Error| error.context(format!("cannot convert layer {}", layer.digest));
            if media::is_erofs_layer(&layer.media_type) {
                below = None;
                continue;
            }
            let known = below.take().ok_or_else(|| {
                of_layer(Error::not_implemented("it stands on layers that are EROFS images already"))
            })?;
            let diff_id = diff_ids
                .get_mut(number)
                .ok_or_else(|| of_layer(Error::failed_precondition("the configuration does not name it")))?;
            let reference = unique("convert").parse()?;
            let reader = self.store.reader(&layer.digest).await.map_err(of_layer)?;
            let made = as_image(self.store, &*reader, Some(diff_id), (known, compression), &reference).await;
            let made = made.map_err(of_layer)?;
            *diff_id = made.diff_id;
            below = Some(made.more);
            let suffix = if compression == Compression::Zstd { "+zstd" } else { "" };
            let mut annotations = std::mem::take(&mut layer.annotations);
            annotations.retain(|key, _| !annotation::is_of_table(key));
            let kind = format!("{}{suffix}", media::EROFS_LAYER);
            *layer = Descriptor { annotations, ..Descriptor::new(kind, made.digest, made.size) };
        }
        Ok(())
    }

    async fn layer(
        &mut self,
        layer: &Descriptor,
        diff_id: Option<&Digest>,
        first: &[Vec<u8>],
    ) -> Result<Done> {
        if let Some(done) = self.done.get(&layer.digest) {
            return Ok(done.clone());
        }
        let reader = self.store.reader(&layer.digest).await?;
        let done = self.made(layer, &*reader, diff_id, first).await;
        let done = done.map_err(|error| error.context(format!("cannot convert layer {}", layer.digest)))?;
        self.done.insert(layer.digest.clone(), done.clone());
        Ok(done)
    }

    async fn made(
        &self,
        layer: &Descriptor,
        reader: &dyn BlobReader,
        diff_id: Option<&Digest>,
        first: &[Vec<u8>],
    ) -> Result<Done> {
        if media::is_erofs_layer(&layer.media_type) {
            let text = "it is an EROFS image and no archive: convert the image that it was made of";
            return Err(Error::not_implemented(text));
        }
        let reference = unique("convert").parse()?;
        let described = |compression, digest, size| {
            let kind = self.kind(layer_type(&layer.media_type, compression));
            let mut annotations = layer.annotations.clone();
            annotations.retain(|key, _| !annotation::is_of_table(key));
            Descriptor { annotations, ..Descriptor::new(kind, digest, size) }
        };
        match &self.conversion.layers {
            Layers::Compressed(compression) => {
                let start = reader.read_at(0, Compression::MAGIC_LENGTH).await?;
                if Compression::detect(&start) == *compression {
                    let media_type = self.kind(&layer.media_type).to_owned();
                    let layer = Descriptor { media_type, ..layer.clone() };
                    return Ok(Done { layer, diff_id: None, first: Vec::new() });
                }
                let made = recompress(self.store, reader, diff_id, *compression, &reference).await?;
                let layer = described(*compression, made.digest, made.size);
                Ok(Done { layer, diff_id: None, first: Vec::new() })
            }
            // They are made one on top of the other.
            Layers::Erofs(_) => Err(Error::internal("layers become images in their order")),
            Layers::Tabled(making) => {
                let making = Making { first: first.to_vec(), ..making.clone() };
                let compression = match making.format {
                    Format::Gzip => Compression::Gzip,
                    Format::Zstd => Compression::Zstd,
                };
                let made = with_table(self.store, reader, diff_id, making, &reference).await?;
                let mut layer = described(compression, made.digest, made.size);
                layer.annotations.extend(made.more.annotations);
                Ok(Done { layer, diff_id: Some(made.diff_id), first: made.more.first })
            }
        }
    }

    /// The type that a document or layer of this type will have.
    fn kind<'k>(&self, kind: &'k str) -> &'k str {
        if self.conversion.types == Types::Kept {
            return kind;
        }
        match kind {
            media::DOCKER_INDEX => media::OCI_INDEX,
            media::DOCKER_MANIFEST => media::OCI_MANIFEST,
            media::DOCKER_CONFIG => media::OCI_CONFIG,
            media::DOCKER_LAYER => media::OCI_LAYER,
            media::DOCKER_LAYER_GZIP => media::OCI_LAYER_GZIP,
            media::DOCKER_LAYER_ZSTD => media::OCI_LAYER_ZSTD,
            other => other,
        }
    }
}

/// The same kind of layer in another compression.
fn layer_type(kind: &str, compression: Compression) -> &'static str {
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
