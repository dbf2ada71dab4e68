//! A layer as a tree of files.

use std::collections::BTreeMap;
use std::ops::Range;

use berth_archive::Time;

use crate::chunk::{Chunk, ChunkError, Coding, Stored, Unpacker};

/// A file of a layer, for as long as the table is the same: the same number means the same file after a restart.
pub type NodeId = u32;

/// The root directory.
pub const ROOT: NodeId = 0;

/// One file, of whatever kind, under all its names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    /// What it is.
    pub kind: Kind,
    /// Permission bits, 07777.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Modification time.
    pub mtime: Time,
    /// How many names it has.
    pub links: u32,
    /// Extended attributes, those included by which overlayfs knows an opaque directory.
    pub xattrs: BTreeMap<Box<[u8]>, Box<[u8]>>,
}

/// What a file is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A directory.
    Directory {
        /// The one above; the root is above itself.
        parent: NodeId,
        /// What is in it, by name, in the order of the names.
        children: Vec<(Box<[u8]>, NodeId)>,
    },
    /// A regular file.
    File {
        /// Its bytes.
        size: u64,
        /// Which of the layer's chunks they are, in order.
        chunks: Range<u32>,
    },
    /// A symbolic link holding this text.
    Symlink(Box<[u8]>),
    /// A character device; 0:0 is overlayfs' whiteout.
    CharDevice {
        /// Major number.
        major: u32,
        /// Minor number.
        minor: u32,
    },
    /// A block device.
    BlockDevice {
        /// Major number.
        major: u32,
        /// Minor number.
        minor: u32,
    },
    /// A named pipe.
    Fifo,
}

/// What whoever made the layer wants fetched before it is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Prefetch {
    /// Nothing is said.
    Unsaid,
    /// Nothing.
    Nothing,
    /// The blob up to here.
    UpTo(u64),
}

/// A layer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layer {
    pub(crate) coding: Coding,
    pub(crate) nodes: Vec<Node>,
    pub(crate) chunks: Vec<Chunk>,
    pub(crate) prefetch: Prefetch,
}

impl Layer {
    /// A file by its number.
    pub fn node(&self, id: NodeId) -> Option<&Node> {
        self.nodes.get(id as usize)
    }

    /// How many files there are.
    pub fn nodes(&self) -> usize {
        self.nodes.len()
    }

    /// What is at a name in a directory.
    pub fn child(&self, directory: &Node, name: &[u8]) -> Option<NodeId> {
        let Kind::Directory { children, .. } = &directory.kind else { return None };
        let found = children.binary_search_by(|(other, _)| other.as_ref().cmp(name)).ok()?;
        Some(children[found].1)
    }

    /// Whether any file has extended attributes.
    pub fn has_xattrs(&self) -> bool {
        self.nodes.iter().any(|node| !node.xattrs.is_empty())
    }

    /// The chunks of a file; none for anything else.
    pub fn chunks(&self, node: &Node) -> &[Chunk] {
        let Kind::File { chunks, .. } = &node.kind else { return &[] };
        self.chunks.get(chunks.start as usize..chunks.end as usize).unwrap_or_default()
    }

    /// Whether its chunks' digests are no digests, but only names that no other bytes can have: of a zTOC's chunks it
    /// is known what they are made of, and not what they hash to.
    pub fn names_chunks(&self) -> bool {
        matches!(self.coding, Coding::Spans(_))
    }

    /// Whether another layer has the same files with the same bytes in the same chunks, wherever those are stored.
    pub fn is_same(&self, other: &Self) -> bool {
        let held = |chunk: &Chunk| {
            (chunk.offset, chunk.size, chunk.stored.as_ref().map(|stored| stored.digest.clone()))
        };
        self.nodes == other.nodes && self.chunks.iter().map(held).eq(other.chunks.iter().map(held))
    }

    /// All chunks, in the order of the table.
    pub fn all_chunks(&self) -> &[Chunk] {
        &self.chunks
    }

    /// What to fetch at once.
    pub fn prefetch(&self) -> Prefetch {
        self.prefetch
    }

    /// Makes the `size` bytes that are stored there out of their range of the blob, and verifies them.
    pub fn decompress(&self, size: u64, stored: &Stored, blob: &[u8]) -> Result<Vec<u8>, ChunkError> {
        self.unpacker(blob, stored.range.start).chunk(size, stored)
    }

    /// Makes chunks out of a part of the blob that begins at byte `start`. Those that share a stream are best asked
    /// for in its order.
    pub fn unpacker<'l>(&'l self, blob: &'l [u8], start: u64) -> Unpacker<'l> {
        Unpacker::new(&self.coding, blob, start)
    }
}
