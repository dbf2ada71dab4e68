//! A layer made anew: in another compression, the same tar byte by byte, or with a table of contents.

use std::fs::File;
use std::io::{self, BufReader, Read, Write};
use std::path::PathBuf;

use berth_archive::{Compression, Decoder, DigestReader, Encoder, Hasher, Limits};
use berth_core::{BlobReader, CommitRequest, ContentStore, Ingest, IngestRequest};
use berth_stargz::Making;
use berth_types::{Algorithm, Digest, Error, ErrorKind, IngestRef, Labels, Result};
use bytes::{Bytes, BytesMut};
use tokio::sync::mpsc;

use crate::content::{self, UNCOMPRESSED};
use crate::tar::CHUNK;

/// Parts on their way into a thread and out of it.
pub(crate) const DEPTH: usize = 4;

/// What became of a layer.
pub(crate) struct Remade<T> {
    /// Of the new blob.
    pub(crate) digest: Digest,
    /// Of the new blob.
    pub(crate) size: u64,
    /// Of the tar in it.
    pub(crate) diff_id: Digest,
    /// What else there is to say.
    pub(crate) more: T,
}

/// What a thread made: the digests of the tar that came in and of the one that went out, and what else there is to say.
pub(crate) struct Through<T> {
    pub(crate) before: Digest,
    pub(crate) after: Digest,
    pub(crate) more: T,
}

/// Stores a layer in another compression, through an ingest that nobody else has. One that does not hold `diff_id` is
/// refused.
pub(crate) async fn recompress(
    store: &dyn ContentStore,
    layer: &dyn BlobReader,
    diff_id: Option<&Digest>,
    compression: Compression,
    reference: &IngestRef,
) -> Result<Remade<()>> {
    remake(store, layer, diff_id, reference, move |source, sink| through(source, sink, compression)).await
}

/// Stores a layer with a table of contents, in the same way.
pub(crate) async fn with_table(
    store: &dyn ContentStore,
    layer: &dyn BlobReader,
    diff_id: Option<&Digest>,
    making: Making,
    reference: &IngestRef,
) -> Result<Remade<berth_stargz::Made>> {
    let expected = diff_id.cloned();
    remake(store, layer, diff_id, reference, move |source, sink| tabled(source, sink, &making, expected))
        .await
}

/// A layer is read, converted and written at the same time, with a few parts in memory.
pub(crate) async fn remake<T: Send + 'static>(
    store: &dyn ContentStore,
    layer: &dyn BlobReader,
    diff_id: Option<&Digest>,
    reference: &IngestRef,
    work: impl FnOnce(Source, Sink) -> io::Result<Through<T>> + Send + 'static,
) -> Result<Remade<T>> {
    let (input, parts) = mpsc::channel(DEPTH);
    let (made, output) = mpsc::channel(DEPTH);
    let sink = Sink { made, buffer: BytesMut::new() };
    let thread = tokio::task::spawn_blocking(move || work(Source::new(parts), sink));
    // Each side has its end of a channel: when one fails, the others come to their end too.
    let (fed, stored, through) = futures::join!(feed(layer, input), take(store, reference, output), thread);
    let stored = async {
        fed?;
        let (mut ingest, size, digest) = stored?;
        let through = through.map_err(|error| Error::internal("a thread ended early").caused_by(error))?;
        let Through { before, after, more } =
            through.map_err(|source| Error::invalid_argument("it cannot be converted").caused_by(source))?;
        if let Some(diff_id) = diff_id.filter(|diff_id| **diff_id != before) {
            return Err(Error::failed_precondition(format!(
                "it holds {before} and not {diff_id} as its image says"
            )));
        }
        let labels = Labels::from([(UNCOMPRESSED.to_owned(), after.to_string())]);
        let commit = CommitRequest { size: Some(size), expected: Some(digest.clone()), labels };
        content::commit(store, &mut *ingest, commit).await?;
        Ok(Remade { digest, size, diff_id: after, more })
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

/// Gives the bytes of a layer to a thread.
pub(crate) async fn feed(layer: &dyn BlobReader, input: mpsc::Sender<Bytes>) -> Result<()> {
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

/// Decodes and encodes. Blocks.
fn through(source: Source, sink: Sink, compression: Compression) -> io::Result<Through<()>> {
    let decoder = Decoder::new(BufReader::with_capacity(CHUNK, source), Limits::default())?;
    let mut plain = DigestReader::new(decoder, Algorithm::Sha256);
    let mut encoder = Encoder::new(sink, compression)?;
    io::copy(&mut plain, &mut encoder)?;
    encoder.finish()?.flush()?;
    let (plain, _) = plain.finish();
    Ok(Through { before: plain.clone(), after: plain, more: () })
}

/// Decodes into a file that has no name, for its entries come in another order, and makes the layer of that. Blocks.
fn tabled(
    source: Source,
    sink: Sink,
    making: &Making,
    expected: Option<Digest>,
) -> io::Result<Through<berth_stargz::Made>> {
    let decoder = Decoder::new(BufReader::with_capacity(CHUNK, source), Limits::default())?;
    let mut plain = DigestReader::new(decoder, Algorithm::Sha256);
    let mut file = unnamed()?;
    io::copy(&mut plain, &mut file)?;
    let (before, _) = plain.finish();
    if let Some(expected) = expected.filter(|expected| *expected != before) {
        let text = format!("it holds {before} and not {expected} as its image says");
        return Err(io::Error::new(io::ErrorKind::InvalidData, text));
    }
    let (mut sink, made) = berth_stargz::make(file, sink, making).map_err(io::Error::other)?;
    sink.flush()?;
    Ok(Through { before, after: made.diff_id.clone(), more: made })
}

/// A file for a whole layer, which goes with its last user: in `TMPDIR`, else in `/var/tmp`, which is not memory.
pub(crate) fn unnamed() -> io::Result<File> {
    let folder = std::env::var_os("TMPDIR").map_or_else(|| PathBuf::from("/var/tmp"), PathBuf::from);
    tempfile::tempfile_in(&folder).map_err(|error| {
        io::Error::new(error.kind(), format!("cannot make a file in {}: {error}", folder.display()))
    })
}

/// Parts as a stream.
pub(crate) struct Source {
    parts: mpsc::Receiver<Bytes>,
    part: Bytes,
}

impl Source {
    pub(crate) fn new(parts: mpsc::Receiver<Bytes>) -> Self {
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
pub(crate) struct Sink {
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
            let error = done.map(|_| ()).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::ResourceExhausted, "{compression:?}");
        }
        let making = Making::new(berth_stargz::Format::Gzip);
        let done = with_table(&Full, &layer, None, making, &reference).await;
        assert_eq!(done.map(|_| ()).unwrap_err().kind(), ErrorKind::ResourceExhausted);
    }
}
