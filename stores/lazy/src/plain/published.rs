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
use berth_types::{Digest, Error, Result};
use tokio::sync::OnceCell;

use super::artifact;
use crate::labels::Wanted;
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
        for artifact in asked.get_or_try_init(asking).await? {
            let Some(blob) = artifact::about(artifact, artifact::INDEX, layer) else { continue };
            let file = source::whole(registries, image, blob, INDEX_LIMIT).await?;
            let index = match kept(file, layer, path).await {
                Ok(index) => index,
                Err(error) => {
                    tracing::warn!(%layer, error = error.chain(), "a published index is passed over");
                    continue;
                }
            };
            let reads = match artifact::about(artifact, artifact::READS, layer) {
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
