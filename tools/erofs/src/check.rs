//! Looking through an image that somebody else has made, before the kernel does.
//!
//! The kernel's driver reads an image as it goes, with the kernel's rights, and what it makes of one that no tool would
//! write is for its authors to say. So all that it would ever follow is followed here first: every inode that a name
//! leads to, its attributes, its directory entries and where its data lies. The tree has to be one, the names in the
//! order in which they are searched for, and nothing may lie outside of the file.
//!
//! What is compressed is looked at from outside only: where it begins. The rest is between kernel and decompressor.

use std::collections::{HashMap, VecDeque};

use crate::format::{
    BLOCK_DEVICE, CHARACTER, DIRECTORY, FIFO, HOLE, INCOMPAT_CHUNKS, INCOMPAT_COMPRESSION, REGULAR, SOCKET,
    SYMLINK, TYPE, entry_type,
};
use crate::image::{Image, ImageError, Inode, Listed, ReadAt, entries, read};

/// Names at most, and directories that wait to be looked at.
const MAX_NAMES: u64 = 20_000_000;
/// Entries of all maps of chunks at most.
const MAX_CHUNKS: u64 = 1 << 26;
/// Bytes of all extended attributes at most: files may share them.
const MAX_XATTRS: u64 = 1 << 30;
/// Bytes of a symbolic link's text.
const LINK: u64 = 4095;

/// What an image turned out to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Checked {
    /// Names in it, those of directories once.
    pub names: u64,
    /// Whether it has compressed files, whose data was not looked at.
    pub compressed: bool,
}

/// Follows all that the kernel would follow in an image of `length` bytes.
///
/// Refused are images that are damaged or lie, and those with anything that cannot be looked through: further devices,
/// compressed metadata, prefixes of attributes' names. So are overlayfs' notes, but for the ones that hide a lower file:
/// a layer of somebody else may not point into others. Blocking; takes memory by the number of files.
pub fn check(source: impl ReadAt, length: u64) -> Result<Checked, ImageError> {
    let image = Image::open_with(source, INCOMPAT_CHUNKS | INCOMPAT_COMPRESSION)?;
    if image.blocks.checked_mul(image.block).is_none_or(|bytes| bytes > length) {
        return Err(ImageError::Damaged("it is shorter than it says"));
    }
    let mut check = Check {
        image,
        length,
        seen: Seen::default(),
        waiting: VecDeque::new(),
        done: Checked { names: 0, compressed: false },
        chunks: 0,
        xattrs: 0,
    };
    let root = check.image.root();
    if !check.inode(root)?.is_directory() {
        return Err(ImageError::Damaged("its root is no directory"));
    }
    check.waiting.push_back((root, root));
    while let Some((directory, parent)) = check.waiting.pop_front() {
        check.directory(directory, parent)?;
    }
    Ok(check.done)
}

struct Check<R> {
    image: Image<R>,
    length: u64,
    seen: Seen,
    /// Directories, and the ones that they are in.
    waiting: VecDeque<(u64, u64)>,
    done: Checked,
    chunks: u64,
    xattrs: u64,
}

impl<R: ReadAt> Check<R> {
    /// Looks at an inode the first time that it is met, and reads it.
    fn inode(&mut self, id: u64) -> Result<Inode, ImageError> {
        let inode = self.image.inode(id)?;
        if !self.seen.add(id) {
            return Ok(inode);
        }
        let kind = inode.mode & TYPE;
        if entry_type(inode.mode) == 0 {
            return Err(ImageError::Damaged("a file is of no kind"));
        }
        self.attributes(&inode, kind)?;
        match kind {
            REGULAR => self.data(&inode)?,
            DIRECTORY | SYMLINK if inode.layout == 1 || inode.layout == 3 => {
                return Err(ImageError::Unknown("compressed directories"));
            }
            DIRECTORY => self.data(&inode)?,
            SYMLINK if inode.size == 0 || inode.size > LINK => {
                return Err(ImageError::Damaged("a symbolic link has 1 to 4095 bytes"));
            }
            SYMLINK if inode.layout == 2 && inode.size >= self.image.block => {
                return Err(ImageError::Damaged("a symbolic link is behind its inode and in a block"));
            }
            SYMLINK => {
                self.data(&inode)?;
                let mut text = Vec::new();
                self.image.read(&inode, &mut text)?;
                if text.contains(&0) {
                    return Err(ImageError::Damaged("a symbolic link has a NUL in it"));
                }
            }
            CHARACTER | BLOCK_DEVICE | FIFO | SOCKET if inode.size != 0 => {
                return Err(ImageError::Damaged("a device, pipe or socket has data"));
            }
            _ => {}
        }
        Ok(inode)
    }

    fn attributes(&mut self, inode: &Inode, kind: u16) -> Result<(), ImageError> {
        let xattrs = self.image.xattrs(inode)?;
        for (name, value) in &xattrs {
            self.xattrs += (name.len() + value.len()) as u64;
            let note = name.strip_prefix(b"trusted.overlay.").or_else(|| name.strip_prefix(b"user.overlay."));
            let hides =
                kind == DIRECTORY && (note == Some(b"opaque") && **value == *b"y" || note == Some(b"origin"));
            if note.is_some() && !hides {
                return Err(ImageError::Damaged("a file has notes of overlayfs that no layer needs"));
            }
        }
        if self.xattrs > MAX_XATTRS {
            return Err(ImageError::Damaged("its extended attributes are too many"));
        }
        Ok(())
    }

    /// Looks whether all of a file's data is inside of the image.
    fn data(&mut self, inode: &Inode) -> Result<(), ImageError> {
        let outside = ImageError::Damaged("data lies outside of the image");
        let block = self.image.block;
        let behind = inode.body.0 + inode.body.1;
        let (flat, tail) = match inode.layout {
            0 => (inode.size, 0),
            2 => (inode.size - inode.size % block, inode.size % block),
            1 | 3 if inode.size == 0 => (0, 0),
            1 | 3 => {
                self.done.compressed = true;
                // The header, and at least one entry of what follows.
                return if behind.next_multiple_of(8) + 16 <= self.length { Ok(()) } else { Err(outside) };
            }
            4 => return self.map(inode),
            _ => return Err(ImageError::Unknown("another layout of data")),
        };
        if inode.layout == 2 && inode.size > 0 && tail == 0 {
            return Err(ImageError::Damaged("nothing of a file is behind its inode"));
        }
        let start = u64::from(inode.union) * block;
        if flat > 0 && start.checked_add(flat).is_none_or(|end| end > self.length) {
            return Err(outside);
        }
        if tail > 0 && (behind % block + tail > block || behind + tail > self.length) {
            return Err(outside);
        }
        Ok(())
    }

    fn map(&mut self, inode: &Inode) -> Result<(), ImageError> {
        let map = self.image.map(inode)?;
        let count = inode.size.div_ceil(map.chunk);
        let table = count.checked_mul(map.unit).and_then(|bytes| bytes.checked_add(map.at));
        if table.is_none_or(|end| end > self.length) {
            return Err(ImageError::Damaged("a map of chunks lies outside of the image"));
        }
        self.chunks += count;
        if self.chunks > MAX_CHUNKS {
            return Err(ImageError::Damaged("its maps of chunks are too many"));
        }
        for number in 0..count {
            let start = map.start(&self.image.source, number)?;
            let length = map.chunk.min(inode.size - number * map.chunk);
            if start != HOLE && u64::from(start) * self.image.block + length > self.length {
                return Err(ImageError::Damaged("data lies outside of the image"));
            }
        }
        Ok(())
    }

    /// Looks through a directory, whose inode was looked at.
    fn directory(&mut self, id: u64, parent: u64) -> Result<(), ImageError> {
        let inode = self.image.inode(id)?;
        let (mut last, mut own): (Vec<u8>, _) = (Vec::new(), 0);
        let mut block = vec![0; self.image.block as usize];
        let mut at = 0;
        while at < inode.size {
            let length = (inode.size - at).min(self.image.block) as usize;
            let place = self.image.place(&inode, at)?;
            let place = place.ok_or(ImageError::Damaged("a directory has holes"))?;
            read(&self.image.source, &mut block[..length], place)?;
            let mut items = Vec::new();
            entries(&block[..length], &mut items)
                .ok_or(ImageError::Damaged("a directory's entries overlap"))?;
            for item in items {
                if item.name <= last {
                    return Err(ImageError::Damaged("the names of a directory are not in order"));
                }
                own += self.entry(&item, (id, parent))?;
                last = item.name;
            }
            at += length as u64;
        }
        if own == 2 {
            Ok(())
        } else {
            Err(ImageError::Damaged("a directory does not name itself and its parent"))
        }
    }

    /// Looks at one entry of a directory, and tells whether it is one of the two that every directory has.
    fn entry(&mut self, item: &Listed, (id, parent): (u64, u64)) -> Result<u32, ImageError> {
        let own = match &*item.name {
            b"." => Some(id),
            b".." => Some(parent),
            _ => None,
        };
        if let Some(wanted) = own {
            if item.number != wanted {
                return Err(ImageError::Damaged("a directory is not where its parent says"));
            }
            return Ok(1);
        }
        if item.name.contains(&b'/') {
            return Err(ImageError::Damaged("a name has a slash in it"));
        }
        self.done.names += 1;
        if self.done.names > MAX_NAMES {
            return Err(ImageError::Damaged("its names are too many"));
        }
        let known = self.seen.has(item.number);
        let inode = self.inode(item.number)?;
        if entry_type(inode.mode) != item.kind {
            return Err(ImageError::Damaged("a name and its file are of different kinds"));
        }
        if inode.is_directory() {
            if known {
                return Err(ImageError::Damaged("a directory has two names"));
            }
            self.waiting.push_back((item.number, id));
        }
        Ok(0)
    }
}

/// Numbers of inodes, kept as bits: a page for each that are near one another.
#[derive(Default)]
struct Seen(HashMap<u64, Box<[u64; 64]>>);

impl Seen {
    fn place(number: u64) -> (u64, usize, u64) {
        (number >> 12, (number >> 6 & 63) as usize, 1 << (number & 63))
    }

    fn has(&self, number: u64) -> bool {
        let (page, word, bit) = Self::place(number);
        self.0.get(&page).is_some_and(|words| words[word] & bit != 0)
    }

    /// Adds one, and tells whether it is new.
    fn add(&mut self, number: u64) -> bool {
        let (page, word, bit) = Self::place(number);
        let words = self.0.entry(page).or_insert_with(|| Box::new([0; 64]));
        let new = words[word] & bit == 0;
        words[word] |= bit;
        new
    }
}
