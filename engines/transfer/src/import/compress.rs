//! Layers that an archive has uncompressed, compressed on their way in.

use std::io::{self, Write};

use berth_archive::{Compression, Encoder, Hasher};
use berth_core::{CommitRequest, ContentStore, IngestRequest};
use berth_types::{Digest, Error, Labels, Result};
use bytes::Bytes;
use tokio::sync::mpsc;

use super::files::File;
use crate::content::{self, Opened};
use crate::tar::CHUNK;

/// The digest of what is behind a compressed layer.
const UNCOMPRESSED: &str = "containerd.io/uncompressed";

/// Chunks that may be on their way.
const DEPTH: usize = 4;

/// Stores a gzip of a layer that is in content.
pub(super) async fn compressed(store: &dyn ContentStore, plain: &File) -> Result<File> {
    let (plain_chunks, to_encode) = mpsc::channel(DEPTH);
    let (encoded, chunks) = mpsc::channel(DEPTH);
    let encoding = tokio::task::spawn_blocking(move || encode(to_encode, encoded));
    let (fed, encoding, stored) =
        tokio::join!(feed(store, &plain.digest, plain_chunks), encoding, take(store, &plain.digest, chunks));
    fed?;
    encoding
        .map_err(|error| Error::internal("the compression failed inside").caused_by(error))?
        .map_err(|source| Error::io(format!("cannot compress layer {}", plain.digest), source))?;
    let (digest, size) = stored?;
    Ok(File { digest, size, start: plain.start.clone() })
}

async fn feed(store: &dyn ContentStore, digest: &Digest, chunks: mpsc::Sender<Bytes>) -> Result<()> {
    let reader = store.reader(digest).await?;
    let mut offset = 0;
    while offset < reader.size() {
        let data = reader.read_at(offset, CHUNK).await?;
        if data.is_empty() {
            return Err(Error::data_loss(format!("blob {digest} ends after {offset} bytes")));
        }
        offset += data.len() as u64;
        if chunks.send(data).await.is_err() {
            break;
        }
    }
    Ok(())
}

/// Where the encoder's thread writes.
struct Chunks(mpsc::Sender<Bytes>);

impl Write for Chunks {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        let gone = |_| io::Error::from(io::ErrorKind::BrokenPipe);
        self.0.blocking_send(Bytes::copy_from_slice(data)).map_err(gone)?;
        Ok(data.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn encode(mut plain: mpsc::Receiver<Bytes>, encoded: mpsc::Sender<Bytes>) -> io::Result<()> {
    let output = io::BufWriter::with_capacity(CHUNK, Chunks(encoded));
    let mut encoder = Encoder::new(output, Compression::Gzip)?;
    while let Some(data) = plain.blocking_recv() {
        encoder.write_all(&data)?;
    }
    encoder.finish()?.flush()
}

async fn take(
    store: &dyn ContentStore,
    plain: &Digest,
    mut chunks: mpsc::Receiver<Bytes>,
) -> Result<(Digest, u64)> {
    let reference = format!("compress-blob-{}-{}", plain.algorithm().name(), plain.hex()).parse()?;
    let request = IngestRequest::new(reference);
    let mut ingest = match content::open(store, request).await? {
        Opened::Writing(ingest, _) => ingest,
        Opened::Exists => return Err(Error::internal("content exists without an address")),
    };
    // Half of a gzip is no beginning of another one.
    ingest.truncate(0).await?;
    let (mut hasher, mut size) = (Hasher::default(), 0);
    while let Some(data) = chunks.recv().await {
        hasher.update(&data);
        let length = data.len() as u64;
        ingest.write(size, data).await?;
        size += length;
    }
    let digest = hasher.finish();
    let labels = Labels::from([(UNCOMPRESSED.to_owned(), plain.to_string())]);
    let commit = CommitRequest { size: Some(size), expected: Some(digest.clone()), labels };
    content::commit(store, &mut *ingest, commit).await?;
    Ok((digest, size))
}
