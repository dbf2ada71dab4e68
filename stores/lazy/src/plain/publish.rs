//! Indexes of an image's layers are put beside the image, for other nodes.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use berth_archive::Hasher;
use berth_oci::image::{Document, Manifest, PlatformMatch, media};
use berth_registry::{Access, BlobSource, Registries, Repository};
use berth_stargz::Index;
use berth_types::{Descriptor, Digest, Error, ImageRef, Result};
use bytes::Bytes;
use futures::future::BoxFuture;

use super::artifact;
use crate::index::Trust;
use crate::reads;
use crate::source::RegistrySource;

/// What is to be published.
#[derive(Clone)]
pub struct Publication<'p> {
    /// The registries, with the right to push.
    pub registries: &'p Registries,
    /// The image, which is in its registry.
    pub image: &'p ImageRef,
    /// Which image of a list.
    pub platform: &'p PlatformMatch,
    /// Where a `berth-lazyd` of this machine has its indexes, which need not be made again, and what it has learnt.
    pub root: &'p Path,
}

/// What became of a layer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The index that `berth-lazyd` has made.
    Found,
    /// Fetched from the registry for it.
    Made,
    /// It has a table, and needs no index.
    HasTable,
    /// It gets none.
    Unfit(String),
}

/// What was published.
#[derive(Clone, Debug)]
pub struct Publicized {
    /// The artifact's manifest.
    pub digest: Digest,
    /// Bytes of all indexes.
    pub size: u64,
    /// Every layer, lowest first, what became of it, and whether what is read first is known.
    pub layers: Vec<(Digest, Outcome, bool)>,
}

impl Publication<'_> {
    /// Puts the indexes beside the image. NotFound where no layer has one.
    pub async fn run(&self) -> Result<Publicized> {
        let repository = self.registries.repository(self.image, Access::Push)?;
        let (subject, manifest) = self.manifest(&repository).await?;
        let (mut blobs, mut layers, mut size) = (Vec::new(), Vec::new(), 0);
        for layer in &manifest.layers {
            let (outcome, file) = self.index(layer).await?;
            let mut knows = false;
            if let Some(file) = file {
                size += file.len() as u64;
                blobs.push(put(&repository, artifact::INDEX, &layer.digest, file).await?);
                let learnt = reads::file(&reads::folder(self.root), self.image, &layer.digest);
                if let Some(learnt) = reads::shared(&learnt) {
                    knows = true;
                    blobs.push(put(&repository, artifact::READS, &layer.digest, learnt).await?);
                }
            }
            layers.push((layer.digest.clone(), outcome, knows));
        }
        if blobs.is_empty() {
            let text = format!("no layer of {} is one to publish an index of", self.image);
            return Err(Error::not_found(text));
        }
        push(&repository, &artifact::empty(), artifact::EMPTY.to_vec()).await?;
        let document = serde_json::to_vec(&artifact::manifest(&subject, blobs))
            .map_err(|error| Error::internal("cannot write the artifact's manifest").caused_by(error))?;
        let digest = Hasher::digest(&document);
        let mut listed = Descriptor::new(media::OCI_MANIFEST, digest.clone(), document.len() as u64);
        listed.artifact_type = Some(artifact::KIND.to_owned());
        repository.push_referrer(&subject.digest, &listed, document.into()).await?;
        Ok(Publicized { digest, size, layers })
    }

    /// The manifest of the platform's image.
    async fn manifest(&self, repository: &Repository) -> Result<(Descriptor, Manifest)> {
        let mut target = repository.resolve(self.image).await?;
        // A list of lists is as much as there is.
        for _ in 0..3 {
            match Document::parse(&target.media_type, &repository.manifest(&target).await?)? {
                Document::Manifest(manifest) => return Ok((target, manifest)),
                Document::Index(index) => {
                    let best = self.platform.best(&index.manifests);
                    target = best.cloned().ok_or_else(|| {
                        Error::not_found(format!("{} has no image for this platform", self.image))
                    })?;
                }
            }
        }
        Err(Error::invalid_argument(format!("{} is a list of lists of lists", self.image)))
    }

    /// The index of a layer, where it gets one.
    async fn index(&self, layer: &Descriptor) -> Result<(Outcome, Option<Vec<u8>>)> {
        if Trust::said(layer)?.is_some() {
            return Ok((Outcome::HasTable, None));
        }
        if !media::is_layer(&layer.media_type) {
            return Ok((Outcome::Unfit(format!("it is of the type {}", layer.media_type)), None));
        }
        let path = self.root.join("indexes").join(Trust::Own.name(&layer.digest));
        if let Some(file) = read(path, &layer.digest).await {
            return Ok((Outcome::Found, Some(file)));
        }
        let source = RegistrySource::known(self.registries, self.image, &layer.digest, layer.size)?;
        match super::recorded((&source, None), &layer.digest, |_, _| Ok(())).await {
            Ok(recorded) => Ok((Outcome::Made, Some(recorded.file))),
            Err(refused) if refused.for_good => Ok((Outcome::Unfit(refused.error.chain()), None)),
            Err(refused) => Err(refused.error),
        }
    }
}

/// The bytes of an index that is whole.
async fn read(path: PathBuf, layer: &Digest) -> Option<Vec<u8>> {
    let layer = layer.clone();
    let reading = tokio::task::spawn_blocking(move || {
        let file = std::fs::read(path).ok()?;
        Index::read(&file, &layer).is_ok().then_some(file)
    });
    reading.await.ok().flatten()
}

async fn put(repository: &Repository, kind: &str, layer: &Digest, bytes: Vec<u8>) -> Result<Descriptor> {
    let blob = artifact::blob(kind, layer, &bytes);
    push(repository, &blob, bytes).await?;
    Ok(blob)
}

async fn push(repository: &Repository, blob: &Descriptor, bytes: Vec<u8>) -> Result<()> {
    repository.push_blob(blob, Arc::new(Held(bytes.into())), None).await.map(drop)
}

/// Bytes in memory, to be uploaded.
struct Held(Bytes);

impl BlobSource for Held {
    fn read_at(&self, offset: u64, length: usize) -> BoxFuture<'_, Result<Bytes>> {
        let start = (offset as usize).min(self.0.len());
        let end = start.saturating_add(length).min(self.0.len());
        Box::pin(std::future::ready(Ok(self.0.slice(start..end))))
    }
}
