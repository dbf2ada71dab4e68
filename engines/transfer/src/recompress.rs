//! A layer in another compression: the same tar, byte by byte.

use std::io::{self, BufReader, Read, Write};

use berth_archive::{Compression, Decoder, DigestReader, Encoder, Hasher, Limits};
use berth_core::{BlobReader, CommitRequest, ContentStore, Ingest, IngestRequest};
use berth_types::{Algorithm, Digest, Error, ErrorKind, IngestRef, Labels, Result};
use bytes::{Bytes, BytesMut};
use tokio::sync::mpsc;

use crate::content::{self, UNCOMPRESSED};
use crate::tar::CHUNK;

/// Parts on their way into the thread and out of it.
const DEPTH: usize = 4;

/// Stores a layer in another compression, through an ingest that nobody else has; answers its digest and size. It is
/// read, converted and written at the same time, with a few parts in memory. One that does not hold `diff_id` is
/// refused.
pub(crate) async fn recompress(
    store: &dyn ContentStore,
    layer: &dyn BlobReader,
    diff_id: Option<&Digest>,
    compression: Compression,
    reference: &IngestRef,
) -> Result<(Digest, u64)> {
    let (input, parts) = mpsc::channel(DEPTH);
    let (made, output) = mpsc::channel(DEPTH);
    let thread = tokio::task::spawn_blocking(move || through(Source::new(parts), made, compression));
    // Each side has its end of a channel: when one fails, the others come to their end too.
    let (fed, stored, plain) = futures::join!(feed(layer, input), take(store, reference, output), thread);
    let stored = async {
        fed?;
        let (mut ingest, size, digest) = stored?;
        let plain = plain.map_err(|error| Error::internal("a thread ended early").caused_by(error))?;
        let plain =
            plain.map_err(|source| Error::invalid_argument("it cannot be decoded").caused_by(source))?;
        if let Some(diff_id) = diff_id.filter(|diff_id| **diff_id != plain) {
            return Err(Error::failed_precondition(format!(
                "it holds {plain} and not {diff_id} as its image says"
            )));
        }
        let labels = Labels::from([(UNCOMPRESSED.to_owned(), plain.to_string())]);
        let commit = CommitRequest { size: Some(size), expected: Some(digest.clone()), labels };
        content::commit(store, &mut *ingest, commit).await?;
        Ok((digest, size))
    };
    let stored = stored.await;
    if stored.is_err() {
        match store.abort(reference).await {
            Err(error) if error.kind() != ErrorKind::NotFound => return stored.map_err(|_| error),
            _ => {}
        }
    }
    stored
}

async fn feed(layer: &dyn BlobReader, input: mpsc::Sender<Bytes>) -> Result<()> {
    let mut offset = 0;
    while offset < layer.size() {
        let part = layer.read_at(offset, CHUNK).await?;
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
}

async fn take(
    store: &dyn ContentStore,
    reference: &IngestRef,
    mut output: mpsc::Receiver<Bytes>,
) -> Result<(Box<dyn Ingest>, u64, Digest)> {
    let mut ingest = store.writer(IngestRequest::new(reference.clone())).await?;
    let (mut offset, mut hasher) = (0, Hasher::default());
    while let Some(part) = output.recv().await {
        hasher.update(&part);
        let length = part.len() as u64;
        ingest.write(offset, part).await?;
        offset += length;
    }
    Ok((ingest, offset, hasher.finish()))
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

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use async_trait::async_trait;
    use berth_types::filter::Filters;
    use berth_types::{BlobInfo, FieldMask, IngestStatus};

    use super::*;

    /// A layer of zeros.
    struct Zeros(u64);

    #[async_trait]
    impl BlobReader for Zeros {
        fn size(&self) -> u64 {
            self.0
        }

        async fn read_at(&self, offset: u64, length: usize) -> Result<Bytes> {
            Ok(vec![0; length.min((self.0 - offset) as usize)].into())
        }
    }

    /// A store on a full disk.
    struct Full;

    fn full<T>() -> Result<T> {
        Err(Error::resource_exhausted("the disk is full"))
    }

    #[async_trait]
    impl ContentStore for Full {
        async fn info(&self, _: &Digest) -> Result<BlobInfo> {
            full()
        }

        async fn update(&self, _: &Digest, _: Labels, _: &FieldMask) -> Result<BlobInfo> {
            full()
        }

        async fn list(&self, _: &Filters) -> Result<Vec<BlobInfo>> {
            full()
        }

        async fn delete(&self, _: &Digest) -> Result<()> {
            full()
        }

        async fn reader(&self, _: &Digest) -> Result<Arc<dyn BlobReader>> {
            full()
        }

        async fn ingest(&self, _: &IngestRef) -> Result<IngestStatus> {
            full()
        }

        async fn ingests(&self, _: &Filters) -> Result<Vec<IngestStatus>> {
            full()
        }

        async fn abort(&self, reference: &IngestRef) -> Result<()> {
            Err(Error::not_found(reference.to_string()))
        }

        async fn writer(&self, _: IngestRequest) -> Result<Box<dyn Ingest>> {
            full()
        }
    }

    #[tokio::test]
    async fn a_store_that_takes_nothing_ends_it_with_its_own_error() {
        // More than what may be on its way.
        let layer = Zeros(64 * CHUNK as u64);
        let reference = "r".parse().unwrap();
        for compression in [Compression::Plain, Compression::Gzip] {
            let done = recompress(&Full, &layer, None, compression, &reference).await;
            assert_eq!(done.unwrap_err().kind(), ErrorKind::ResourceExhausted, "{compression:?}");
        }
    }
}
