//! The differ.

use std::sync::Arc;

use async_trait::async_trait;
use berth_archive::Finished;
use berth_core::{ApplyRequest, BlobReader, CompareRequest, ContentStore, Differ};
use berth_oci::image::media;
use berth_types::{Descriptor, Error, ErrorKind, IngestRef, Mount, Result};
use tokio::runtime::Handle;

use crate::apply::image::{self, ImageForm, Place};
use crate::apply::{self, Layer};
use crate::compare;
use crate::mounted;
use crate::processor::{self, Processor};
use crate::recipe::{self, Wish};
use crate::source::{Source, Wanted};

/// The capability of a daemon's differ: it applies layers as they come.
pub const ARRIVING: &str = "berth.arriving";

/// The differ that walks trees. It keeps nothing between two calls.
#[derive(Clone)]
pub struct Walking {
    content: Arc<dyn ContentStore>,
    processors: Arc<[Processor]>,
    images: ImageForm,
}

impl Walking {
    /// A differ over the blobs of `content`, which also gets the layers that it makes.
    pub fn new(content: Arc<dyn ContentStore>) -> Self {
        Self { content, processors: Arc::new([]), images: ImageForm::default() }
    }

    /// The same with programs for layers that cannot be unpacked as they are.
    #[must_use]
    pub fn with_processors(self, processors: Arc<[Processor]>) -> Self {
        Self { processors, ..self }
    }

    /// The same with another form of the images that layers become in erofs snapshots.
    #[must_use]
    pub fn with_images(self, images: ImageForm) -> Self {
        Self { images, ..self }
    }
}

#[async_trait]
impl Differ for Walking {
    async fn apply(&self, request: ApplyRequest) -> Result<Descriptor> {
        let chain = processor::chain(&self.processors, &request.layer.media_type)?;
        let blob = self.open(&request.layer, request.arriving.as_ref()).await?;
        if !chain.is_empty() {
            // A program that gets nothing for a while is taken to hang.
            blob.reach(u64::MAX).await?;
        }
        let (wants, wanted) = Wanted::channel();
        let source = Source::new(blob, Handle::current(), wanted.clone());
        let processors = Arc::clone(&self.processors);
        let native = image::native(&request.layer.media_type).map(str::to_owned);
        let plain = native.clone().unwrap_or_else(|| media::OCI_LAYER.to_owned());
        let images = self.images;
        let work = move || {
            let name = request.layer.digest.to_string();
            let chain = processor::chain(&processors, &request.layer.media_type)?;
            let source = processor::through(source, &chain, &request.payloads)?;
            let layer = Layer { name: &name, source, wanted: &wanted, sync: request.sync };
            apply_to(layer, &request.mounts, native.is_some(), images)
        };
        let finished = blocking(work).await?;
        drop(wants);
        Ok(Descriptor::new(plain, finished.digest, finished.size))
    }

    async fn compare(&self, request: CompareRequest) -> Result<Descriptor> {
        match Wish::of(&request)? {
            Some(wish) => recipe::grant(&*self.content, request, wish).await,
            None => compare::compare(&*self.content, request).await,
        }
    }
}

impl Walking {
    /// The layer's blob, or the ingest by which it comes.
    async fn open(&self, layer: &Descriptor, arriving: Option<&IngestRef>) -> Result<Arc<dyn BlobReader>> {
        let (missing, reference) = match (self.content.reader(&layer.digest).await, arriving) {
            (Err(error), Some(reference)) if error.kind() == ErrorKind::NotFound => (error, reference),
            (found, _) => return found,
        };
        match self.content.follow(reference).await {
            Ok(blob) => Ok(blob),
            // It may have been committed between the two looks.
            Err(error) if error.kind() == ErrorKind::NotFound => {
                self.content.reader(&layer.digest).await.map_err(|_| missing)
            }
            Err(error) => Err(error),
        }
    }
}

/// Puts a layer where the mounts say: into the folder or overlay that they are, or as the image of an erofs snapshot.
fn apply_to(layer: Layer<'_>, mounts: &[Mount], is_image: bool, images: ImageForm) -> Result<Finished> {
    match Place::of(mounts)? {
        Some(place) if is_image => image::apply_native(layer, &place),
        Some(place) => image::apply(layer, &place, images),
        None if is_image => Err(Error::not_implemented(format!(
            "layer {} is an EROFS image, which only the erofs snapshotter can take: --snapshotter erofs",
            layer.name
        ))),
        None => mounted::for_writing(mounts, |root, whiteouts| apply::apply(layer, root, whiteouts)),
    }
}

/// Runs work that blocks where it may.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(|error| Error::internal("work on a layer ended early").caused_by(error))?
}

/// Refuses what is not a layer that can be unpacked as it is. How it is compressed is told by its first
/// bytes, because many layers are labelled wrongly.
pub(crate) fn check_layer(media_type: &str) -> Result<()> {
    let (base, suffix) = media_type.split_once('+').unwrap_or((media_type, ""));
    let known = match base {
        media::OCI_LAYER | "application/vnd.oci.image.layer.nondistributable.v1.tar" => {
            matches!(suffix, "" | "gzip" | "zstd")
        }
        media::DOCKER_LAYER
        | media::DOCKER_LAYER_GZIP
        | media::DOCKER_LAYER_ZSTD
        | "application/vnd.docker.image.rootfs.foreign.diff.tar"
        | "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip" => suffix.is_empty(),
        _ => false,
    };
    if known || image::native(media_type).is_some() {
        return Ok(());
    }
    Err(Error::not_implemented(format!("{media_type:?} is not a layer that can be unpacked")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layers_of_oci_and_docker_are_known_and_others_not_implemented() {
        for known in
            [media::OCI_LAYER, media::OCI_LAYER_GZIP, media::OCI_LAYER_ZSTD, media::DOCKER_LAYER_GZIP]
        {
            check_layer(known).unwrap();
        }
        let encrypted = format!("{}+encrypted", media::OCI_LAYER_GZIP);
        for unknown in ["", "application/json", media::OCI_CONFIG, &encrypted] {
            assert_eq!(check_layer(unknown).unwrap_err().kind(), berth_types::ErrorKind::NotImplemented);
        }
    }
}
