//! An image that grows by entries.

use std::io::{BufRead, Read, Seek, Write};

use berth_archive::{Segment, Time};

use crate::blocks::Blocks;
use crate::error::ErofsError;
use crate::finish;
use crate::format::{
    BLOCK, BLOCK_DEVICE, CHARACTER, DIRECTORY, DeviceFields, FIFO, REGULAR, SOCKET, SYMLINK, TYPE,
    encode_device,
};
use crate::tree::{Attributes, Content, Node, NodeId, Tree};
use crate::xattrs::Xattrs;

/// Bytes of tails that are kept; later ones fill blocks of their own.
const TAILS: usize = 64 << 20;
/// Entries of all maps of chunks.
const MAPS: usize = 1 << 24;
/// Bytes of a symlink's text, as everywhere in Linux.
const LINK: usize = 4095;

/// A file without data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Special {
    /// A character device, by major and minor number.
    Character(u32, u32),
    /// A block device.
    Block(u32, u32),
    /// A named pipe.
    Fifo,
    /// A socket.
    Socket,
}

/// What an image came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Finished {
    /// Files, each once whatever its names.
    pub inodes: u64,
    /// Bytes of the image.
    pub bytes: u64,
}

/// An image being made: files are added under names in directories, and written with [`Builder::finish`].
///
/// Adding a name that is taken replaces what has it. Blocking, as far as output and data do.
pub struct Builder<W: Write> {
    pub(crate) tree: Tree,
    pub(crate) blocks: Blocks<W>,
    pub(crate) xattrs: Xattrs,
    pub(crate) tails: Vec<u8>,
    /// Entries of maps of chunks so far.
    maps: usize,
    /// Bytes of a block.
    pub(crate) block: usize,
    /// What data is in beside this image.
    pub(crate) devices: Vec<DeviceFields>,
}

impl<W: Write + Seek> Builder<W> {
    /// An image of nothing but the root, root's with mode 0755, at the beginning of `output`.
    pub fn new(output: W) -> Result<Self, ErofsError> {
        Self::with_blocks(output, BLOCK)
    }

    /// The same with blocks of so many bytes.
    pub(crate) fn with_blocks(output: W, block: usize) -> Result<Self, ErofsError> {
        Ok(Self {
            tree: Tree::new(),
            blocks: Blocks::new(output, block)?,
            xattrs: Xattrs::default(),
            tails: Vec::new(),
            maps: 0,
            block,
            devices: Vec::new(),
        })
    }

    /// The root of the tree.
    pub fn root(&self) -> NodeId {
        Tree::ROOT
    }

    /// The file of that name in a directory.
    pub fn child(&self, directory: NodeId, name: &[u8]) -> Option<NodeId> {
        self.tree.child(directory, name)
    }

    /// Adds a directory.
    pub fn directory(
        &mut self,
        parent: NodeId,
        name: &[u8],
        attributes: &Attributes,
    ) -> Result<NodeId, ErofsError> {
        self.add(parent, name, DIRECTORY, attributes, Content::Directory(Default::default()))
    }

    /// Adds a file with `size` bytes of `data`.
    pub fn file(
        &mut self,
        parent: NodeId,
        name: &[u8],
        attributes: &Attributes,
        size: u64,
        data: &mut impl BufRead,
    ) -> Result<NodeId, ErofsError> {
        let content = self.flat(name, size, data)?;
        self.add(parent, name, REGULAR, attributes, content)
    }

    /// Adds a file of `size` bytes with holes: `runs` are in order and apart, and `data` is theirs joined.
    pub fn sparse_file(
        &mut self,
        parent: NodeId,
        name: &[u8],
        attributes: &Attributes,
        (size, runs): (u64, &[Segment]),
        data: &mut impl BufRead,
    ) -> Result<NodeId, ErofsError> {
        let content = self.chunked(name, size, runs, data)?;
        self.add(parent, name, REGULAR, attributes, content)
    }

    /// Adds a symbolic link.
    pub fn symlink(
        &mut self,
        parent: NodeId,
        name: &[u8],
        attributes: &Attributes,
        text: &[u8],
    ) -> Result<NodeId, ErofsError> {
        if text.is_empty() || text.len() > LINK || text.contains(&0) {
            return Err(ErofsError::entry(name, "a symbolic link has 1 to 4095 bytes, none of them NUL"));
        }
        let attributes = &Attributes { mode: 0o777, ..attributes.clone() };
        self.add(parent, name, SYMLINK, attributes, Content::Symlink(text.into()))
    }

    /// Adds a device, pipe or socket.
    pub fn special(
        &mut self,
        parent: NodeId,
        name: &[u8],
        attributes: &Attributes,
        special: Special,
    ) -> Result<NodeId, ErofsError> {
        let device = |major, minor| {
            let number = encode_device(major, minor);
            let why = "Linux has devices up to 4095:1048575 only";
            number.map(Content::Device).ok_or_else(|| ErofsError::entry(name, why))
        };
        let (kind, content) = match special {
            Special::Character(major, minor) => (CHARACTER, device(major, minor)?),
            Special::Block(major, minor) => (BLOCK_DEVICE, device(major, minor)?),
            Special::Fifo => (FIFO, Content::Nothing),
            Special::Socket => (SOCKET, Content::Nothing),
        };
        self.add(parent, name, kind, attributes, content)
    }

    /// Gives a file that is no directory another name.
    pub fn hard_link(&mut self, parent: NodeId, name: &[u8], file: NodeId) -> Result<(), ErofsError> {
        if self.tree.is_directory(file) {
            return Err(ErofsError::entry(name, "a directory has one name only"));
        }
        self.tree.name(parent, name, file)
    }

    /// Changes what is told of a file; attributes that it has under other names stay.
    pub fn set_attributes(
        &mut self,
        file: NodeId,
        path: &[u8],
        attributes: &Attributes,
    ) -> Result<(), ErofsError> {
        for (name, value) in &attributes.xattrs {
            self.set_xattr(file, path, name, value)?;
        }
        let node = self.tree.node_mut(file);
        if node.mode & TYPE != SYMLINK {
            node.mode = node.mode & TYPE | permissions(attributes);
        }
        (node.uid, node.gid, node.mtime) = (attributes.uid, attributes.gid, time(attributes.mtime));
        Ok(())
    }

    /// Sets one extended attribute; a name that no image can have is left out.
    pub fn set_xattr(
        &mut self,
        file: NodeId,
        path: &[u8],
        name: &[u8],
        value: &[u8],
    ) -> Result<(), ErofsError> {
        let Some(number) = self.xattrs.number(path, name, value)? else { return Ok(()) };
        let Self { tree, xattrs, .. } = self;
        let own = &mut tree.node_mut(file).xattrs;
        own.retain(|other| !xattrs.same_name(*other, number));
        own.push(number);
        Ok(())
    }

    /// Writes what is known of the files, and the superblock last. `uuid` names the file system; made from what the
    /// image is made of, it leaves the same image for the same entries.
    pub fn finish(self, uuid: [u8; 16]) -> Result<(W, Finished), ErofsError> {
        finish::finish(self, uuid)
    }

    pub(crate) fn flat(
        &mut self,
        path: &[u8],
        size: u64,
        data: &mut impl BufRead,
    ) -> Result<Content, ErofsError> {
        let length = size % self.block as u64;
        // Longer tails fill a block of their own; half of one is not worth keeping for that long.
        let kept =
            length > 0 && length <= self.block as u64 / 2 && self.tails.len() + length as usize <= TAILS;
        if !kept {
            return Ok(Content::Flat { start: self.blocks.copy(path, size, data)?, size, tail: None });
        }
        let start = self.blocks.copy(path, size - length, data)?;
        let tail = self.tails.len() as u32;
        let taken = data.take(length).read_to_end(&mut self.tails);
        if taken.map_err(|error| ErofsError::data(path, error))? as u64 != length {
            return Err(ErofsError::data(path, std::io::ErrorKind::UnexpectedEof.into()));
        }
        Ok(Content::Flat { start, size, tail: Some(tail) })
    }

    pub(crate) fn chunked(
        &mut self,
        path: &[u8],
        size: u64,
        runs: &[Segment],
        data: &mut impl BufRead,
    ) -> Result<Content, ErofsError> {
        let apart = runs.windows(2).all(|pair| pair[0].offset + pair[0].length <= pair[1].offset);
        let inside = runs.iter().all(|run| run.offset.checked_add(run.length).is_some_and(|end| end <= size));
        if !inside || !apart || i64::try_from(size).is_err() {
            return Err(ErofsError::entry(path, "its runs of data are not in order within its size"));
        }
        let chunks = self.blocks.copy_runs(path, size, runs, data)?;
        self.maps += chunks.starts.len();
        if self.maps > MAPS {
            return Err(ErofsError::TooMany("chunks of files with holes"));
        }
        Ok(Content::Chunked { size, chunks })
    }

    pub(crate) fn add(
        &mut self,
        parent: NodeId,
        name: &[u8],
        kind: u16,
        attributes: &Attributes,
        content: Content,
    ) -> Result<NodeId, ErofsError> {
        let node = Node {
            mode: kind | permissions(attributes),
            uid: attributes.uid,
            gid: attributes.gid,
            mtime: time(attributes.mtime),
            xattrs: Vec::new(),
            content,
        };
        let id = self.tree.add(node)?;
        self.tree.name(parent, name, id)?;
        for (xattr, value) in &attributes.xattrs {
            self.set_xattr(id, name, xattr, value)?;
        }
        Ok(id)
    }
}

/// The name of the image of a layer, made of the hexadecimal digits of its digest: the same layer has the same name
/// wherever it is written.
pub fn uuid_of(hex: &str) -> [u8; 16] {
    let mut uuid = [0; 16];
    for (byte, pair) in uuid.iter_mut().zip(hex.as_bytes().chunks_exact(2)) {
        let pair = std::str::from_utf8(pair).ok();
        *byte = pair.and_then(|pair| u8::from_str_radix(pair, 16).ok()).unwrap_or(0);
    }
    uuid
}

fn permissions(attributes: &Attributes) -> u16 {
    (attributes.mode & 0o7777) as u16
}

fn time(mtime: Time) -> Time {
    Time { nanos: mtime.nanos.min(999_999_999), ..mtime }
}

impl<W: Write> std::fmt::Debug for Builder<W> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Builder").field("files", &self.tree.len()).finish_non_exhaustive()
    }
}
