//! SOCI indexes: tables that somebody has put beside an image, one for each of its larger layers.
//!
//! ```text
//!   manifest ─ annotation (v2) ────────────────▶ SOCI index ─ layer's digest ─▶ zTOC ─▶ spans of the layer
//!       ▲                                            │                                 each verified by its digest
//!       ╰─ referrers API, or the tag in its place (v1)
//! ```
//! In the second version the manifest vouches for all of it. In the first one it is whoever may write to the repository
//! who does, which is not for everybody. What a zTOC says of the files is taken as a table of contents is.

use std::collections::HashMap;
use std::fs;
use std::io;
use std::path::Path;
use std::sync::Arc;

use berth_oci::image::Manifest;
use berth_registry::{Access, Registries};
use berth_stargz::soci::{Ztoc, media};
use berth_types::{Descriptor, Digest, Error, Result};

use crate::config::Config;
use crate::index::manifest_of;
use crate::labels::Wanted;
use crate::layer::Layer;
use crate::source::{self, RegistrySource, Source as _};

/// Bytes of the largest zTOC: it is read in memory.
const LIMIT: u64 = 256 << 20;

/// The zTOCs of an image, by their layers.
#[derive(Debug)]
pub(crate) struct Ztocs(HashMap<Digest, Descriptor>);

impl Ztocs {
    /// Those that the SOCI index of an image names; none where it has none that is wanted.
    pub(crate) async fn find(
        registries: &Registries,
        wanted: &Wanted,
        manifest: &Manifest,
        config: &Config,
    ) -> Result<Option<Self>> {
        let named = manifest.annotations.get(media::INDEX_DIGEST).filter(|_| config.soci);
        let index = match (named, &wanted.manifest) {
            (Some(digest), _) => digest.parse()?,
            (None, Some(subject)) if config.soci_v1 => {
                let repository = registries.repository(&wanted.image, Access::Pull)?;
                match repository.referrers(subject, Some(media::INDEX_V1)).await?.into_iter().next() {
                    Some(found) => found.digest,
                    None => return Ok(None),
                }
            }
            _ => return Ok(None),
        };
        let found = manifest_of(registries, &wanted.image, &index).await?;
        if !matches!(found.config.media_type.as_str(), media::INDEX_V1 | media::INDEX_V2) {
            return Err(Error::invalid_argument(format!("{index} is called a SOCI index and is none")));
        }
        let of_layer = |ztoc: Descriptor| {
            let layer = ztoc.annotations.get(media::LAYER_DIGEST)?.parse().ok()?;
            // What is to be fetched first is listed beside them.
            (ztoc.media_type == media::ZTOC).then_some((layer, ztoc))
        };
        Ok(Some(Self(found.layers.into_iter().filter_map(of_layer).collect())))
    }

    /// The zTOC of a layer.
    pub(crate) fn of(&self, layer: &Digest) -> Option<&Descriptor> {
        self.0.get(layer)
    }
}

/// A layer with a zTOC, which is read from `path`, or fetched and kept there.
pub(crate) async fn layer(
    registries: &Registries,
    wanted: &Wanted,
    (digest, size): (&Digest, u64),
    path: &Path,
) -> Result<Layer> {
    let Wanted { image, layer: of, .. } = wanted;
    let kept = {
        let (path, digest) = (path.to_owned(), digest.clone());
        let kept = move || Ztoc::read(&fs::read(path).ok()?, &digest).ok();
        tokio::task::spawn_blocking(kept).await.ok().flatten()
    };
    if let Some(Ztoc { layer, size }) = kept {
        let source = RegistrySource::known(registries, image, of, size)?;
        return Ok(Layer::new(of.clone(), layer, Arc::new(source)));
    }
    let opened = async {
        let source = RegistrySource::open(registries, image, of).await?;
        source.gives_ranges().await?;
        Ok(source)
    };
    let descriptor = Descriptor::new(media::ZTOC, digest.clone(), size);
    let (source, bytes) = futures::try_join!(opened, source::whole(registries, image, &descriptor, LIMIT))?;
    let (expected, to) = (digest.clone(), path.to_owned());
    let reading = tokio::task::spawn_blocking(move || {
        let read = Ztoc::read(&bytes, &expected);
        if read.is_ok()
            && let Err(error) = keep(&bytes, &to)
        {
            tracing::warn!(ztoc = %expected, %error, "cannot keep a zTOC");
        }
        read
    });
    let read =
        reading.await.map_err(|error| Error::internal("reading a zTOC ended early").caused_by(error))?;
    let unfit = || Error::failed_precondition(format!("layer {of} cannot be used by its zTOC {digest}"));
    let Ztoc { layer, size } = read.map_err(|error| unfit().caused_by(error))?;
    if source.size() != size {
        let text = format!("the layer has {} bytes, and by its zTOC {size}", source.size());
        return Err(unfit().caused_by(Error::data_loss(text)));
    }
    Ok(Layer::new(of.clone(), layer, Arc::new(source)))
}

fn keep(bytes: &[u8], path: &Path) -> io::Result<()> {
    let new = path.with_extension("new");
    fs::write(&new, bytes)?;
    fs::rename(&new, path)
}
