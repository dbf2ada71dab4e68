//! Image records.

use async_trait::async_trait;
use berth_types::filter::Filters;
use berth_types::{Digest, FieldMask, Image, ImageName, Result};

use crate::Deletion;

/// The image records of a namespace.
#[async_trait]
pub trait Images: Send + Sync {
    /// One record.
    async fn image(&self, name: &ImageName) -> Result<Image>;

    /// Every record that passes the filters, by name.
    async fn list(&self, filters: &Filters) -> Result<Vec<Image>>;

    /// Stores a new record; the store sets its times.
    async fn create(&self, image: Image) -> Result<Image>;

    /// Changes a record as the mask says: `labels`, `labels.KEY`, `target`, `annotations`,
    /// `annotations.KEY`; everything if it is empty.
    async fn update(&self, image: Image, mask: &FieldMask) -> Result<Image>;

    /// Removes a record; with `target`, only if it still points there, otherwise NotFound.
    async fn delete(&self, name: &ImageName, target: Option<&Digest>, deletion: Deletion) -> Result<()>;
}
