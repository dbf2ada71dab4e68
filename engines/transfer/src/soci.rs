//! An image with a SOCI index beside it: the same layers, byte by byte, and a zTOC of each that is worth it.
//!
//! ```text
//!   list ┬▶ manifest ─ names ─▶ SOCI index ─┬▶ zTOC of a layer
//!        ╰────────────────────────────▲     ╰▶ zTOC of another
//! ```
//! The manifest names its index by an annotation, so whoever trusts the one can trust the other, and so both are another
//! image than before, of the same layers. This is the second version of such indexes, as soci-snapshotter makes it.

use std::io::BufReader;

use berth_core::{Catalog, ContentStore, Scope, write_blob};
use berth_oci::image::{Document, Index, Manifest, media};
use berth_stargz::soci::{self, SPAN, ZtocError};
use berth_types::{Descriptor, Error, Image, ImageName, Labels, Result};
use bytes::Bytes;
use futures::{StreamExt as _, TryStreamExt as _};
use tokio::sync::mpsc;

use crate::graph::{self, Limits, Node};
use crate::hold::Hold;
use crate::image::{config_of, platform_of, publish};
use crate::platforms::Platforms;
use crate::recompress::{DEPTH, Source, feed};
use crate::tar::CHUNK;
use crate::{content, recipes};

/// Layers of one image that are read at once.
const AT_ONCE: usize = 4;
/// What SOCI indexes have as their configuration: they have none.
const NO_CONFIG: &[u8] = b"{}";

/// How an image is indexed.
#[derive(Clone, Debug)]
pub struct Indexing {
    /// Bytes of a tar between two places where decoding can begin.
    pub span_size: u64,
    /// Layers with fewer bytes have no zTOC.
    pub min_layer_size: u64,
    /// Of a list, which images are meant; those that are not here are left out.
    pub platforms: Platforms,
    /// What says that it has made the index.
    pub tool: String,
}

impl Indexing {
    /// soci-snapshotter's settings.
    pub fn new(tool: impl Into<String>) -> Self {
        Self { span_size: SPAN, min_layer_size: 10 << 20, platforms: Platforms::All, tool: tool.into() }
    }
}

/// Indexes an image and gives the result, a list, a name.
pub async fn index(
    catalog: &dyn Catalog,
    scope: &Scope,
    from: &ImageName,
    to: &ImageName,
    indexing: &Indexing,
) -> Result<Image> {
    let source = catalog.images(scope).image(from).await?;
    let hold = Hold::begin(catalog, scope).await?;
    let indexed = async {
        let store = catalog.content(hold.scope());
        let work = Work { catalog, scope: hold.scope(), store: &*store, indexing };
        let target = work.list(&source.target).await?;
        let record = Image { labels: source.labels.clone(), ..Image::new(to.clone(), target) };
        publish(&*catalog.images(hold.scope()), record).await
    };
    let indexed = indexed.await;
    hold.over(indexed).await
}

struct Work<'a> {
    catalog: &'a dyn Catalog,
    scope: &'a Scope,
    store: &'a dyn ContentStore,
    indexing: &'a Indexing,
}

impl Work<'_> {
    async fn list(&self, target: &Descriptor) -> Result<Descriptor> {
        let data = content::document(self.store, target, Limits::default().document).await?;
        let (mut list, images) = match Document::parse(&target.media_type, &data)? {
            Document::Manifest(manifest) => {
                let platform = Some(platform_of(&config_of(self.store, &manifest).await?));
                (empty(), vec![(Descriptor { platform, ..target.clone() }, manifest)])
            }
            Document::Index(mut index) => {
                let listed = std::mem::take(&mut index.manifests);
                (index, self.images(listed).await?)
            }
        };
        let mut indexes = Vec::new();
        for (descriptor, manifest) in images {
            if !media::is_config(&manifest.config.media_type) {
                list.manifests.push(descriptor);
                continue;
            }
            let (image, index) = self.image(descriptor, manifest).await?;
            list.manifests.push(image);
            indexes.extend(index);
        }
        if indexes.is_empty() {
            return Err(Error::failed_precondition(format!(
                "no layer has a zTOC: they have fewer than {} bytes, or are no gzip and no plain tar",
                self.indexing.min_layer_size
            )));
        }
        // Behind the images, for who takes the first one of a platform is to get an image.
        list.manifests.extend(indexes);
        media::OCI_INDEX.clone_into(&mut list.media_type);
        let labels = graph::gc_labels(&list.manifests);
        content::write_document(self.store, "index", media::OCI_INDEX, &list, labels).await
    }

    /// Those of a list that are meant and are here. Its SOCI indexes are of manifests that get others.
    async fn images(&self, listed: Vec<Descriptor>) -> Result<Vec<(Descriptor, Manifest)>> {
        let mut images = Vec::new();
        for child in self.indexing.platforms.select(listed) {
            let is_index = child.artifact_type.as_deref() == Some(soci::media::INDEX_V2);
            if is_index
                || !media::is_manifest(&child.media_type)
                || !content::exists(self.store, &child.digest).await?
            {
                continue;
            }
            let data = content::document(self.store, &child, Limits::default().document).await?;
            if let Document::Manifest(manifest) = Document::parse(&child.media_type, &data)? {
                images.push((child, manifest));
            }
        }
        Ok(images)
    }

    /// The image, which names its index, and the index, if there is one.
    async fn image(
        &self,
        target: Descriptor,
        mut manifest: Manifest,
    ) -> Result<(Descriptor, Option<Descriptor>)> {
        let ztocs = self.ztocs(&target, &manifest).await?;
        let named = manifest.annotations.remove(soci::media::INDEX_DIGEST);
        if ztocs.is_empty() && named.is_none() && target.media_type == media::OCI_MANIFEST {
            return Ok((target, None));
        }
        let index = if ztocs.is_empty() { None } else { Some(self.index(ztocs).await?) };
        if let Some(index) = &index {
            manifest.annotations.insert(soci::media::INDEX_DIGEST.to_owned(), index.digest.to_string());
        }
        // Some registries refuse lists of Docker's and OCI's manifests together.
        media::OCI_MANIFEST.clone_into(&mut manifest.media_type);
        media::OCI_CONFIG.clone_into(&mut manifest.config.media_type);
        let labels = graph::gc_labels(&graph::children(Document::Manifest(manifest.clone())));
        let made =
            content::write_document(self.store, "manifest", media::OCI_MANIFEST, &manifest, labels).await?;
        let index = index.map(|index| Descriptor {
            platform: target.platform.clone(),
            artifact_type: Some(soci::media::INDEX_V2.to_owned()),
            annotations: [(soci::media::MANIFEST_DIGEST.to_owned(), made.digest.to_string())].into(),
            ..index
        });
        let annotations = manifest.annotations;
        Ok((Descriptor { platform: target.platform, annotations, ..made }, index))
    }

    async fn index(&self, ztocs: Vec<Descriptor>) -> Result<Descriptor> {
        let digest = berth_archive::Hasher::digest(NO_CONFIG);
        let config = Descriptor::new(soci::media::INDEX_V2, digest, NO_CONFIG.len() as u64);
        self.write("config", &config, NO_CONFIG).await?;
        let manifest = Manifest {
            schema_version: 2,
            media_type: media::OCI_MANIFEST.to_owned(),
            artifact_type: None,
            config,
            layers: ztocs,
            subject: None,
            annotations: [(soci::media::TOOL.to_owned(), self.indexing.tool.clone())].into(),
        };
        let labels = graph::gc_labels(&graph::children(Document::Manifest(manifest.clone())));
        content::write_document(self.store, "manifest", media::OCI_MANIFEST, &manifest, labels).await
    }

    /// The zTOCs of an image's layers, in their order.
    async fn ztocs(&self, target: &Descriptor, manifest: &Manifest) -> Result<Vec<Descriptor>> {
        let fits = |layer: &&Descriptor| {
            let is_own = media::is_layer(&layer.media_type) && !media::is_foreign_layer(&layer.media_type);
            is_own && layer.size >= self.indexing.min_layer_size
        };
        let layers: Vec<Descriptor> = manifest.layers.iter().filter(fits).cloned().collect();
        let node = Node { descriptor: target.clone(), children: layers.clone() };
        recipes::restore(self.catalog, self.scope, &[node]).await?;
        let making = layers.iter().map(|layer| async move {
            let made = self.ztoc(layer).await;
            made.map_err(|error| error.context(format!("cannot index layer {}", layer.digest)))
        });
        let made: Vec<Option<Descriptor>> =
            futures::stream::iter(making).buffered(AT_ONCE).try_collect().await?;
        Ok(made.into_iter().flatten().collect())
    }

    /// The zTOC of a layer; none for one that cannot have any.
    async fn ztoc(&self, layer: &Descriptor) -> Result<Option<Descriptor>> {
        let reader = self.store.reader(&layer.digest).await?;
        let (input, parts) = mpsc::channel(DEPTH);
        let (span, tool) = (self.indexing.span_size, self.indexing.tool.clone());
        let making = tokio::task::spawn_blocking(move || {
            soci::make(BufReader::with_capacity(CHUNK, Source::new(parts)), span, &tool)
        });
        let (fed, made) = futures::join!(feed(&*reader, input), making);
        fed?;
        let made = made.map_err(|error| Error::internal("a thread ended early").caused_by(error))?;
        let bytes = match made {
            Ok(bytes) => bytes,
            Err(error @ (ZtocError::Zstd | ZtocError::Sparse(_) | ZtocError::Whole)) => {
                tracing::info!(layer = %layer.digest, %error, "a layer has no zTOC");
                return Ok(None);
            }
            Err(error) => return Err(Error::invalid_argument("it cannot be indexed").caused_by(error)),
        };
        let digest = berth_archive::Hasher::digest(&bytes);
        let mut ztoc = Descriptor::new(soci::media::ZTOC, digest, bytes.len() as u64);
        self.write("ztoc", &ztoc, &bytes).await?;
        let annotations = [
            (soci::media::LAYER_TYPE, layer.media_type.clone()),
            (soci::media::LAYER_DIGEST, layer.digest.to_string()),
            (soci::media::SPAN_SIZE, span.to_string()),
        ];
        ztoc.annotations = annotations.map(|(key, value)| (key.to_owned(), value)).into();
        Ok(Some(ztoc))
    }

    async fn write(&self, kind: &str, descriptor: &Descriptor, bytes: &[u8]) -> Result<()> {
        let reference = format!("{kind}-{}", descriptor.digest).parse()?;
        write_blob(self.store, reference, descriptor, Bytes::copy_from_slice(bytes), Labels::new()).await
    }
}

fn empty() -> Index {
    Index {
        schema_version: 2,
        media_type: String::new(),
        artifact_type: None,
        manifests: Vec::new(),
        subject: None,
        annotations: [].into(),
    }
}
