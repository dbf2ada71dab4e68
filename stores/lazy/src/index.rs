//! The table of contents of a layer: found, trusted, and kept on disk for the next time.

use std::collections::HashMap;
use std::fs;
use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use berth_oci::image::{Document, ImageConfig, Manifest, chain_ids, media};
use berth_registry::{Access, Registries};
use berth_stargz::{Layer as Index, Position, StargzError, TAIL, annotation};
use berth_types::{Descriptor, Digest, Error, ImageRef, Result, SnapshotKey};
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use tokio::sync::OnceCell;

use crate::config::Config;
use crate::labels::Wanted;
use crate::soci::Ztocs;
use crate::source::{self, Source};

/// By what a table is trusted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Trust {
    /// The digest of its JSON.
    Document(Digest),
    /// The digest of its compressed bytes, and where they are.
    Compressed { digest: Digest, position: String },
    /// The digest of a zTOC, and the bytes that it has. The layer itself has none.
    Ztoc { digest: Digest, size: u64 },
    /// The layer has none. An index of it is made here, while all of it passes and is verified.
    Own,
}

/// A table as it is kept: what is needed to read it again, and its compressed bytes.
#[derive(Debug, Serialize, Deserialize)]
struct Header {
    blob: u64,
    trust: Trust,
    /// The last bytes of the blob, where they said where the table is.
    tail: Vec<u8>,
}

/// So many bytes at the end of a blob are fetched for its footer: a small table is among them.
const END: u64 = 128 << 10;

/// The layers of manifests that were asked about, so that each manifest is fetched once for all of its layers.
#[derive(Debug, Default)]
pub(crate) struct Manifests(Mutex<HashMap<Digest, Arc<Known>>>);

/// What is known of an image.
#[derive(Debug, Default)]
struct Known {
    manifest: OnceCell<Manifest>,
    diff_ids: OnceCell<Vec<Digest>>,
    ztocs: OnceCell<Option<Ztocs>>,
}

/// Bytes of an image's configuration.
const CONFIG_LIMIT: u64 = 8 << 20;

/// Manifests that are remembered.
const REMEMBERED: usize = 64;

impl Manifests {
    /// By what a layer's table is trusted: what the labels say, else what the manifest does that they name, or the
    /// image's SOCI index. Layers that such an index leaves out, which are small, are taken without tables.
    pub(crate) async fn trust(
        &self,
        registries: &Registries,
        wanted: &Wanted,
        config: &Config,
    ) -> Result<Trust> {
        if let Some(trust) = &wanted.trust {
            return Ok(trust.clone());
        }
        let known = self.known(registries, wanted).await?;
        let layers = known.manifest.get().map(|manifest| &manifest.layers[..]).unwrap_or_default();
        let layer = layers.iter().find(|found| found.digest == wanted.layer).ok_or_else(|| {
            Error::not_found(format!("layer {} is not in its image's manifest", wanted.layer))
        })?;
        if let Some(trust) = Trust::said(layer)? {
            return Ok(trust);
        }
        if !media::is_layer(&layer.media_type) {
            return Err(untrusted(&wanted.layer));
        }
        match known.ztocs(registries, wanted, config).await {
            Some(ztocs) => Ok(ztocs
                .of(&wanted.layer)
                .map_or(Trust::Own, |ztoc| Trust::Ztoc { digest: ztoc.digest.clone(), size: ztoc.size })),
            None if config.plain => Ok(Trust::Own),
            None => Err(Error::failed_precondition(format!("layer {} has no table", wanted.layer))),
        }
    }

    /// Sees to it that a layer that holds `diff_id` is one whose snapshot the image's configuration calls so.
    pub(crate) async fn vouch(
        &self,
        registries: &Registries,
        wanted: &Wanted,
        diff_id: &Digest,
        target: &SnapshotKey,
    ) -> Result<()> {
        let known = self.known(registries, wanted).await?;
        let Some(manifest) = known.manifest.get() else { return Err(untrusted(&wanted.layer)) };
        let asking = || diff_ids_of(registries, &wanted.image, &manifest.config);
        let diff_ids = known.diff_ids.get_or_try_init(asking).await?;
        let chains = chain_ids(diff_ids);
        let mut places = manifest.layers.iter().zip(diff_ids.iter().zip(&chains));
        let fits = places.any(|(layer, (held, chain))| {
            layer.digest == wanted.layer && held == diff_id && chain.as_str() == target.as_str()
        });
        if fits {
            return Ok(());
        }
        let layer = &wanted.layer;
        Err(Error::failed_precondition(format!(
            "layer {layer} holds {diff_id}, which is not what its image calls {target}"
        )))
    }

    /// The image of which a layer is wanted, with its manifest.
    async fn known(&self, registries: &Registries, wanted: &Wanted) -> Result<Arc<Known>> {
        let manifest = wanted.manifest.as_ref().ok_or_else(|| untrusted(&wanted.layer))?;
        let known = {
            let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            if all.len() >= REMEMBERED {
                all.clear();
            }
            Arc::clone(all.entry(manifest.clone()).or_default())
        };
        known.manifest.get_or_try_init(|| manifest_of(registries, &wanted.image, manifest)).await?;
        Ok(known)
    }
}

impl Known {
    /// The zTOCs of the image. One that is not to be had now is looked for again the next time.
    async fn ztocs(&self, registries: &Registries, wanted: &Wanted, config: &Config) -> Option<&Ztocs> {
        let manifest = self.manifest.get()?;
        let finding = || Ztocs::find(registries, wanted, manifest, config);
        match self.ztocs.get_or_try_init(finding).await {
            Ok(ztocs) => ztocs.as_ref(),
            Err(error) => {
                let image = &wanted.image;
                tracing::warn!(%image, error = error.chain(), "the image's SOCI index cannot be used");
                None
            }
        }
    }
}

async fn diff_ids_of(registries: &Registries, image: &ImageRef, config: &Descriptor) -> Result<Vec<Digest>> {
    let bytes = source::whole(registries, image, config, CONFIG_LIMIT).await?;
    let config: ImageConfig = serde_json::from_slice(&bytes).map_err(|error| {
        Error::invalid_argument(format!("cannot read the configuration {}", config.digest)).caused_by(error)
    })?;
    Ok(config.rootfs.diff_ids)
}

pub(crate) async fn manifest_of(
    registries: &Registries,
    image: &ImageRef,
    manifest: &Digest,
) -> Result<Manifest> {
    let repository = registries.repository(image, Access::Pull)?;
    let reference: ImageRef = format!("{}@{manifest}", image.repository()).parse()?;
    let found = repository.resolve(&reference).await?;
    match Document::parse(&found.media_type, &repository.manifest(&found).await?)? {
        Document::Manifest(manifest) => Ok(manifest),
        Document::Index(_) => {
            Err(Error::invalid_argument(format!("{reference} should be a manifest and is an index")))
        }
    }
}

impl Trust {
    /// What a manifest says of a layer's table; none if there is none.
    pub(crate) fn said(layer: &Descriptor) -> Result<Option<Self>> {
        let value = |keys: &[&str]| keys.iter().find_map(|key| layer.annotations.get(*key));
        if let Some(text) = value(&[annotation::TOC_DIGEST]) {
            return Ok(Some(Self::Document(text.parse()?)));
        }
        match (value(&annotation::ZSTD_POSITION), value(&annotation::ZSTD_CHECKSUM)) {
            (Some(position), Some(digest)) => {
                Ok(Some(Self::Compressed { digest: digest.parse()?, position: position.clone() }))
            }
            _ => Ok(None),
        }
    }
}

impl Trust {
    /// What makes a layer with one table differ from the same layer with another; a file's name too.
    pub(crate) fn name(&self, layer: &Digest) -> String {
        match self {
            Self::Document(digest) | Self::Compressed { digest, .. } | Self::Ztoc { digest, .. } => {
                format!("{}-{}", layer.hex(), digest.hex())
            }
            Self::Own => layer.hex().to_owned(),
        }
    }
}

fn untrusted(layer: &Digest) -> Error {
    Error::failed_precondition(format!("nothing says what the table of contents of layer {layer} hashes to"))
}

/// Fetches and reads the table of a layer, and keeps it at `path`.
pub(crate) async fn fetch(source: &dyn Source, layer: &Digest, trust: Trust, path: &Path) -> Result<Index> {
    let blob = source.size();
    let end = match &trust {
        Trust::Document(_) => source.read(blob.saturating_sub(END)..blob).await?,
        Trust::Compressed { .. } | Trust::Ztoc { .. } | Trust::Own => Bytes::new(),
    };
    let tail = end[end.len().saturating_sub(TAIL as usize)..].to_vec();
    let header = Header { blob, trust, tail };
    let position = header.position().map_err(|error| unfit(layer, error))?;
    let before = blob - end.len() as u64;
    let table = match position.table.start.checked_sub(before) {
        Some(start) => end.slice(start as usize..(position.table.end - before) as usize),
        None => source.read(position.table.clone()).await?,
    };
    let (layer, path) = (layer.clone(), path.to_owned());
    let read = move || {
        let index = header.read(&position, &table).map_err(|error| unfit(&layer, error))?;
        if let Err(error) = header.keep(&table, &path) {
            tracing::warn!(%layer, %error, "cannot keep the table of contents");
        }
        Ok(index)
    };
    tokio::task::spawn_blocking(read)
        .await
        .map_err(|error| Error::internal("reading a table of contents ended early").caused_by(error))?
}

/// Reads a table that an earlier call kept, if it is there and whole, and the size of the layer's blob. Blocking.
pub(crate) fn kept(path: &Path, trust: &Trust) -> Option<(Index, u64)> {
    let bytes = fs::read(path).ok()?;
    let line = bytes.iter().position(|byte| *byte == b'\n')?;
    let header: Header =
        serde_json::from_slice(&bytes[..line]).ok().filter(|header: &Header| header.trust == *trust)?;
    let index = header.read(&header.position().ok()?, &bytes[line + 1..]).ok()?;
    Some((index, header.blob))
}

fn unfit(layer: &Digest, error: StargzError) -> Error {
    let text = format!("layer {layer} cannot be used lazily");
    let refused = if matches!(error, StargzError::Digest { .. }) {
        Error::data_loss(text)
    } else {
        Error::failed_precondition(text)
    };
    refused.caused_by(error)
}

impl Header {
    fn position(&self) -> Result<Position, StargzError> {
        match &self.trust {
            Trust::Document(_) => Position::from_tail(&self.tail, self.blob),
            Trust::Compressed { position, .. } => Position::from_annotation(position, self.blob),
            Trust::Ztoc { .. } | Trust::Own => Err(StargzError::NoFooter),
        }
    }

    fn read(&self, position: &Position, table: &[u8]) -> Result<Index, StargzError> {
        match &self.trust {
            Trust::Document(digest) => Index::read(position, table, digest),
            Trust::Compressed { digest, .. } => Index::read_compressed(position, table, digest),
            Trust::Ztoc { .. } | Trust::Own => Err(StargzError::NoFooter),
        }
    }

    fn keep(&self, table: &[u8], path: &Path) -> io::Result<()> {
        let mut bytes = serde_json::to_vec(self)?;
        bytes.push(b'\n');
        bytes.extend_from_slice(table);
        let new = path.with_extension("new");
        fs::write(&new, bytes)?;
        fs::rename(&new, path)
    }
}
