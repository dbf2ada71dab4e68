//! Image records: published, named again, removed.

use berth_core::{Catalog, Deletion, Images, Scope};
use berth_types::{ErrorKind, FieldMask, Image, ImageName, Result};

/// Stores a record in one step, in place of one of that name; labels that are given replace those that were.
pub async fn publish(images: &dyn Images, image: Image) -> Result<Image> {
    match images.create(image.clone()).await {
        Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
        result => return result,
    }
    let mut mask = vec!["target"];
    if !image.labels.is_empty() {
        mask.push("labels");
    }
    match images.update(image.clone(), &FieldMask::new(mask)).await {
        // Somebody removed it in between.
        Err(error) if error.kind() == ErrorKind::NotFound => images.create(image).await,
        result => result,
    }
}

/// Gives an image one more name, in place of whatever had it.
pub async fn tag(catalog: &dyn Catalog, scope: &Scope, from: &ImageName, to: &ImageName) -> Result<Image> {
    let images = catalog.images(scope);
    let image = images.image(from).await?;
    publish(&*images, Image { name: to.clone(), ..image }).await
}

/// Takes a name away; what nothing refers to goes with it.
pub async fn delete(
    catalog: &dyn Catalog,
    scope: &Scope,
    name: &ImageName,
    deletion: Deletion,
) -> Result<()> {
    catalog.images(scope).delete(name, None, deletion).await
}
