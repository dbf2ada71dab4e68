//! An image with its layers compressed in another way.
//!
//! What a layer holds stays the same, byte by byte, and is looked at: the configuration, with its diff ids, is the
//! old one. Layers that are compressed as wanted already are taken as they are.

use std::collections::HashMap;
use std::io::{self, BufReader, Read, Write};

use berth_archive::{Compression, Decoder, DigestReader, Encoder, Hasher, Limits};
use berth_core::{BlobReader, Catalog, CommitRequest, ContentStore, IngestRequest, Scope};
use berth_oci::image::{Document, ImageConfig, Manifest, media};
use berth_types::{
    Algorithm, Descriptor, Digest, Error, ErrorKind, Image, ImageName, IngestRef, Labels, Result,
};
use bytes::{Bytes, BytesMut};
use tokio::sync::mpsc;

use crate::graph::{self, CONFIG_LIMIT};
use crate::hold::{Hold, unique};
use crate::image::publish;
use crate::tar::CHUNK;
use crate::{Limits as Bounds, content};

const UNCOMPRESSED: &str = "containerd.io/uncompressed";

/// Parts on their way into the thread and out of it.
const DEPTH: usize = 4;

/// Stores an image's layers in another compression and gives the result a name. Of a list, the images that are here
/// are converted, and the others left out.
pub async fn convert(
    catalog: &dyn Catalog,
    scope: &Scope,
    from: &ImageName,
    to: &ImageName,
    compression: Compression,
) -> Result<Image> {
    let source = catalog.images(scope).image(from).await?;
    let hold = Hold::begin(catalog, scope).await?;
    let converted = async {
        let store = catalog.content(hold.scope());
        let mut work = Work { store: &*store, compression, done: HashMap::new() };
        let target = work.document(&source.target).await?;
        let record = Image { labels: source.labels.clone(), ..Image::new(to.clone(), target) };
        publish(&*catalog.images(hold.scope()), record).await
    };
    let converted = converted.await;
    hold.over(converted).await
}

struct Work<'a> {
    store: &'a dyn ContentStore,
    compression: Compression,
    /// Layers that several images share are converted once.
    done: HashMap<Digest, Descriptor>,
}

impl Work<'_> {
    async fn document(&mut self, target: &Descriptor) -> Result<Descriptor> {
        let data = content::document(self.store, target, Bounds::default().document).await?;
        match Document::parse(&target.media_type, &data)? {
            Document::Manifest(manifest) => self.manifest(target, manifest).await,
            Document::Index(mut index) => {
                let mut manifests = Vec::new();
                for child in std::mem::take(&mut index.manifests) {
                    if !media::is_manifest(&child.media_type)
                        || !content::exists(self.store, &child.digest).await?
                    {
                        continue;
                    }
                    let data = content::document(self.store, &child, Bounds::default().document).await?;
                    if let Document::Manifest(manifest) = Document::parse(&child.media_type, &data)? {
                        manifests.push(self.manifest(&child, manifest).await?);
                    }
                }
                if manifests.is_empty() {
                    return Err(Error::not_found(format!("no image of the list {} is here", target.digest)));
                }
                let labels = graph::gc_labels(&manifests);
                index.manifests = manifests;
                content::write_document(self.store, "index", &target.media_type, &index, labels).await
            }
        }
    }

    async fn manifest(&mut self, target: &Descriptor, mut manifest: Manifest) -> Result<Descriptor> {
        let config = content::document(self.store, &manifest.config, CONFIG_LIMIT).await?;
        let diff_ids = serde_json::from_slice::<ImageConfig>(&config).map(|config| config.rootfs.diff_ids);
        let diff_ids = diff_ids.unwrap_or_default();
        for (number, layer) in manifest.layers.iter_mut().enumerate() {
            if media::is_layer(&layer.media_type) {
                *layer = self.layer(layer, diff_ids.get(number)).await?;
            }
        }
        let children: Vec<Descriptor> =
            std::iter::once(manifest.config.clone()).chain(manifest.layers.iter().cloned()).collect();
        let labels = graph::gc_labels(&children);
        let made =
            content::write_document(self.store, "manifest", &target.media_type, &manifest, labels).await?;
        let platform = target.platform.clone();
        Ok(Descriptor { platform, annotations: target.annotations.clone(), ..made })
    }

    async fn layer(&mut self, layer: &Descriptor, diff_id: Option<&Digest>) -> Result<Descriptor> {
        if let Some(done) = self.done.get(&layer.digest) {
            return Ok(done.clone());
        }
        let reader = self.store.reader(&layer.digest).await?;
        let start = reader.read_at(0, Compression::MAGIC_LENGTH).await?;
        let converted = if Compression::detect(&start) == self.compression {
            layer.clone()
        } else {
            let named = |error: Error| error.context(format!("cannot convert layer {}", layer.digest));
            self.recompress(&*reader, diff_id).await.map_err(named).map(|(digest, size)| {
                let kind = media_type(&layer.media_type, self.compression);
                let made = Descriptor::new(kind, digest, size);
                Descriptor { annotations: layer.annotations.clone(), ..made }
            })?
        };
        self.done.insert(layer.digest.clone(), converted.clone());
        Ok(converted)
    }

    /// Reads, converts and writes at the same time, with a few parts in memory.
    async fn recompress(&self, reader: &dyn BlobReader, diff_id: Option<&Digest>) -> Result<(Digest, u64)> {
        let (input, parts) = mpsc::channel(DEPTH);
        let (made, mut output) = mpsc::channel(DEPTH);
        let compression = self.compression;
        let thread = tokio::task::spawn_blocking(move || through(Source::new(parts), made, compression));
        let feeding = async move {
            let mut offset = 0;
            while offset < reader.size() {
                let part = reader.read_at(offset, CHUNK).await?;
                if part.is_empty() {
                    return Err(Error::data_loss(format!("the blob ended at byte {offset}")));
                }
                offset += part.len() as u64;
                // A thread that wants no more has an error of its own.
                if input.send(part).await.is_err() {
                    break;
                }
            }
            Ok(())
        };
        let reference: IngestRef = unique("convert").parse()?;
        let storing = async {
            let mut ingest = self.store.writer(IngestRequest::new(reference.clone())).await?;
            let (mut offset, mut hasher) = (0, Hasher::default());
            while let Some(part) = output.recv().await {
                let part: Bytes = part;
                hasher.update(&part);
                let length = part.len() as u64;
                ingest.write(offset, part).await?;
                offset += length;
            }
            Result::Ok((ingest, offset, hasher.finish()))
        };
        let (fed, stored) = futures::join!(feeding, storing);
        let plain = thread.await.map_err(|error| Error::internal("a thread ended early").caused_by(error))?;
        let stored = async {
            fed?;
            let (mut ingest, size, digest) = stored?;
            let plain =
                plain.map_err(|source| Error::invalid_argument("it cannot be decoded").caused_by(source))?;
            if let Some(diff_id) = diff_id.filter(|diff_id| **diff_id != plain) {
                return Err(Error::failed_precondition(format!(
                    "it holds {plain} and not {diff_id} as its image says"
                )));
            }
            let labels = Labels::from([(UNCOMPRESSED.to_owned(), plain.to_string())]);
            let expected = Some(digest.clone());
            let commit = CommitRequest { size: Some(size), expected, labels };
            content::commit(self.store, &mut *ingest, commit).await?;
            Ok((digest, size))
        };
        let stored = stored.await;
        if stored.is_err() {
            match self.store.abort(&reference).await {
                Err(error) if error.kind() != ErrorKind::NotFound => return stored.map_err(|_| error),
                _ => {}
            }
        }
        stored
    }
}

/// The same kind of layer in another compression.
fn media_type(kind: &str, compression: Compression) -> &'static str {
    let docker = kind.starts_with("application/vnd.docker.");
    match (docker, compression) {
        (false, Compression::Plain) => media::OCI_LAYER,
        (false, Compression::Gzip) => media::OCI_LAYER_GZIP,
        (false, Compression::Zstd) => media::OCI_LAYER_ZSTD,
        (true, Compression::Plain) => media::DOCKER_LAYER,
        (true, Compression::Gzip) => media::DOCKER_LAYER_GZIP,
        (true, Compression::Zstd) => media::DOCKER_LAYER_ZSTD,
    }
}

/// Decodes and encodes; answers the digest of what is in between. Blocks.
fn through(source: Source, made: mpsc::Sender<Bytes>, compression: Compression) -> io::Result<Digest> {
    let decoder = Decoder::new(BufReader::with_capacity(CHUNK, source), Limits::default())?;
    let mut plain = DigestReader::new(decoder, Algorithm::Sha256);
    let mut encoder = Encoder::new(Sink { made, buffer: BytesMut::new() }, compression)?;
    io::copy(&mut plain, &mut encoder)?;
    encoder.finish()?.flush()?;
    Ok(plain.finish().0)
}

/// Parts as a stream.
struct Source {
    parts: mpsc::Receiver<Bytes>,
    part: Bytes,
}

impl Source {
    fn new(parts: mpsc::Receiver<Bytes>) -> Self {
        Self { parts, part: Bytes::new() }
    }
}

impl Read for Source {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.part.is_empty() {
            self.part = self.parts.blocking_recv().unwrap_or_default();
        }
        let length = self.part.len().min(buffer.len());
        buffer[..length].copy_from_slice(&self.part.split_to(length));
        Ok(length)
    }
}

/// A stream as parts.
struct Sink {
    made: mpsc::Sender<Bytes>,
    buffer: BytesMut,
}

impl Sink {
    fn send(&mut self) -> io::Result<()> {
        if self.buffer.is_empty() {
            return Ok(());
        }
        let part = self.buffer.split().freeze();
        self.made.blocking_send(part).map_err(|_| io::ErrorKind::BrokenPipe.into())
    }
}

impl Write for Sink {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.buffer.extend_from_slice(bytes);
        if self.buffer.len() >= CHUNK / 2 {
            self.send()?;
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.send()
    }
}
