//! A layer whose archive stays as it is: an image of what is known of the files, whose data is in the archive.
//!
//! ```text
//!   0 …      the superblock
//!   4096 …   the archive, byte by byte
//!   …        data of files with holes, once more: an archive packs it without regard to blocks
//!   …        inodes and directories, as in any image
//! ```
//! An archive is made of blocks of 512 bytes, and so is the image (Linux 6.4). Whoever wants the archive back finds it:
//! its digest is the layer's diff id.

use std::io::{BufReader, Read, Seek, Write};

use berth_archive::{Entry, Segment};

use crate::builder::{Builder, Finished};
use crate::error::ErofsError;
use crate::format::{HEAD, SMALL_BLOCK};
use crate::image::ReadAt;
use crate::layer::{Below, Layer};
use crate::tree::{Content, NodeId};

/// Bytes read at a time.
const PART: usize = 256 << 10;

/// A layer being made an index of its archive, member by member.
#[derive(Debug)]
pub struct IndexedLayer<W: Write, B> {
    layer: Layer<W, B>,
    /// Files with holes, which are written once all of the archive is there.
    sparse: Vec<Sparse>,
}

#[derive(Debug)]
struct Sparse {
    node: NodeId,
    path: Vec<u8>,
    size: u64,
    runs: Vec<Segment>,
    /// Where in the archive their data begins.
    at: u64,
}

impl<W: Write + Seek, B: Below> IndexedLayer<W, B> {
    /// Where in the image the archive begins: whoever has its bytes writes them there.
    pub const ARCHIVE: u64 = HEAD as u64;

    /// An empty layer above `below`, whose root belongs to these.
    pub fn new(output: W, below: B, owner: (u32, u32)) -> Result<Self, ErofsError> {
        let builder = Builder::with_blocks(output, SMALL_BLOCK)?;
        Ok(Self { layer: Layer::with_builder(builder, below, owner)?, sparse: Vec::new() })
    }

    /// Adds one member, whose data begins at `at` in the archive. After an error the layer must not be used again.
    pub fn entry(&mut self, entry: &Entry, at: u64) -> Result<(), ErofsError> {
        let made = self.layer.member(entry, &mut |_, path, entry| {
            let block = SMALL_BLOCK as u64;
            if !at.is_multiple_of(block) {
                return Err(ErofsError::entry(path, "its data does not begin with a block of the archive"));
            }
            // Where the archive ends is looked at in the end.
            let start = u32::try_from((Self::ARCHIVE + at) / block).map_err(|_| ErofsError::TooLarge)?;
            let size = if entry.segments.is_some() { 0 } else { entry.size };
            Ok(Content::Flat { start, size, tail: None })
        })?;
        if let (Some(node), Some(runs)) = (made, &entry.segments) {
            let (path, size) = (entry.path.clone(), entry.size);
            self.sparse.push(Sparse { node, path, size, runs: runs.clone(), at });
        }
        Ok(())
    }

    /// Gives back what holds the layers below.
    pub fn below(&self) -> &B {
        self.layer.below()
    }

    /// Writes the index behind the archive, which is there now and has so many bytes, see [`Builder::finish`].
    pub fn finish(
        mut self,
        uuid: [u8; 16],
        (archive, length): (&impl ReadAt, u64),
    ) -> Result<(W, Finished), ErofsError> {
        let builder = &mut self.layer.builder;
        builder.blocks.pass_by(length)?;
        for Sparse { node, path, size, runs, at } in self.sparse {
            let left = runs.iter().map(|run| run.length).sum();
            let data = Region { source: archive, at: Self::ARCHIVE + at, left };
            let content = builder.chunked(&path, size, &runs, &mut BufReader::with_capacity(PART, data))?;
            builder.tree.node_mut(node).content = content;
        }
        self.layer.finish(uuid)
    }
}

/// A part of a file as a stream.
struct Region<'f, R> {
    source: &'f R,
    at: u64,
    left: u64,
}

impl<R: ReadAt> Read for Region<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let length = usize::try_from(self.left).unwrap_or(usize::MAX).min(buffer.len());
        self.source.read_exact_at(&mut buffer[..length], self.at)?;
        self.at += length as u64;
        self.left -= length as u64;
        Ok(length)
    }
}
