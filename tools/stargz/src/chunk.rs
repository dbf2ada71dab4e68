//! Parts of files: where each is in the blob, and its bytes out of there.

use std::io::{self, Read};
use std::ops::Range;

use berth_archive::Hasher;
use berth_types::Digest;

use crate::Format;

/// Bytes of the largest chunk: it is made in memory.
pub const CHUNK_LIMIT: u64 = 64 << 20;

/// The largest window that a zstd frame may ask for, as for whole layers.
const ZSTD_WINDOW_LOG: u32 = 27;

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
    /// What they hash to.
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

/// Makes the `size` bytes of a chunk out of its range of the blob, and verifies them.
pub(crate) fn decompress(
    format: Format,
    size: u64,
    stored: &Stored,
    blob: &[u8],
) -> Result<Vec<u8>, ChunkError> {
    let damaged = |source| ChunkError::Damaged { range: stored.range.clone(), source };
    let bytes = match format {
        Format::Gzip => take(flate2::bufread::MultiGzDecoder::new(blob), size, stored.skip),
        Format::Zstd => zstd_decoder(blob).and_then(|decoder| take(decoder, size, stored.skip)),
    };
    let bytes = bytes.map_err(damaged)?;
    let actual = digest(&stored.digest, &bytes);
    if actual != stored.digest {
        let (range, expected) = (stored.range.clone(), stored.digest.clone());
        return Err(ChunkError::Mismatch { range, expected, actual });
    }
    Ok(bytes)
}

/// What bytes hash to, by the algorithm of another digest.
fn digest(like: &Digest, bytes: &[u8]) -> Digest {
    let mut hasher = Hasher::new(like.algorithm());
    hasher.update(bytes);
    hasher.finish()
}

fn zstd_decoder(blob: &[u8]) -> io::Result<zstd::stream::read::Decoder<'_, &[u8]>> {
    let mut decoder = zstd::stream::read::Decoder::with_buffer(blob)?;
    decoder.window_log_max(ZSTD_WINDOW_LOG)?;
    Ok(decoder)
}

fn take(mut decoder: impl Read, size: u64, skip: u64) -> io::Result<Vec<u8>> {
    let skipped = io::copy(&mut (&mut decoder).take(skip), &mut io::sink())?;
    // Not more than there is: what the table says of the size is not yet worth the memory.
    let mut bytes = Vec::new();
    decoder.take(size).read_to_end(&mut bytes)?;
    if skipped < skip || (bytes.len() as u64) < size {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok(bytes)
}
