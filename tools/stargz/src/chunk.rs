//! Parts of files: where each is in the blob, and its bytes out of there.

use std::io::{self, Read};
use std::ops::Range;
use std::sync::Arc;

use berth_archive::Hasher;
use berth_types::Digest;

use crate::Format;
use crate::plain::Points;
use crate::soci::Spans;

/// Bytes of the largest chunk: it is made in memory.
pub const CHUNK_LIMIT: u64 = 64 << 20;

/// The largest window that a zstd frame may ask for, as for whole layers.
pub(crate) const ZSTD_WINDOW_LOG: u32 = 27;

/// A part of a file. Those of a file follow one another without a gap.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chunk {
    /// Where it is in its file.
    pub offset: u64,
    /// Its bytes, at most [`CHUNK_LIMIT`].
    pub size: u64,
    /// Where they come from; none for a hole, which is zeros.
    pub stored: Option<Stored>,
}

impl Chunk {
    /// Where it ends in its file.
    pub fn end(&self) -> u64 {
        self.offset + self.size
    }
}

/// Bytes of a chunk within the blob.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stored {
    /// The range of the blob that is enough to make them. It may overlap those of others.
    pub range: Range<u64>,
    /// How many bytes come before them in what the range decompresses to.
    pub skip: u64,
    /// What they hash to; or what they are called, where [`Layer::names_chunks`](crate::Layer::names_chunks).
    pub digest: Digest,
}

/// Why a chunk's bytes are of no use.
#[derive(Debug, thiserror::Error)]
pub enum ChunkError {
    /// They cannot be decompressed.
    #[error("cannot decompress bytes {} to {} of the layer", range.start, range.end)]
    Damaged {
        /// Where in the blob.
        range: Range<u64>,
        /// From the decoder.
        source: io::Error,
    },
    /// They are others than the table says.
    #[error("bytes {} to {} of the layer should hold {expected} and hold {actual}", range.start, range.end)]
    Mismatch {
        /// Where in the blob.
        range: Range<u64>,
        /// From the table.
        expected: Digest,
        /// What was made.
        actual: Digest,
    },
}

/// How what is stored is decoded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Coding {
    /// Ranges begin with streams.
    Streams(Format),
    /// Ranges begin at points of one stream.
    Points(Arc<Points>),
    /// The same, and each range has a digest of its own, by which chunks are verified before they are decoded.
    Spans(Arc<Spans>),
}

/// Makes chunks out of a part of a blob; the streams that they share are decoded once.
pub struct Unpacker<'l> {
    coding: &'l Coding,
    blob: &'l [u8],
    start: u64,
    open: Option<Open<'l>>,
    /// Where a span begins that is not what it should be, and what it hashes to.
    refused: Option<(u64, Digest, Digest)>,
}

/// A stream that is being decoded.
struct Open<'l> {
    /// Where in the blob it begins.
    start: u64,
    /// Bytes that it has given.
    given: u64,
    decoder: Box<dyn Read + 'l>,
}

impl<'l> Unpacker<'l> {
    pub(crate) fn new(coding: &'l Coding, blob: &'l [u8], start: u64) -> Self {
        Self { coding, blob, start, open: None, refused: None }
    }

    /// The `size` bytes that are stored there, verified.
    pub fn chunk(&mut self, size: u64, stored: &Stored) -> Result<Vec<u8>, ChunkError> {
        if let Coding::Spans(spans) = self.coding {
            self.verify(spans, stored)?;
        }
        let made = self.make(size, stored);
        let bytes = made.map_err(|source| {
            self.open = None;
            ChunkError::Damaged { range: stored.range.clone(), source }
        })?;
        if matches!(self.coding, Coding::Spans(_)) {
            return Ok(bytes);
        }
        let actual = digest(&stored.digest, &bytes);
        if actual != stored.digest {
            let (range, expected) = (stored.range.clone(), stored.digest.clone());
            return Err(ChunkError::Mismatch { range, expected, actual });
        }
        Ok(bytes)
    }

    /// Sees to it that the span of a chunk is what it should be, once for all chunks of it that follow one another.
    fn verify(&mut self, spans: &Spans, stored: &Stored) -> Result<(), ChunkError> {
        let begin = stored.range.start;
        if self.open.as_ref().is_some_and(|open| open.start == begin) {
            return Ok(());
        }
        let mismatch = |expected: &Digest, actual: &Digest| ChunkError::Mismatch {
            range: stored.range.clone(),
            expected: expected.clone(),
            actual: actual.clone(),
        };
        if let Some((_, expected, actual)) = self.refused.as_ref().filter(|(at, ..)| *at == begin) {
            return Err(mismatch(expected, actual));
        }
        let damaged = |source| ChunkError::Damaged { range: stored.range.clone(), source };
        let verified = self.from(begin).and_then(|blob| spans.verify(begin, blob)).map_err(damaged)?;
        verified.map_err(|(expected, actual)| {
            let error = mismatch(&expected, &actual);
            self.refused = Some((begin, expected, actual));
            error
        })
    }

    fn make(&mut self, size: u64, stored: &Stored) -> io::Result<Vec<u8>> {
        let begin = stored.range.start;
        let mut open = match self.open.take() {
            Some(open) if open.start == begin && open.given <= stored.skip => open,
            _ => Open { start: begin, given: 0, decoder: self.decoder(begin)? },
        };
        let skip = stored.skip - open.given;
        let skipped = io::copy(&mut (&mut open.decoder).take(skip), &mut io::sink())?;
        // Not more than there is: what the table says of the size is not yet worth the memory.
        let mut bytes = Vec::new();
        (&mut open.decoder).take(size).read_to_end(&mut bytes)?;
        if skipped < skip || (bytes.len() as u64) < size {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        open.given = stored.skip + size;
        self.open = Some(open);
        Ok(bytes)
    }

    /// The blob from a byte on.
    fn from(&self, begin: u64) -> io::Result<&'l [u8]> {
        let at = begin.checked_sub(self.start).and_then(|at| usize::try_from(at).ok());
        Ok(at.and_then(|at| self.blob.get(at..)).ok_or(io::ErrorKind::UnexpectedEof)?)
    }

    fn decoder(&self, begin: u64) -> io::Result<Box<dyn Read + 'l>> {
        let blob = self.from(begin)?;
        Ok(match self.coding {
            Coding::Streams(Format::Gzip) => Box::new(flate2::bufread::MultiGzDecoder::new(blob)),
            Coding::Streams(Format::Zstd) => Box::new(zstd_decoder(blob)?),
            Coding::Points(points) => points.decoder(begin, blob)?,
            Coding::Spans(spans) => spans.decoder(begin, blob)?,
        })
    }
}

impl std::fmt::Debug for Unpacker<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Unpacker").field("start", &self.start).finish_non_exhaustive()
    }
}

/// What bytes hash to, by the algorithm of another digest.
fn digest(like: &Digest, bytes: &[u8]) -> Digest {
    let mut hasher = Hasher::new(like.algorithm());
    hasher.update(bytes);
    hasher.finish()
}

pub(crate) fn zstd_decoder(blob: &[u8]) -> io::Result<zstd::stream::read::Decoder<'_, &[u8]>> {
    let mut decoder = zstd::stream::read::Decoder::with_buffer(blob)?;
    decoder.window_log_max(ZSTD_WINDOW_LOG)?;
    Ok(decoder)
}
