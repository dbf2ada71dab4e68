//! An index that somebody else has made is confirmed once all of its layer has come: by one that is made here.

use std::path::Path;
use std::sync::Arc;

use berth_registry::Registries;
use berth_stargz::Recorded;
use berth_types::{Digest, Error, ImageRef, Result};

use crate::cache::Cache;
use crate::layer::Layer;
use crate::source::RegistrySource;

/// Fetches the whole layer and makes an index of it, which is kept at `own` if it is like the published one. A layer
/// that turns out to hold something else than what was published of it is condemned: none of its files is read any
/// more. An error says that it is still not known.
pub(crate) async fn confirm(
    registries: &Registries,
    image: &ImageRef,
    layer: &Layer,
    cache: &Arc<Cache>,
    own: &Path,
) -> Result<()> {
    // What the published index says of the size may be a lie too.
    let source = RegistrySource::open(registries, image, layer.digest()).await?;
    let cache = Arc::clone(cache);
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
    let why = match super::recorded(&source, layer.digest(), keeping).await {
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
