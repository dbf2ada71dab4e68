//! What goes out as it comes: whole blocks, one after the other.

use std::io::{self, BufRead, BufWriter, Seek, SeekFrom, Write};

use berth_archive::Segment;

use crate::error::ErofsError;
use crate::format::{CHUNK_BITS, HEAD, HOLE};

/// Bytes gathered before they are written.
const BUFFER: usize = 1 << 20;
/// Fewer zeros than this are written, more are skipped, which leaves a hole in the image.
const SKIP: u64 = 64 << 10;
/// Chunks of a file that are always granted, and for each of its segments.
const CHUNKS: u64 = 4096;
const CHUNKS_PER_SEGMENT: u64 = 64;

/// The blocks of an image from its second one on.
pub(crate) struct Blocks<W: Write> {
    output: BufWriter<W>,
    /// The number of the next block.
    next: u32,
    /// Bytes of a block.
    block: u64,
}

/// Where the data of a file with holes is.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Chunks {
    /// A chunk has `1 << bits` blocks.
    pub(crate) bits: u8,
    /// The first block of each, or [`HOLE`].
    pub(crate) starts: Box<[u32]>,
}

impl<W: Write + Seek> Blocks<W> {
    pub(crate) fn new(output: W, block: usize) -> Result<Self, ErofsError> {
        let mut output = BufWriter::with_capacity(BUFFER, output);
        // The superblock is written when the rest is known.
        output.seek(SeekFrom::Start(HEAD as u64)).map_err(ErofsError::Write)?;
        Ok(Self { output, next: (HEAD / block) as u32, block: block as u64 })
    }

    /// Leaves out as many bytes as somebody else has written there.
    pub(crate) fn pass_by(&mut self, length: u64) -> Result<(), ErofsError> {
        self.claim(length)?;
        let end = u64::from(self.next) * self.block;
        self.output.seek(SeekFrom::Start(end)).map(drop).map_err(ErofsError::Write)
    }

    /// The number of the next block.
    pub(crate) fn next(&self) -> u32 {
        self.next
    }

    /// Copies `length` bytes to whole blocks, and tells the first one.
    pub(crate) fn copy(
        &mut self,
        path: &[u8],
        length: u64,
        data: &mut impl BufRead,
    ) -> Result<u32, ErofsError> {
        let start = self.claim(length)?;
        self.pass(path, length, data)?;
        self.zeros(length.wrapping_neg() % self.block)?;
        Ok(start)
    }

    /// Writes bytes to whole blocks, and tells the first one.
    pub(crate) fn write(&mut self, bytes: &[u8]) -> Result<u32, ErofsError> {
        let start = self.claim(bytes.len() as u64)?;
        self.output.write_all(bytes).map_err(ErofsError::Write)?;
        self.zeros((bytes.len() as u64).wrapping_neg() % self.block)?;
        Ok(start)
    }

    /// Copies the runs of a file with holes.
    pub(crate) fn copy_runs(
        &mut self,
        path: &[u8],
        size: u64,
        runs: &[Segment],
        data: &mut impl BufRead,
    ) -> Result<Chunks, ErofsError> {
        let bits = chunk_bits(size, runs.len() as u64, self.block);
        let chunk = self.block << bits;
        let count = usize::try_from(size.div_ceil(chunk)).map_err(|_| ErofsError::TooLarge)?;
        let mut starts = vec![HOLE; count].into_boxed_slice();
        // The chunk that is being written, and where in the file the next byte of it belongs.
        let mut open: Option<(u64, u64)> = None;
        for run in runs {
            let (mut at, end) = (run.offset, run.offset + run.length);
            while at < end {
                let number = at / chunk;
                let reached = match open {
                    Some((current, reached)) if current == number => reached,
                    _ => {
                        self.close(open.take(), chunk, size)?;
                        starts[number as usize] = self.claim(chunk.min(size - number * chunk))?;
                        number * chunk
                    }
                };
                self.zeros(at - reached)?;
                let part = end.min((number + 1) * chunk) - at;
                self.pass(path, part, data)?;
                at += part;
                open = Some((number, at));
            }
        }
        self.close(open, chunk, size)?;
        Ok(Chunks { bits, starts })
    }

    /// Fills the chunk that was being written.
    fn close(&mut self, open: Option<(u64, u64)>, chunk: u64, size: u64) -> Result<(), ErofsError> {
        let Some((number, reached)) = open else { return Ok(()) };
        let length = chunk.min(size - number * chunk).next_multiple_of(self.block);
        self.zeros(number * chunk + length - reached)
    }

    /// Takes the blocks that so many bytes need.
    fn claim(&mut self, length: u64) -> Result<u32, ErofsError> {
        let blocks = u32::try_from(length.div_ceil(self.block)).map_err(|_| ErofsError::TooLarge)?;
        let start = self.next;
        // The last number stands for a hole.
        self.next = start.checked_add(blocks).filter(|end| *end < HOLE).ok_or(ErofsError::TooLarge)?;
        Ok(start)
    }

    fn pass(&mut self, path: &[u8], length: u64, data: &mut impl BufRead) -> Result<(), ErofsError> {
        let mut left = length;
        while left > 0 {
            let shown = data.fill_buf().map_err(|error| ErofsError::data(path, error))?;
            let part = shown.len().min(usize::try_from(left).unwrap_or(usize::MAX));
            if part == 0 {
                return Err(ErofsError::data(path, io::ErrorKind::UnexpectedEof.into()));
            }
            self.output.write_all(&shown[..part]).map_err(ErofsError::Write)?;
            data.consume(part);
            left -= part as u64;
        }
        Ok(())
    }

    fn zeros(&mut self, count: u64) -> Result<(), ErofsError> {
        if count >= SKIP {
            let skip = i64::try_from(count).map_err(|_| ErofsError::TooLarge)?;
            return self.output.seek_relative(skip).map_err(ErofsError::Write);
        }
        io::copy(&mut io::Read::take(io::repeat(0), count), &mut self.output).map_err(ErofsError::Write)?;
        Ok(())
    }

    /// Bytes that are counted as blocks by whoever calls this, once they are all written.
    pub(crate) fn stream(&mut self, bytes: &[u8]) -> Result<(), ErofsError> {
        self.output.write_all(bytes).map_err(ErofsError::Write)
    }

    /// Counts blocks that [`Blocks::stream`] writes.
    pub(crate) fn reserve(&mut self, bytes: u64) -> Result<u32, ErofsError> {
        self.claim(bytes)
    }

    /// Writes the beginning and gives the output back.
    pub(crate) fn finish(self, first: &[u8; HEAD]) -> Result<W, ErofsError> {
        let mut output = self.output.into_inner().map_err(|error| ErofsError::Write(error.into_error()))?;
        let write = |output: &mut W| {
            output.seek(SeekFrom::Start(0))?;
            output.write_all(first)?;
            output.flush()
        };
        write(&mut output).map_err(ErofsError::Write)?;
        Ok(output)
    }
}

/// The smallest chunks of which a file's runs make no unseemly number.
fn chunk_bits(size: u64, runs: u64, block: u64) -> u8 {
    let limit = CHUNKS.max(runs.saturating_mul(CHUNKS_PER_SEGMENT));
    (0..CHUNK_BITS).find(|bits| size.div_ceil(block << bits) <= limit).unwrap_or(CHUNK_BITS)
}
