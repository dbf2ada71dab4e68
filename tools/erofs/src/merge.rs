//! Several layers seen as one: an image of what is known of their files, whose data stays where it is.
//!
//! What comes out is the tree that overlayfs shows of the layers, without its marks. The kernel gets the layers as
//! further devices of the image; their blocks have numbers behind the image's own, so that a file's data is found as
//! in any image. Only tails behind inodes are written once more.
//!
//! ```text
//!   block 0   the superblock
//!   1 …       the table of devices: a layer each, from the lowest on
//!   …         inodes and directories, as in any image
//!   2²⁸ …     the blocks of the lowest layer, then those of the next …, on their devices
//! ```

use std::collections::{BTreeMap, HashMap};
use std::io::{Seek, Write};

use berth_archive::Time;

use crate::blocks::Chunks;
use crate::builder::{Builder, Finished};
use crate::error::ErofsError;
use crate::format::{BLOCK_DEVICE, CHARACTER, DeviceFields, HOLE, REGULAR, SYMLINK, TYPE};
use crate::image::{Image, ImageError, Inode, ReadAt, Xattr};
use crate::tree::{Attributes, Content, NodeId};
use crate::xattrs::OPAQUE;

/// The first block of the first device: what is before is room for the image itself.
const FIRST: u32 = 1 << 28;
/// Layers at most: the table of devices has a number of 16 bits.
const MAX_LAYERS: usize = 4096;
/// Bytes of all tails, which are held in memory for a while.
const MAX_TAILS: usize = 512 << 20;
/// Names at most.
const MAX_NAMES: usize = 20_000_000;

/// Why layers cannot be seen as one.
#[derive(Debug, thiserror::Error)]
pub enum MergeError {
    /// One of them cannot be read.
    #[error("cannot read layer {number} of them")]
    Layer {
        /// Which, from 0 for the lowest on.
        number: usize,
        /// From the image.
        source: ImageError,
    },
    /// What they come to cannot be written.
    #[error("cannot write what they come to")]
    Write(#[from] ErofsError),
    /// One of them refers to lower ones in a way that only overlayfs follows.
    #[error("layer {number} points into lower ones (redirect_dir, metacopy)")]
    Pointing {
        /// Which, from 0 for the lowest on.
        number: usize,
    },
    /// They have blocks of different sizes.
    #[error("layer {number} has blocks of another size than the lowest one")]
    Blocks {
        /// Which, from 0 for the lowest on.
        number: usize,
    },
}

/// Writes the image of `layers`, the lowest first, which have to be its devices in that order when it is mounted.
///
/// Compressed layers cannot be read here, and are an error. Blocking; takes memory by the number of files.
pub fn merge<W: Write + Seek, R: ReadAt>(
    output: W,
    layers: &[Image<R>],
    uuid: [u8; 16],
) -> Result<(W, Finished), MergeError> {
    let block = layers.first().map_or(4096, |layer| layer.block);
    if layers.len() > MAX_LAYERS {
        return Err(ErofsError::TooMany("layers").into());
    }
    let mut devices = Vec::with_capacity(layers.len());
    let mut start = FIRST;
    for (number, layer) in layers.iter().enumerate() {
        if layer.block != block {
            return Err(MergeError::Blocks { number });
        }
        let blocks = u32::try_from(layer.blocks).map_err(|_| ErofsError::TooLarge)?;
        devices.push(DeviceFields { blocks, start });
        start = start.checked_add(blocks).filter(|end| *end < HOLE).ok_or(ErofsError::TooLarge)?;
    }
    let mut builder = Builder::with_blocks(output, block as usize)?;
    builder.devices = devices;
    let mut merge = Merge { layers, builder, made: HashMap::new(), names: 0 };
    let roots: Vec<Found> =
        (0..layers.len()).rev().map(|layer| Found { layer, number: layers[layer].root() }).collect();
    let root = merge.builder.root();
    let mut waiting = vec![(root, roots)];
    if let Some(top) = waiting[0].1.first().copied() {
        let inode = merge.inode(top)?;
        let attributes = merge.attributes(top, &inode)?;
        merge.builder.set_attributes(root, b"/", &attributes)?;
    }
    while let Some((node, parts)) = waiting.pop() {
        merge.directory(node, &parts, &mut waiting)?;
    }
    Ok(merge.builder.finish(uuid)?)
}

/// A file of a layer.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
struct Found {
    layer: usize,
    number: u64,
}

/// What a name stands for, as far as the layers were looked at, from the uppermost on.
struct Name {
    /// The file, or the directories that are shown as one; none where a mark hides what is below.
    parts: Vec<Found>,
    /// Whether lower layers have no say any more.
    closed: bool,
}

/// A directory that is made, and what it is made of.
type Waiting = (NodeId, Vec<Found>);

struct Merge<'l, W: Write, R> {
    layers: &'l [Image<R>],
    builder: Builder<W>,
    /// Files by where they are: a file with several names is made once.
    made: HashMap<Found, NodeId>,
    names: usize,
}

impl<W: Write + Seek, R: ReadAt> Merge<'_, W, R> {
    fn read<T>(
        &self,
        layer: usize,
        work: impl FnOnce(&Image<R>) -> Result<T, ImageError>,
    ) -> Result<T, MergeError> {
        work(&self.layers[layer]).map_err(|source| MergeError::Layer { number: layer, source })
    }

    fn inode(&self, found: Found) -> Result<Inode, MergeError> {
        self.read(found.layer, |image| image.inode(found.number))
    }

    /// Fills a directory that is made of these, the uppermost first.
    fn directory(
        &mut self,
        node: NodeId,
        parts: &[Found],
        waiting: &mut Vec<Waiting>,
    ) -> Result<(), MergeError> {
        let mut names: BTreeMap<Vec<u8>, Name> = BTreeMap::new();
        for part in parts {
            let inode = self.inode(*part)?;
            for item in self.read(part.layer, |image| image.list(&inode))? {
                if item.name == b"." || item.name == b".." {
                    continue;
                }
                let found = Found { layer: part.layer, number: item.number };
                let name = names.entry(item.name).or_insert(Name { parts: Vec::new(), closed: false });
                if !name.closed {
                    self.look(name, found)?;
                }
            }
        }
        self.names += names.len();
        if self.names > MAX_NAMES {
            return Err(ErofsError::TooMany("names").into());
        }
        for (name, Name { parts, .. }) in names {
            let Some(top) = parts.first().copied() else { continue };
            let inode = self.inode(top)?;
            if inode.is_directory() {
                let attributes = self.attributes(top, &inode)?;
                let made = self.builder.directory(node, &name, &attributes)?;
                waiting.push((made, parts));
            } else if let Some(known) = self.made.get(&top) {
                self.builder.hard_link(node, &name, *known)?;
            } else {
                let made = self.file(node, &name, top, &inode)?;
                self.made.insert(top, made);
            }
        }
        Ok(())
    }

    /// Looks at what a lower layer has under a name.
    fn look(&self, name: &mut Name, found: Found) -> Result<(), MergeError> {
        let inode = self.inode(found)?;
        if inode.is_directory() {
            name.parts.push(found);
            let xattrs = self.xattrs(found, &inode)?;
            name.closed = xattrs.iter().any(|(name, value)| (&**name, &**value) == OPAQUE);
            return Ok(());
        }
        // A directory above stays one, and shows nothing of what is below this.
        name.closed = true;
        let mark = inode.mode & TYPE == CHARACTER && inode.device() == (0, 0);
        if name.parts.is_empty() && !mark {
            name.parts.push(found);
        }
        Ok(())
    }

    fn xattrs(&self, found: Found, inode: &Inode) -> Result<Vec<Xattr>, MergeError> {
        let xattrs = self.read(found.layer, |image| image.xattrs(inode))?;
        let points = |(name, value): &Xattr| match name.strip_prefix(b"trusted.overlay.") {
            Some(b"redirect" | b"metacopy" | b"whiteout") => true,
            Some(b"opaque") => **value != *OPAQUE.1,
            _ => false,
        };
        if xattrs.iter().any(points) {
            return Err(MergeError::Pointing { number: found.layer });
        }
        Ok(xattrs)
    }

    fn attributes(&self, found: Found, inode: &Inode) -> Result<Attributes, MergeError> {
        let mut xattrs = self.xattrs(found, inode)?;
        xattrs.retain(|(name, _)| !name.starts_with(b"trusted.overlay."));
        Ok(Attributes {
            mode: u32::from(inode.mode & !TYPE),
            uid: inode.uid,
            gid: inode.gid,
            mtime: Time { seconds: inode.seconds, nanos: inode.nanos },
            xattrs,
        })
    }

    /// Makes a file that is no directory, with its data where it is.
    fn file(
        &mut self,
        directory: NodeId,
        name: &[u8],
        found: Found,
        inode: &Inode,
    ) -> Result<NodeId, MergeError> {
        let attributes = self.attributes(found, inode)?;
        let content = match inode.mode & TYPE {
            REGULAR => self.data(found, inode)?,
            SYMLINK => {
                let mut text = Vec::new();
                self.read(found.layer, |image| image.read(inode, &mut text))?;
                return Ok(self.builder.symlink(directory, name, &attributes, &text)?);
            }
            CHARACTER | BLOCK_DEVICE => Content::Device(inode.union),
            _ => Content::Nothing,
        };
        Ok(self.builder.add(directory, name, inode.mode & TYPE, &attributes, content)?)
    }

    fn data(&mut self, found: Found, inode: &Inode) -> Result<Content, MergeError> {
        let device = self.builder.devices[found.layer];
        let moved = |start: u32| start.checked_add(device.start).ok_or(ErofsError::TooLarge);
        let size = inode.size;
        match inode.layout {
            0 if size == 0 => Ok(Content::Flat { start: 0, size, tail: None }),
            0 => Ok(Content::Flat { start: moved(inode.union)?, size, tail: None }),
            2 => {
                let block = self.layers[found.layer].block;
                let length = (size % block) as usize;
                if self.builder.tails.len() + length > MAX_TAILS {
                    return Err(ErofsError::TooMany("bytes behind inodes").into());
                }
                let mut tail = Vec::new();
                self.read(found.layer, |image| image.tail(inode, &mut tail))?;
                let at = self.builder.tails.len() as u32;
                self.builder.tails.extend_from_slice(&tail);
                let start = if size < block { 0 } else { moved(inode.union)? };
                Ok(Content::Flat { start, size, tail: (length > 0).then_some(at) })
            }
            4 => {
                let starts = self.read(found.layer, |image| image.starts(inode))?;
                let moved = |start: u32| if start == HOLE { Ok(start) } else { moved(start) };
                let starts: Result<Box<[u32]>, ErofsError> = starts.into_iter().map(moved).collect();
                let bits = (inode.union & 0x1f) as u8;
                Ok(Content::Chunked { size, chunks: Chunks { bits, starts: starts? } })
            }
            _ => {
                let source = ImageError::Unknown("compression");
                Err(MergeError::Layer { number: found.layer, source })
            }
        }
    }
}
