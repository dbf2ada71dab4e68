//! The images of a namespace as `images` shows them.

use std::time::SystemTime;

use berth_types::filter::Filters;
use berth_types::{Digest, Image, ImageRef, Result, SnapshotKey};

use crate::Workload;

/// One name of an image.
#[derive(Clone, Debug)]
pub struct ImageRow {
    /// The record.
    pub image: Image,
    /// The repository, `<none>` for a name that is no reference.
    pub repository: String,
    /// The tag, `<none>` without one.
    pub tag: String,
    /// When the image was made, if its configuration says so; else when it came here.
    pub created: SystemTime,
    /// Bytes that its unpacked layers take; none if it is not unpacked.
    pub size: Option<u64>,
    /// The platform.
    pub platform: String,
}

impl ImageRow {
    /// The id: the digest of what the name points at.
    pub fn id(&self) -> &Digest {
        &self.image.target.digest
    }
}

impl Workload {
    /// Every image, the newest first. What cannot be read, such as an image for other platforms only, is
    /// listed with what is known.
    pub async fn image_rows(&self) -> Result<Vec<ImageRow>> {
        let images = self.catalog.images(&self.scope).list(&Filters::default()).await?;
        let mut rows = Vec::with_capacity(images.len());
        for image in images {
            rows.push(self.image_row(image).await);
        }
        rows.sort_by_key(|row| std::cmp::Reverse(row.created));
        Ok(rows)
    }

    /// One image as a row.
    pub async fn image_row(&self, image: Image) -> ImageRow {
        let (repository, tag) = match image.name.as_str().parse::<ImageRef>() {
            Ok(reference) => {
                let tag = reference.tag().unwrap_or("<none>").to_owned();
                (reference.familiar_repository(), tag)
            }
            Err(_) => ("<none>".to_owned(), "<none>".to_owned()),
        };
        let mut row = ImageRow {
            created: image.created_at,
            repository,
            tag,
            size: None,
            platform: String::new(),
            image,
        };
        if let Ok(facts) = self.image_facts(&row.image, &self.settings.platform).await {
            row.platform.clone_from(&facts.platform);
            if let Ok(config) = self.image_config(&facts).await
                && let Some(created) = config.created.and_then(|text| text.parse::<jiff::Timestamp>().ok())
                && let Ok(created) = SystemTime::try_from(created)
            {
                row.created = created;
            }
            row.size = match &facts.chain {
                Some(chain) => self.chain_size(chain).await,
                None => Some(0),
            };
        }
        row
    }

    /// Bytes of a chain of committed snapshots.
    pub(crate) async fn chain_size(&self, chain: &Digest) -> Option<u64> {
        let snapshotter = self.catalog.snapshotter(&self.settings.snapshotter, &self.scope).ok()?;
        let mut next: Option<SnapshotKey> = Some(chain.as_str().parse().ok()?);
        let mut total = 0_u64;
        while let Some(key) = next {
            total = total.saturating_add(snapshotter.usage(&key).await.ok()?.size);
            next = snapshotter.stat(&key).await.ok()?.parent;
        }
        Some(total)
    }
}
