//! Lists of images: an index that is made here, of images that are here.

use berth_core::{Catalog, ContentStore, Scope};
use berth_oci::image::{Document, Index};
use berth_types::{Descriptor, Error, ErrorKind, Image, ImageName, Platform, Result};

use crate::content;
use crate::graph::{self, Limits};
use crate::hold::Hold;
use crate::image::{config_of, platform_of, publish};
use crate::import::index_of;

/// What a name that has a list already means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Amend {
    /// An error.
    No,
    /// The list gets more members.
    Yes,
}

/// What is changed of a member's platform; what is none stays.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PlatformChange {
    /// The operating system.
    pub os: Option<String>,
    /// The architecture.
    pub architecture: Option<String>,
    /// Its variant.
    pub variant: Option<String>,
    /// The operating system's version.
    pub os_version: Option<String>,
}

/// The index or manifest behind a target, as it is stored.
pub async fn document(catalog: &dyn Catalog, scope: &Scope, target: &Descriptor) -> Result<Vec<u8>> {
    content::document(&*catalog.content(scope), target, Limits::default().document).await
}

/// Makes a list of images. Of a member that is a list itself, the images that are here are taken.
pub async fn create_list(
    catalog: &dyn Catalog,
    scope: &Scope,
    name: &ImageName,
    members: &[ImageName],
    amend: Amend,
) -> Result<Image> {
    let images = catalog.images(scope);
    let store = catalog.content(scope);
    let mut index = match images.image(name).await {
        Ok(_) if amend == Amend::No => {
            return Err(Error::already_exists(format!("{name} is there already; --amend adds to it")));
        }
        Ok(image) => index(&*store, &image).await?,
        Err(error) if error.kind() == ErrorKind::NotFound => index_of(&[]),
        Err(error) => return Err(error),
    };
    for member in members {
        let image = images.image(member).await?;
        let found = described(&*store, &image.target).await?;
        if found.is_empty() {
            return Err(Error::not_found(format!("no image of the list {member} is here")));
        }
        for one in found {
            index.manifests.retain(|known| known.digest != one.digest);
            index.manifests.push(one);
        }
    }
    store_list(catalog, scope, name, &index).await
}

/// Changes what a list says of one of its members.
pub async fn annotate_list(
    catalog: &dyn Catalog,
    scope: &Scope,
    name: &ImageName,
    member: &ImageName,
    change: &PlatformChange,
) -> Result<Image> {
    let images = catalog.images(scope);
    let store = catalog.content(scope);
    let mut index = index(&*store, &images.image(name).await?).await?;
    let target = images.image(member).await?.target.digest;
    let found = index.manifests.iter_mut().find(|one| one.digest == target);
    let found = found.ok_or_else(|| Error::not_found(format!("{member} is not in the list {name}")))?;
    let platform = found.platform.get_or_insert_with(Platform::default);
    let PlatformChange { os, architecture, variant, os_version } = change.clone();
    for (field, value) in [
        (&mut platform.os, os),
        (&mut platform.architecture, architecture),
        (&mut platform.variant, variant),
        (&mut platform.os_version, os_version),
    ] {
        if let Some(value) = value {
            *field = value;
        }
    }
    store_list(catalog, scope, name, &index).await
}

async fn read(store: &dyn ContentStore, target: &Descriptor) -> Result<Document> {
    let data = content::document(store, target, Limits::default().document).await?;
    Document::parse(&target.media_type, &data)
}

async fn index(store: &dyn ContentStore, image: &Image) -> Result<Index> {
    match read(store, &image.target).await? {
        Document::Index(index) => Ok(index),
        Document::Manifest(_) => {
            Err(Error::failed_precondition(format!("{} is one image and no list", image.name)))
        }
    }
}

/// The images behind a target, with their platforms.
async fn described(store: &dyn ContentStore, target: &Descriptor) -> Result<Vec<Descriptor>> {
    match read(store, target).await? {
        Document::Index(index) => {
            let mut here = Vec::new();
            for one in index.manifests {
                if content::exists(store, &one.digest).await? {
                    here.push(one);
                }
            }
            Ok(here)
        }
        Document::Manifest(manifest) => {
            let platform = platform_of(&config_of(store, &manifest).await?);
            let own = Descriptor::new(target.media_type.clone(), target.digest.clone(), target.size);
            Ok(vec![Descriptor { platform: Some(platform), ..own }])
        }
    }
}

async fn store_list(catalog: &dyn Catalog, scope: &Scope, name: &ImageName, index: &Index) -> Result<Image> {
    let hold = Hold::begin(catalog, scope).await?;
    let stored = async {
        let store = catalog.content(hold.scope());
        let labels = graph::gc_labels(&index.manifests);
        let target = content::write_document(&*store, "index", &index.media_type, index, labels).await?;
        publish(&*catalog.images(hold.scope()), Image::new(name.clone(), target)).await
    };
    let stored = stored.await;
    hold.over(stored).await
}
