//! Indexes that somebody has published beside the image.
//!
//! An image's manifest says nothing of them, so they are only looked for where whoever may write into the image's
//! repository is trusted with what its layers hold ([`Config::plain_indexes`](crate::Config)).

use std::collections::HashMap;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use berth_oci::image::Manifest;
use berth_registry::{Access, Registries};
use berth_stargz::Index;
use berth_types::{Digest, Error, ImageRef, Result};
use tokio::sync::OnceCell;

use super::artifact;
use crate::labels::Wanted;
use crate::layer::Layer;
use crate::source::RegistrySource;
use crate::{reads, referrers, source};

/// Bytes of one index, and of a list of reads.
const INDEX_LIMIT: u64 = 256 << 20;

/// Images that are remembered.
const REMEMBERED: usize = 64;

/// What is published of images, asked for once for all layers of each.
#[derive(Debug, Default)]
pub(crate) struct Published(Mutex<HashMap<Digest, Asked>>);

/// The artifacts of an image.
type Asked = Arc<OnceCell<Vec<Manifest>>>;

/// An index that was found, kept at its path, and what came with it.
#[derive(Debug)]
pub(crate) struct Found {
    pub(crate) index: Index,
    /// The bytes of a list of what is read first.
    pub(crate) reads: Option<Vec<u8>>,
}

impl Published {
    /// Looks for an index of a layer, and keeps it at `path`. None where nobody has published one that can be read.
    pub(crate) async fn find(
        &self,
        registries: &Registries,
        wanted: &Wanted,
        path: &Path,
    ) -> Result<Option<Found>> {
        let Wanted { image, layer, manifest: Some(manifest), .. } = wanted else { return Ok(None) };
        let asked = {
            let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            if all.len() >= REMEMBERED {
                all.clear();
            }
            Arc::clone(all.entry(manifest.clone()).or_default())
        };
        let asking = || async {
            let repository = registries.repository(image, Access::Pull)?;
            referrers::artifacts(&repository, manifest, artifact::KIND).await
        };
        let artifacts = asked.get_or_try_init(asking).await?;
        for artifact in artifacts {
            let Some(blob) = artifact::about(artifact, artifact::INDEX, layer) else { continue };
            let file = source::whole(registries, image, blob, INDEX_LIMIT).await?;
            let index = match kept(file, layer, path).await {
                Ok(index) => index,
                Err(error) => {
                    tracing::warn!(%layer, error = error.chain(), "a published index is passed over");
                    continue;
                }
            };
            // Whoever publishes again may know more.
            let known = artifacts.iter().find_map(|other| artifact::about(other, artifact::READS, layer));
            let reads = match known {
                Some(blob) => source::whole(registries, image, blob, reads::LIMIT).await.ok(),
                None => None,
            };
            return Ok(Some(Found { index, reads }));
        }
        Ok(None)
    }

    /// Forgets who has been asked for.
    pub(crate) fn forget(&self) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }
}

/// A layer by an index that was published in an image's repository.
pub(crate) fn published(digest: &Digest, index: Index, source: RegistrySource, image: &ImageRef) -> Layer {
    let layer = Layer::new(digest.clone(), index.layer, Arc::new(source)).holding(index.diff_id);
    layer.published_in(image.clone())
}

async fn kept(file: Vec<u8>, layer: &Digest, path: &Path) -> Result<Index> {
    let (layer, path) = (layer.clone(), path.to_owned());
    let reading = tokio::task::spawn_blocking(move || {
        let index = Index::read(&file, &layer).map_err(|error| {
            Error::invalid_argument(format!("the index of layer {layer} cannot be read")).caused_by(error)
        })?;
        if let Err(error) = super::keep(&file, &path) {
            tracing::warn!(%layer, %error, "cannot keep a published index");
        }
        Ok(index)
    });
    reading.await.map_err(|error| Error::internal("reading an index ended early").caused_by(error))?
}
