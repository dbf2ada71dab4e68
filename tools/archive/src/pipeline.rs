//! Decompressing, hashing and using a stream at the same time.
//!
//! ```text
//!   source ──▶ [decoder thread] ──▶ chunk ─┬─▶ [hasher thread] ──▶ digest of the plain bytes
//!                                          └─▶ Chunks (BufRead), read by the caller
//! ```
//! Chunks are shared, not copied, and their buffers go round in a pool, so that the memory in use is
//! [`DEPTH`] chunks whatever the stream's length.

use std::io::{self, BufRead, Read};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};
use std::thread::{Builder, JoinHandle};

use berth_types::Digest;

use crate::{Compression, Decoder, Hasher, Limits};

/// Bytes of one chunk.
const CHUNK: usize = 256 * 1024;

/// Chunks on their way to each of the two consumers.
const DEPTH: usize = 8;

/// Why a stream could not be taken apart.
#[derive(Debug, thiserror::Error)]
pub enum PipelineError {
    /// The system gives no more threads.
    #[error("cannot start a decoding thread")]
    Spawn(#[source] io::Error),
    /// The source failed or its compression is damaged.
    #[error("cannot decode the stream")]
    Decode(#[source] io::Error),
    /// A thread ended without an answer.
    #[error("decoding thread is gone")]
    Lost,
}

/// What a stream turned out to be, once it was read to its end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finished {
    /// Its compression.
    pub compression: Compression,
    /// Bytes as they came.
    pub compressed_size: u64,
    /// The digest of the plain bytes: a layer's diff id.
    pub digest: Digest,
    /// How many plain bytes.
    pub size: u64,
}

struct Chunk {
    bytes: Vec<u8>,
    pool: Sender<Vec<u8>>,
}

impl Drop for Chunk {
    fn drop(&mut self) {
        // Nobody collects at the end of the stream; then the buffer is simply freed.
        drop(self.pool.send(std::mem::take(&mut self.bytes)));
    }
}

/// The two threads behind a [`Chunks`].
#[derive(Debug)]
pub struct Pipeline {
    decoder: JoinHandle<io::Result<(Compression, u64)>>,
    hasher: JoinHandle<(Digest, u64)>,
}

impl Pipeline {
    /// Starts to decode `source`. Read the answered chunks to their end, then [`Pipeline::finish`];
    /// dropping them stops the threads.
    pub fn start(
        source: impl BufRead + Send + 'static,
        limits: Limits,
    ) -> Result<(Self, Chunks), PipelineError> {
        let (to_user, from_decoder) = sync_channel(DEPTH);
        let (to_hasher, hashed) = sync_channel::<Arc<Chunk>>(DEPTH);
        let decoder = Builder::new()
            .name("layer-decode".into())
            .spawn(move || decode(source, limits, &to_user, &to_hasher))
            .map_err(PipelineError::Spawn)?;
        let hasher = Builder::new()
            .name("layer-hash".into())
            .spawn(move || hash(&hashed))
            .map_err(PipelineError::Spawn)?;
        Ok((Self { decoder, hasher }, Chunks { source: from_decoder, current: None, position: 0 }))
    }

    /// Waits for both threads. Meant for after the chunks were read to the end.
    pub fn finish(self) -> Result<Finished, PipelineError> {
        let decoded = self.decoder.join().map_err(|_| PipelineError::Lost)?;
        let (digest, size) = self.hasher.join().map_err(|_| PipelineError::Lost)?;
        let (compression, compressed_size) = decoded.map_err(PipelineError::Decode)?;
        Ok(Finished { compression, compressed_size, digest, size })
    }
}

fn decode(
    source: impl BufRead,
    limits: Limits,
    to_user: &SyncSender<io::Result<Arc<Chunk>>>,
    to_hasher: &SyncSender<Arc<Chunk>>,
) -> io::Result<(Compression, u64)> {
    let (pool, free) = channel();
    let result = Decoder::new(source, limits).and_then(|mut decoder| {
        loop {
            let mut bytes = free.try_recv().unwrap_or_else(|_| Vec::with_capacity(CHUNK));
            fill(&mut decoder, &mut bytes)?;
            if bytes.is_empty() {
                return Ok((decoder.compression(), decoder.input()));
            }
            let chunk = Arc::new(Chunk { bytes, pool: pool.clone() });
            // A receiver that is gone has failed by itself: nobody wants the rest.
            let gone = |_| io::Error::new(io::ErrorKind::BrokenPipe, "reader of the stream is gone");
            to_user.send(Ok(Arc::clone(&chunk))).map_err(gone)?;
            to_hasher.send(chunk).map_err(|_| io::Error::from(io::ErrorKind::BrokenPipe))?;
        }
    });
    if let Err(error) = &result {
        drop(to_user.send(Err(io::Error::new(error.kind(), error.to_string()))));
    }
    result
}

fn fill(decoder: &mut impl Read, bytes: &mut Vec<u8>) -> io::Result<()> {
    bytes.resize(CHUNK, 0);
    let mut filled = 0;
    while filled < CHUNK {
        match decoder.read(&mut bytes[filled..]) {
            Ok(0) => break,
            Ok(length) => filled += length,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    bytes.truncate(filled);
    Ok(())
}

fn hash(chunks: &Receiver<Arc<Chunk>>) -> (Digest, u64) {
    let (mut hasher, mut size) = (Hasher::default(), 0);
    for chunk in chunks {
        hasher.update(&chunk.bytes);
        size += chunk.bytes.len() as u64;
    }
    (hasher.finish(), size)
}

/// The plain bytes of a stream. An error of the decoder comes out in its place.
pub struct Chunks {
    source: Receiver<io::Result<Arc<Chunk>>>,
    current: Option<Arc<Chunk>>,
    position: usize,
}

impl BufRead for Chunks {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        let spent = self.current.as_ref().is_none_or(|chunk| self.position >= chunk.bytes.len());
        if spent {
            self.position = 0;
            self.current = None;
            // A closed channel is the end of the stream: the decoder reports errors before it closes.
            self.current = self.source.recv().ok().transpose()?;
        }
        Ok(self.current.as_ref().map_or(&[], |chunk| &chunk.bytes[self.position..]))
    }

    fn consume(&mut self, amount: usize) {
        self.position += amount;
    }
}

impl Read for Chunks {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        crate::shown::read_shown(self, buffer)
    }
}

impl std::fmt::Debug for Chunks {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Chunks")
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;
    use crate::Encoder;

    fn gzip(data: &[u8]) -> Vec<u8> {
        let mut encoder = Encoder::new(Vec::new(), Compression::Gzip).unwrap();
        encoder.write_all(data).unwrap();
        encoder.finish().unwrap()
    }

    #[test]
    fn the_plain_bytes_and_their_digest_come_out() {
        let data: Vec<u8> = (0..1_500_000_u32).flat_map(|n| (n ^ (n >> 3)).to_le_bytes()).collect();
        let packed = gzip(&data);
        let size = packed.len() as u64;
        let (pipeline, mut chunks) = Pipeline::start(io::Cursor::new(packed), Limits::default()).unwrap();
        let mut output = Vec::new();
        chunks.read_to_end(&mut output).unwrap();
        assert!(output == data);
        let finished = pipeline.finish().unwrap();
        assert_eq!(finished.digest, Hasher::digest(&data));
        assert_eq!((finished.size, finished.compressed_size), (data.len() as u64, size));
        assert_eq!(finished.compression, Compression::Gzip);
    }

    #[test]
    fn a_cut_stream_fails_for_the_reader_and_at_the_end() {
        let mut packed = gzip(&vec![9; 3_000_000]);
        packed.truncate(packed.len() / 2);
        let (pipeline, mut chunks) = Pipeline::start(io::Cursor::new(packed), Limits::default()).unwrap();
        assert!(io::copy(&mut chunks, &mut io::sink()).is_err());
        assert!(matches!(pipeline.finish(), Err(PipelineError::Decode(_))));
    }

    #[test]
    fn dropping_the_reader_stops_the_threads() {
        let (pipeline, chunks) =
            Pipeline::start(io::BufReader::new(io::repeat(1)), Limits::default()).unwrap();
        drop(chunks);
        assert!(pipeline.finish().is_err());
    }
}
