//! Reading an image back: ours, to test it, and anybody's, to see what it is before the kernel does.
//!
//! Nothing of it is trusted. A count or place that cannot be is an error, and no answer is larger than what was asked
//! for.

use std::fs::File;
use std::io::{self, Write};
use std::os::unix::fs::FileExt;

use crate::format::{
    BLOCK, CHUNK_BITS, CHUNK_INDEXES, COMPACT_INODE, DIRECTORY, ENTRY, HOLE, INCOMPAT_CHUNKS, INODE, MAGIC,
    NAME, SLOT, SUPER_OFFSET, SUPER_SIZE, TYPE, checked_length, crc32c, decode_device,
};
use crate::xattrs::{body_length, prefix};

/// Bytes of the largest directory that is read.
const MAX_DIRECTORY: u64 = 1 << 30;

/// Entries of a map of chunks that are read at most.
const MAX_CHUNKS: u64 = 1 << 24;

/// Bytes that can be read from anywhere.
pub trait ReadAt {
    /// Fills the buffer from `offset` on; `UnexpectedEof` if there are not so many bytes.
    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()>;
}

impl ReadAt for File {
    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        FileExt::read_exact_at(self, buffer, offset)
    }
}

impl ReadAt for &[u8] {
    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        let start = usize::try_from(offset).ok();
        let range = start.and_then(|start| self.get(start..start.checked_add(buffer.len())?));
        buffer.copy_from_slice(range.ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }
}

/// Why an image cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum ImageError {
    /// The file failed, or ends too early.
    #[error("cannot read the image at byte {offset}")]
    Read {
        /// Where.
        offset: u64,
        /// From the file.
        source: io::Error,
    },
    /// The file is none.
    #[error("this is no EROFS image")]
    Magic,
    /// Something in it cannot be.
    #[error("the EROFS image is damaged: {0}")]
    Damaged(&'static str),
    /// It is an image that this program does not read.
    #[error("the EROFS image needs {0}, which is not known here")]
    Unknown(&'static str),
}

/// An image.
#[derive(Debug)]
pub struct Image<R> {
    pub(crate) source: R,
    root: u64,
    inodes: u64,
    pub(crate) metadata: u64,
    xattrs: u64,
    /// The time of files that have none of their own, in seconds and nanoseconds.
    epoch: (i64, u32),
    pub(crate) block: u64,
    /// Blocks of the file system.
    pub(crate) blocks: u64,
}

/// One file, as its inode tells it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Inode {
    /// Type and permissions.
    pub mode: u16,
    /// Bytes of data.
    pub size: u64,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Modification time in seconds since 1970.
    pub seconds: i64,
    /// And nanoseconds.
    pub nanos: u32,
    /// How many names it has.
    pub links: u32,
    pub(crate) layout: u16,
    pub(crate) union: u32,
    /// Where its extended attributes begin, and how long they are.
    pub(crate) body: (u64, u64),
}

/// An extended attribute: its full name and its value.
pub type Xattr = (Vec<u8>, Vec<u8>);

/// A name in a directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    /// The name.
    pub name: Vec<u8>,
    /// The number of the file's inode.
    pub number: u64,
    /// What kind of file it is, as the format counts them.
    pub(crate) kind: u8,
}

impl Inode {
    /// Whether it is a directory.
    pub fn is_directory(&self) -> bool {
        self.mode & TYPE == DIRECTORY
    }

    /// Major and minor number, of a device.
    pub fn device(&self) -> (u32, u32) {
        decode_device(self.union)
    }
}

impl<R: ReadAt> Image<R> {
    /// Reads the superblock.
    pub fn open(source: R) -> Result<Self, ImageError> {
        Self::open_with(source, INCOMPAT_CHUNKS)
    }

    /// Reads the superblock of an image that may have these features.
    pub(crate) fn open_with(source: R, features: u32) -> Result<Self, ImageError> {
        let mut bytes = [0; SUPER_SIZE];
        read(&source, &mut bytes, SUPER_OFFSET as u64)?;
        if number(&bytes, 0, 4) != u64::from(MAGIC) {
            return Err(ImageError::Magic);
        }
        let bits = bytes[12];
        if !(9..=16).contains(&bits) {
            return Err(ImageError::Damaged("a block has 512 bytes to 64 KiB"));
        }
        let block = 1_u64 << bits;
        if number(&bytes, 8, 4) & 1 != 0 && block <= BLOCK as u64 {
            let mut rest = vec![0; checked_length(block as usize)];
            read(&source, &mut rest, SUPER_OFFSET as u64)?;
            rest[4..8].fill(0);
            if u64::from(crc32c(&rest)) != number(&bytes, 4, 4) {
                return Err(ImageError::Damaged("the superblock's checksum is another"));
            }
        }
        let incompatible = number(&bytes, 80, 4) as u32;
        if incompatible & !features != 0 {
            return Err(ImageError::Unknown("features that not every kernel has"));
        }
        if number(&bytes, 86, 2) != 0 {
            return Err(ImageError::Unknown("devices beside it"));
        }
        Ok(Self {
            source,
            root: number(&bytes, 14, 2),
            inodes: number(&bytes, 16, 8),
            metadata: number(&bytes, 40, 4) * block,
            xattrs: number(&bytes, 44, 4) * block,
            epoch: (number(&bytes, 24, 8) as i64, number(&bytes, 32, 4) as u32),
            block,
            blocks: number(&bytes, 36, 4),
        })
    }

    /// The number of the root's inode.
    pub fn root(&self) -> u64 {
        self.root
    }

    /// How many files there are, as the image says.
    pub fn inodes(&self) -> u64 {
        self.inodes
    }

    /// Reads an inode.
    pub fn inode(&self, id: u64) -> Result<Inode, ImageError> {
        let at = id.checked_mul(SLOT).and_then(|offset| self.metadata.checked_add(offset));
        let at = at.ok_or(ImageError::Damaged("an inode is out of reach"))?;
        let mut short = [0; COMPACT_INODE];
        read(&self.source, &mut short, at)?;
        let (form, words) = (number(&short, 0, 2), number(&short, 2, 2) as u16);
        if form & !0xf != 0 {
            return Err(ImageError::Unknown("another form of inodes"));
        }
        let layout = (form >> 1 & 7) as u16;
        let mode = number(&short, 4, 2) as u16;
        let (inode, length) = if form & 1 == 0 {
            let inode = Inode {
                mode,
                size: number(&short, 8, 4),
                uid: number(&short, 24, 2) as u32,
                gid: number(&short, 26, 2) as u32,
                // The image's own time, and in newer ones what is to be added to it.
                seconds: self.epoch.0.wrapping_add(number(&short, 12, 4) as i64),
                nanos: self.epoch.1,
                links: number(&short, 6, 2) as u32,
                layout,
                union: number(&short, 16, 4) as u32,
                body: (0, 0),
            };
            (inode, COMPACT_INODE)
        } else {
            let mut long = [0; INODE];
            read(&self.source, &mut long, at)?;
            let inode = Inode {
                mode,
                size: number(&long, 8, 8),
                uid: number(&long, 24, 4) as u32,
                gid: number(&long, 28, 4) as u32,
                seconds: number(&long, 32, 8) as i64,
                nanos: number(&long, 40, 4) as u32,
                links: number(&long, 44, 4) as u32,
                layout,
                union: number(&long, 16, 4) as u32,
                body: (0, 0),
            };
            (inode, INODE)
        };
        if inode.size > i64::MAX as u64 {
            return Err(ImageError::Damaged("a file is larger than files can be"));
        }
        Ok(Inode { body: (at + length as u64, body_length(words) as u64), ..inode })
    }

    /// The extended attributes of a file, by their full names.
    pub fn xattrs(&self, inode: &Inode) -> Result<Vec<Xattr>, ImageError> {
        let (start, length) = inode.body;
        if length == 0 {
            return Ok(Vec::new());
        }
        let mut body = vec![0; length as usize];
        read(&self.source, &mut body, start)?;
        let shared = usize::from(body[4]);
        let (ids, mut own) = body[12..]
            .split_at_checked(4 * shared)
            .ok_or(ImageError::Damaged("extended attributes are shorter than they say"))?;
        let mut all = Vec::new();
        for id in ids.chunks_exact(4) {
            let at = self.xattrs + 4 * number(id, 0, 4);
            let mut head = [0; 4];
            read(&self.source, &mut head, at)?;
            let mut entry = vec![0; 4 + usize::from(head[0]) + number(&head, 2, 2) as usize];
            read(&self.source, &mut entry, at)?;
            all.extend(xattr(&entry).map(|(found, _)| found));
        }
        while !own.is_empty() {
            let (found, rest) = xattr(own).ok_or(ImageError::Damaged("an extended attribute is cut off"))?;
            all.push(found);
            own = rest;
        }
        Ok(all)
    }

    /// The names in a directory, in its order.
    pub fn list(&self, inode: &Inode) -> Result<Vec<Listed>, ImageError> {
        if inode.size > MAX_DIRECTORY {
            return Err(ImageError::Damaged("a directory has more than 1 GiB"));
        }
        let mut bytes = Vec::new();
        self.read(inode, &mut bytes)?;
        let mut all = Vec::new();
        for block in bytes.chunks(self.block as usize) {
            entries(block, &mut all).ok_or(ImageError::Damaged("a directory's entries overlap"))?;
        }
        Ok(all)
    }

    /// Writes a file's data, holes as zeros.
    pub fn read(&self, inode: &Inode, output: &mut impl Write) -> Result<(), ImageError> {
        let mut part = vec![0; self.block as usize];
        let mut at = 0;
        while at < inode.size {
            let length = (inode.size - at).min(self.block) as usize;
            match self.place(inode, at)? {
                Some(offset) => read(&self.source, &mut part[..length], offset)?,
                None => part[..length].fill(0),
            }
            output.write_all(&part[..length]).map_err(|source| ImageError::Read { offset: at, source })?;
            at += length as u64;
        }
        Ok(())
    }

    /// What of a file's data is behind its inode.
    pub(crate) fn tail(&self, inode: &Inode, output: &mut Vec<u8>) -> Result<(), ImageError> {
        let length = inode.size % self.block;
        output.resize(length as usize, 0);
        match self.place(inode, inode.size - length)? {
            Some(place) if length > 0 => read(&self.source, output, place),
            _ => Ok(()),
        }
    }

    /// The first blocks of a file's chunks.
    pub(crate) fn starts(&self, inode: &Inode) -> Result<Vec<u32>, ImageError> {
        let map = self.map(inode)?;
        let count = inode.size.div_ceil(map.chunk);
        if count > MAX_CHUNKS {
            return Err(ImageError::Damaged("a file has more chunks than images have"));
        }
        (0..count).map(|number| map.start(&self.source, number)).collect()
    }

    /// The map of a file that has one.
    pub(crate) fn map(&self, inode: &Inode) -> Result<ChunkMap, ImageError> {
        let bits = (inode.union & 0x1f) as u8;
        if inode.union & 0xffff & !(0x1f | CHUNK_INDEXES) != 0 || bits > CHUNK_BITS {
            return Err(ImageError::Unknown("another form of chunks"));
        }
        let unit = if inode.union & CHUNK_INDEXES == 0 { 4 } else { 8 };
        let behind = inode.body.0 + inode.body.1;
        Ok(ChunkMap { chunk: self.block << bits, at: behind.next_multiple_of(unit), unit })
    }

    /// Where the block of a file's data at `at` lies; none in a hole.
    pub(crate) fn place(&self, inode: &Inode, at: u64) -> Result<Option<u64>, ImageError> {
        let behind = inode.body.0 + inode.body.1;
        let flat = || u64::from(inode.union) * self.block + at;
        Ok(match inode.layout {
            0 => Some(flat()),
            2 if inode.size - at < self.block => {
                let tail = inode.size - at;
                if behind % self.block + tail > self.block {
                    return Err(ImageError::Damaged("data behind an inode lies across blocks"));
                }
                Some(behind)
            }
            2 => Some(flat()),
            4 => {
                let map = self.map(inode)?;
                let start = map.start(&self.source, at / map.chunk)?;
                (start != HOLE).then(|| u64::from(start) * self.block + at % map.chunk)
            }
            _ => return Err(ImageError::Unknown("compression")),
        })
    }
}

/// The table that tells where a file's chunks are.
pub(crate) struct ChunkMap {
    /// Bytes of a chunk.
    pub(crate) chunk: u64,
    /// Where the table begins, and the bytes of one number in it.
    pub(crate) at: u64,
    pub(crate) unit: u64,
}

impl ChunkMap {
    /// The first block of a chunk, or [`HOLE`].
    pub(crate) fn start(&self, source: &impl ReadAt, number: u64) -> Result<u32, ImageError> {
        let mut entry = [0; 8];
        let entry = &mut entry[..self.unit as usize];
        read(source, entry, self.at + self.unit * number)?;
        match entry {
            [_, _, device_low, device_high, start @ ..] if self.unit == 8 => {
                if (*device_low, *device_high) != (0, 0) {
                    return Err(ImageError::Damaged("a chunk is on a device that there is none of"));
                }
                Ok(self::number(start, 0, 4) as u32)
            }
            start => Ok(self::number(start, 0, 4) as u32),
        }
    }
}

pub(crate) fn read(source: &impl ReadAt, buffer: &mut [u8], offset: u64) -> Result<(), ImageError> {
    source.read_exact_at(buffer, offset).map_err(|source| ImageError::Read { offset, source })
}

/// The little-endian number of up to eight bytes at a place that the caller knows to be there.
fn number(bytes: &[u8], at: usize, length: usize) -> u64 {
    bytes[at..at + length].iter().rev().fold(0, |number, byte| number << 8 | u64::from(*byte))
}

/// One attribute with its full name, and what follows it.
fn xattr(bytes: &[u8]) -> Option<(Xattr, &[u8])> {
    let head = bytes.get(..4)?;
    let (name_length, value_length) = (usize::from(head[0]), number(head, 2, 2) as usize);
    let name = bytes.get(4..4 + name_length)?;
    let value = bytes.get(4 + name_length..4 + name_length + value_length)?;
    let rest = bytes.get((4 + name_length + value_length).next_multiple_of(4)..).unwrap_or_default();
    Some((([prefix(head[1])?, name].concat(), value.to_vec()), rest))
}

/// The entries of one block of a directory.
pub(crate) fn entries(block: &[u8], all: &mut Vec<Listed>) -> Option<()> {
    let first = usize::from(u16::from_le_bytes(block.get(8..10)?.try_into().ok()?));
    if first < ENTRY || !first.is_multiple_of(ENTRY) {
        return None;
    }
    let heads = block.get(..first)?;
    let offset = |head: &[u8]| number(head, 8, 2) as usize;
    for (index, head) in heads.chunks_exact(ENTRY).enumerate() {
        let next = heads.get((index + 1) * ENTRY..(index + 2) * ENTRY);
        let mut name = block.get(offset(head)..next.map_or(block.len(), offset))?;
        if next.is_none() {
            // The last name ends with the block, or before with a NUL.
            name = name.split(|byte| *byte == 0).next()?;
        }
        if name.is_empty() || name.len() > NAME || name.contains(&0) {
            return None;
        }
        all.push(Listed { name: name.to_vec(), number: number(head, 0, 8), kind: head[10] });
    }
    Some(())
}
