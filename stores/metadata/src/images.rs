//! Image records.

use std::sync::Arc;
use std::time::SystemTime;

use async_trait::async_trait;
use berth_core::{Deletion, Images, Scope};
use berth_types::filter::Filters;
use berth_types::{Digest, Error, Event, FieldMask, Image, ImageName, Labels, Result};

use crate::gc::labels::EXPIRE;
use crate::key::{Kind, key};
use crate::ledger::{Durability, Txn};
use crate::record::{
    ImageRecord, Resource, checked_labels, each, ensure_namespace, hold, let_go, load, store,
};
use crate::shared::Shared;
use crate::storage::Read;

/// The images of a namespace.
pub(crate) struct ImageView {
    pub(crate) shared: Arc<Shared>,
    pub(crate) scope: Scope,
}

#[async_trait]
impl Images for ImageView {
    async fn image(&self, name: &ImageName) -> Result<Image> {
        self.shared.ledger.view(|read| find(read, &self.scope, name))
    }

    async fn list(&self, filters: &Filters) -> Result<Vec<Image>> {
        let (prefix, filters) = (key(Kind::Image, &[self.scope.namespace.as_str()]), filters.clone());
        let walk = move |read: &dyn Read| {
            let mut all = Vec::new();
            each::<ImageRecord, 2>(read, &prefix, |[_, name], record| {
                let image = record.named(name.parse()?);
                if filters.matches(&image) {
                    all.push(image);
                }
                Ok(())
            })?;
            Ok(all)
        };
        self.shared.ledger.walk(walk).await
    }

    async fn create(&self, image: Image) -> Result<Image> {
        let mut image = checked(image)?;
        image.created_at = SystemTime::now();
        image.updated_at = image.created_at;
        let scope = self.scope.clone();
        let change = move |txn: &mut Txn<'_>| {
            ensure_namespace(txn, &scope.namespace)?;
            let key = ImageRecord::key(scope.namespace.as_str(), image.name.as_str());
            if txn.load(&key)?.is_some() {
                return Err(Error::already_exists(format!(
                    "image {:?}: already exists",
                    image.name.as_str()
                )));
            }
            lease(txn, &scope, &image)?;
            store(txn, &key, &ImageRecord::new(&image))?;
            txn.tell(
                &scope.namespace,
                Event::ImageCreate { name: image.name.to_string(), labels: image.labels.clone() },
            );
            Ok(image)
        };
        self.shared.ledger.update(Durability::Synced, change).await
    }

    async fn update(&self, image: Image, mask: &FieldMask) -> Result<Image> {
        let (scope, mask) = (self.scope.clone(), mask.clone());
        let change = move |txn: &mut Txn<'_>| {
            let current = find(txn, &scope, &image.name)?;
            let (created_at, target) = (current.created_at, current.target.digest.clone());
            let mut image = checked(merge(current, image, &mask)?)?;
            image.created_at = created_at;
            image.updated_at = SystemTime::now();
            lease(txn, &scope, &image)?;
            let key = ImageRecord::key(scope.namespace.as_str(), image.name.as_str());
            store(txn, &key, &ImageRecord::new(&image))?;
            if image.target.digest != target {
                txn.release();
            }
            txn.tell(
                &scope.namespace,
                Event::ImageUpdate { name: image.name.to_string(), labels: image.labels.clone() },
            );
            Ok(image)
        };
        self.shared.ledger.update(Durability::Synced, change).await
    }

    async fn delete(&self, name: &ImageName, target: Option<&Digest>, deletion: Deletion) -> Result<()> {
        let (scope, name, target) = (self.scope.clone(), name.clone(), target.cloned());
        let change = move |txn: &mut Txn<'_>| {
            let image = find(txn, &scope, &name)?;
            if let Some(wanted) = target.filter(|wanted| *wanted != image.target.digest) {
                return Err(Error::not_found(format!(
                    "image {:?} has target {}, not {wanted}",
                    name.as_str(),
                    image.target.digest
                )));
            }
            let_go(txn, &scope, Resource::Image(name.as_str()))?;
            txn.delete(&ImageRecord::key(scope.namespace.as_str(), name.as_str()))?;
            txn.release();
            txn.tell(&scope.namespace, Event::ImageDelete { name: name.to_string() });
            Ok(())
        };
        self.shared.ledger.update(Durability::Synced, change).await?;
        self.shared.after(deletion).await
    }
}

fn find(read: &dyn Read, scope: &Scope, name: &ImageName) -> Result<Image> {
    load::<ImageRecord>(read, &ImageRecord::key(scope.namespace.as_str(), name.as_str()))?
        .map(|record| record.named(name.clone()))
        .ok_or_else(|| Error::not_found(format!("image {:?}: not found", name.as_str())))
}

/// An image that can expire is no root, so whoever makes it holds it.
fn lease(txn: &mut Txn<'_>, scope: &Scope, image: &Image) -> Result<()> {
    if image.labels.contains_key(EXPIRE) {
        hold(txn, scope, Resource::Image(image.name.as_str()))?;
    }
    Ok(())
}

fn merge(mut current: Image, new: Image, mask: &FieldMask) -> Result<Image> {
    if mask.is_all() {
        return Ok(new);
    }
    for path in mask.paths() {
        if path == "target" {
            current.target = new.target.clone();
        } else if !is_map(path, "labels") && !is_map(path, "annotations") {
            return Err(Error::invalid_argument(format!(
                "cannot update {path:?} field on image {:?}",
                new.name.as_str()
            )));
        }
    }
    mask.merge_map("labels", &mut current.labels, &new.labels);
    mask.merge_map("annotations", &mut current.target.annotations, &new.target.annotations);
    Ok(current)
}

fn is_map(path: &str, field: &str) -> bool {
    path.strip_prefix(field).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
}

/// Containerd's rules for an image, in its words; leaves out what is not stored.
fn checked(image: Image) -> Result<Image> {
    let Image { name, labels, mut target, created_at, updated_at } = image;
    let labels: Labels = checked_labels("image", labels)?;
    if target.size == 0 {
        return Err(Error::invalid_argument("target.Size must be greater than zero"));
    }
    if target.media_type.is_empty() {
        return Err(Error::invalid_argument("target.MediaType must be set"));
    }
    target.annotations.retain(|_, value| !value.is_empty());
    target.urls.clear();
    target.data = None;
    target.platform = None;
    target.artifact_type = None;
    Ok(Image { name, labels, target, created_at, updated_at })
}
