//! Images from archives and folders.
//!
//! An archive is read once, from front to back, so that it may come from a pipe: every file goes into content as it
//! passes, under a lease, and what the images turn out not to need goes away with the lease.

mod docker;
mod files;
mod folder;
mod names;

use std::io::Read;
use std::path::PathBuf;

use berth_core::{Catalog, ContentStore, PlainLayers, Scope};
use berth_oci::image::{Document, Index, media};
use berth_types::{Descriptor, Digest, Error, ErrorKind, Image, ImageName, Labels, Result};
use serde::Deserialize;

use crate::content;
use crate::graph::{self, Limits, Missing};
use crate::hold::{Hold, unique};
use crate::image::publish;
use crate::platforms::Platforms;
use crate::progress::Reporter;
use crate::tar::Members;

use self::files::Files;
pub use self::names::{Digests, Names, Only};
pub(crate) use self::names::{IMAGE_NAME, REF_NAME, annotate, full};

/// Where images come from.
pub enum Source {
    /// A folder with an OCI image layout.
    Layout(PathBuf),
    /// A tar with an OCI image layout or of `docker save`, compressed or not.
    Archive(Box<dyn Read + Send>),
}

/// How to import.
#[derive(Default)]
pub struct Import {
    /// How images without a full name are called.
    pub names: Names,
    /// Which images of an index to take.
    pub platforms: Platforms,
    /// Labels of the image records.
    pub labels: Labels,
    /// What becomes of a Docker archive's layers that are not compressed.
    pub plain: PlainLayers,
    /// Bounds of the documents.
    pub limits: Limits,
    /// Where progress goes.
    pub progress: Reporter,
}

/// What came in.
#[derive(Clone, Debug, Default)]
pub struct Imported {
    /// The image records, in the archive's order.
    pub images: Vec<Image>,
    /// Images that have no name. Nothing refers to them: they stay only if the caller sees to it under its own
    /// lease.
    pub unnamed: Vec<Descriptor>,
}

/// The only version that there is.
const LAYOUT_VERSION: &str = "1.0.0";

/// Bytes of `oci-layout`.
const LAYOUT_LIMIT: u64 = 4096;

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Layout {
    image_layout_version: String,
}

/// Imports every image of an archive or a folder and publishes those that have names.
///
/// Content that is there already is not written again. Nothing is published unless all of it is whole.
pub async fn import(
    catalog: &dyn Catalog,
    scope: &Scope,
    source: Source,
    options: &Import,
) -> Result<Imported> {
    let hold = Hold::begin(catalog, scope).await?;
    let imported = import_held(catalog, hold.scope(), source, options).await;
    hold.over(imported).await
}

fn members(source: Source, options: &Import) -> Result<Members> {
    match source {
        Source::Archive(archive) => Members::of_archive(archive),
        Source::Layout(folder) => folder::members(folder, options.platforms.clone(), options.limits),
    }
}

/// An archive's images in content, before anything names them. Only a lease keeps them.
pub(crate) struct Taken {
    files: Files,
    /// With their names in annotations.
    pub(crate) images: Vec<Descriptor>,
}

impl Taken {
    /// Takes in what `source` has, without its names. Ingests begin with `prefix`, which nothing else has.
    pub(crate) async fn from(
        content: &dyn ContentStore,
        source: Source,
        prefix: &str,
        options: &Import,
    ) -> Result<Self> {
        let files = Files::take(content, members(source, options)?, prefix, options).await?;
        let tops = tops(content, &files, options).await?;
        let images = keep(content, tops, options).await?;
        Ok(Self { files, images })
    }

    /// The index of all of it as content, as containerd writes it: the archive's own, or that of a Docker archive.
    pub(crate) async fn index(&self, content: &dyn ContentStore) -> Result<Descriptor> {
        let labels = graph::gc_labels(&self.images);
        if self.files.layout.is_some() {
            return own_index(content, &self.files, labels).await;
        }
        let index = Index { media_type: String::new(), ..index_of(&self.images) };
        content::write_document(content, "index", media::OCI_INDEX, &index, labels).await
    }
}

async fn import_held(
    catalog: &dyn Catalog,
    scope: &Scope,
    source: Source,
    options: &Import,
) -> Result<Imported> {
    let content = catalog.content(scope);
    let Taken { files, images } = Taken::from(&*content, source, &unique("import"), options).await?;
    finish(catalog, scope, &*content, &files, images, options).await
}

/// The images that an archive lists, as descriptors with their names in annotations.
async fn tops(content: &dyn ContentStore, files: &Files, options: &Import) -> Result<Vec<Descriptor>> {
    if let Some(layout) = &files.layout {
        let layout: Layout = files::json("oci-layout", layout)?;
        if layout.image_layout_version != LAYOUT_VERSION {
            return Err(Error::invalid_argument(format!(
                "the layout has version {:?}, this program knows {LAYOUT_VERSION}",
                layout.image_layout_version
            )));
        }
        let index =
            files.index.as_deref().ok_or_else(|| Error::invalid_argument("the layout has no index.json"))?;
        return match Document::parse(media::OCI_INDEX, index)? {
            Document::Index(index) => Ok(index.manifests),
            Document::Manifest(_) => Err(Error::invalid_argument("the layout's index.json is no index")),
        };
    }
    match &files.manifest {
        Some(manifest) => docker::tops(content, files, manifest, options).await,
        None => Err(Error::invalid_argument(
            "not an image: neither an OCI layout (oci-layout) nor a Docker archive (manifest.json)",
        )),
    }
}

/// Checks that the images are whole and lets each document keep its children.
async fn keep(
    content: &dyn ContentStore,
    tops: Vec<Descriptor>,
    options: &Import,
) -> Result<Vec<Descriptor>> {
    let total = tops.len();
    let mut kept: Vec<Descriptor> = Vec::new();
    let mut skipped = None;
    for top in options.platforms.select_listed(tops) {
        if !graph::is_document(&top.media_type) || !options.names.picks(&top) {
            continue;
        }
        if kept.iter().any(|other| other.digest == top.digest) {
            kept.push(top);
            continue;
        }
        match graph::walk(content, &top, &options.platforms, Missing::Skip, options.limits).await {
            Ok(nodes) => {
                // Children first: a document that others can see keeps what it needs.
                for node in nodes.iter().rev() {
                    let labels = graph::gc_labels(&node.children);
                    content::add_labels(content, &node.descriptor.digest, labels).await?;
                }
                kept.push(top);
            }
            Err(error) if error.kind() == ErrorKind::NotFound && total > 1 => {
                skipped.get_or_insert(error);
            }
            Err(error) => return Err(error),
        }
    }
    match (kept.is_empty(), skipped) {
        (true, Some(error)) => Err(error),
        (true, None) => Err(Error::not_found("the archive has no image for the wanted platform")),
        (false, _) => Ok(kept),
    }
}

async fn finish(
    catalog: &dyn Catalog,
    scope: &Scope,
    content: &dyn ContentStore,
    files: &Files,
    kept: Vec<Descriptor>,
    options: &Import,
) -> Result<Imported> {
    let images = catalog.images(scope);
    let mut imported = Imported::default();
    if let Some(name) = &options.names.index {
        let target = whole_index(content, files, &kept, options).await?;
        imported.images.push(publish(&*images, record(name.clone(), target, options)).await?);
    }
    let single = kept.len() == 1;
    let mut unnamed: Vec<Digest> = Vec::new();
    for target in kept {
        let names = options.names.of(&target, single)?;
        if names.is_empty() && options.names.index.is_none() && !unnamed.contains(&target.digest) {
            unnamed.push(target.digest.clone());
            imported.unnamed.push(target.clone());
        }
        for name in names {
            imported.images.push(publish(&*images, record(name, target.clone(), options)).await?);
        }
    }
    Ok(imported)
}

fn record(name: ImageName, target: Descriptor, options: &Import) -> Image {
    Image { labels: options.labels.clone(), ..Image::new(name, target) }
}

/// The archive's own index as content, for an image that is all of it.
async fn whole_index(
    content: &dyn ContentStore,
    files: &Files,
    kept: &[Descriptor],
    options: &Import,
) -> Result<Descriptor> {
    let labels = graph::gc_labels(kept);
    if files.layout.is_some() && matches!(options.platforms, Platforms::All) {
        return own_index(content, files, labels).await;
    }
    content::write_document(content, "index", media::OCI_INDEX, &index_of(kept), labels).await
}

async fn own_index(content: &dyn ContentStore, files: &Files, labels: Labels) -> Result<Descriptor> {
    let data = files.index.clone().unwrap_or_default();
    let digest = berth_archive::Hasher::digest(&data);
    let descriptor = Descriptor::new(media::OCI_INDEX, digest, data.len() as u64);
    let reference = format!("index-{}", descriptor.digest).parse()?;
    berth_core::write_blob(content, reference, &descriptor, data.into(), labels).await?;
    Ok(descriptor)
}

/// An index of images.
pub(crate) fn index_of(images: &[Descriptor]) -> Index {
    Index {
        schema_version: 2,
        media_type: media::OCI_INDEX.to_owned(),
        artifact_type: None,
        manifests: images.to_vec(),
        subject: None,
        annotations: std::collections::BTreeMap::new(),
    }
}
