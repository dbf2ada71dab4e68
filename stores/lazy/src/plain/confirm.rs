//! An index that somebody else has made is confirmed once all of its layer has come: by one that is made here.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use berth_registry::Registries;
use berth_stargz::Recorded;
use berth_types::{Digest, Error, ImageRef, Result};
use tokio::sync::Semaphore;

use crate::fetch::Fetcher;
use crate::figures::Reason;
use crate::keeper::Keeper;
use crate::layer::Layer;
use crate::source::RegistrySource;

/// How long it rests after a failure.
const REST: Duration = Duration::from_secs(30);

/// What is needed to find out whether a published index is true.
pub(crate) struct Confirming {
    pub(crate) registries: Registries,
    pub(crate) image: ImageRef,
    pub(crate) own: PathBuf,
    pub(crate) published: PathBuf,
    /// Where the layer is mounted, and who keeps the mount.
    pub(crate) point: PathBuf,
    pub(crate) keeper: Option<Arc<Mutex<Keeper>>>,
}

impl Confirming {
    /// Tries until it is known.
    pub(crate) async fn run(&self, layer: &Layer, fetcher: &Fetcher, turns: &Semaphore) {
        loop {
            let Ok(turn) = turns.acquire().await else { return };
            // Another mount of it may have been quicker.
            if layer.unconfirmed().is_none() || layer.is_condemned() {
                break;
            }
            match confirm(&self.registries, &self.image, layer, fetcher, &self.own).await {
                Ok(()) if layer.is_condemned() => {
                    fetcher.counters.wrong();
                    break;
                }
                Ok(()) => {
                    let bytes = layer.source().size();
                    layer.count_fetched(bytes);
                    fetcher.counters.fetched(Reason::Whole, bytes);
                    tracing::info!(layer = %layer.digest(), "a published index is confirmed");
                    break;
                }
                Err(error) => {
                    fetcher.counters.failed(&error);
                    tracing::info!(layer = %layer.digest(), error = error.chain(), "confirming an index rests");
                }
            }
            drop(turn);
            tokio::time::sleep(REST).await;
        }
        // The next process has another index, by which the kernel's numbers of files mean others.
        if layer.is_condemned()
            && let Some(keeper) = self.keeper.clone()
        {
            let point = self.point.clone();
            let forgetting = tokio::task::spawn_blocking(move || {
                keeper.lock().unwrap_or_else(PoisonError::into_inner).forget(&point)
            });
            if let Ok(Err(error)) = forgetting.await {
                tracing::warn!(point = %self.point.display(), %error, "the keeper keeps a mount of lies");
            }
        }
        drop(fs::remove_file(&self.published));
    }
}

/// Fetches the whole layer and makes an index of it, which is kept at `own` if it is like the published one. A layer
/// that turns out to hold something else than what was published of it is condemned: none of its files is read any
/// more. An error says that it is still not known.
async fn confirm(
    registries: &Registries,
    image: &ImageRef,
    layer: &Layer,
    fetcher: &Fetcher,
    own: &Path,
) -> Result<()> {
    // What the published index says of the size may be a lie too.
    let source = RegistrySource::open(registries, image, layer.digest()).await?;
    let cache = Arc::clone(&fetcher.cache);
    let keeping = move |digest: &Digest, bytes: &[u8]| {
        // Nobody has asked for it yet.
        if !cache.has(digest)
            && !cache.is_crowded()
            && let Err(error) = cache.keep(digest, bytes)
        {
            tracing::warn!(%error, "cannot keep a chunk in the cache");
        }
        Ok(())
    };
    let why = match super::recorded((&source, Some(&*fetcher.demand)), layer.digest(), keeping).await {
        Ok(Recorded { index, file }) => {
            if index.layer.is_same(layer.index()) && Some(&index.diff_id) == layer.diff_id() {
                super::keep(&file, own).map_err(|error| Error::io("cannot keep an index", error))?;
                layer.confirm();
                return Ok(());
            }
            "its files are others".to_owned()
        }
        Err(refused) if refused.for_good => refused.error.chain(),
        Err(refused) => return Err(refused.error),
    };
    layer.condemn();
    tracing::error!(
        layer = %layer.digest(), %image, why,
        "a published index lies about its layer: its files are not served any more; remove the image, see who can \
         write into its repository, and pull it again"
    );
    Ok(())
}
