//! Paths inside the container's root, found and made without leaving it.

use std::ffi::CStr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{FileType, Mode, OFlags, ResolveFlags};
use rustix::io::{Errno, Result};

/// Depth of directories that can be made.
const MAX_DEPTH: usize = 64;
/// Symlinks followed while missing parts are made, as many as the kernel follows.
const MAX_LINKS: usize = 40;
/// A path and the links in it, as far as they are still ahead.
const PENDING: usize = 8192;
/// Links of procfs that are no magic ones.
const PLAIN_LINKS: [&CStr; 4] = [c"self", c"thread-self", c"net", c"mounts"];
/// Tries when a rename races with the resolution.
const MAX_RACES: usize = 128;

const PLACE: OFlags = OFlags::PATH.union(OFlags::CLOEXEC);

/// What the last component shall be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Leaf {
    /// A directory.
    Directory,
    /// Anything that is no directory; a regular file is made.
    File,
}

/// Opens what exists at `path`, following links inside `root`, never magic ones.
pub(super) fn find(root: BorrowedFd<'_>, path: &CStr, flags: OFlags) -> Result<OwnedFd> {
    find_with(root, path, flags, ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS)
}

/// Opens what exists at `path` when no link at all leads there.
pub(super) fn find_plain(root: BorrowedFd<'_>, path: &CStr, flags: OFlags) -> Result<OwnedFd> {
    find_with(root, path, flags, ResolveFlags::IN_ROOT | ResolveFlags::NO_SYMLINKS)
}

fn find_with(root: BorrowedFd<'_>, path: &CStr, flags: OFlags, how: ResolveFlags) -> Result<OwnedFd> {
    let path = if path.is_empty() { c"." } else { path };
    for _ in 0..MAX_RACES {
        match rustix::fs::openat2(root, path, flags | OFlags::CLOEXEC, Mode::empty(), how) {
            Err(Errno::AGAIN | Errno::INTR) => {}
            done => return done,
        }
    }
    Err(Errno::AGAIN)
}

/// Opens `path` as a place (`O_PATH`), and makes what is missing: directories with mode 0755, and an
/// empty file when the last one shall be a file.
pub(super) fn find_or_make(root: BorrowedFd<'_>, path: &CStr, leaf: Leaf) -> Result<OwnedFd> {
    match find(root, path, PLACE) {
        Err(Errno::NOENT) => Walk::new(path)?.run(root, leaf),
        done => done,
    }
}

/// Opens the directory that `path` lies in, making what is missing; and the last name.
pub(super) fn parent_of<'p>(root: BorrowedFd<'_>, path: &'p CStr) -> Result<(OwnedFd, &'p CStr)> {
    let bytes = path.to_bytes_with_nul();
    let Some(slash) = path.to_bytes().iter().rposition(|b| *b == b'/') else {
        return Ok((find(root, c".", PLACE | OFlags::DIRECTORY)?, path));
    };
    let mut buffer = [0u8; libc::PATH_MAX as usize];
    let parent = bytes.get(..slash).unwrap_or_default();
    let Some(slot) = buffer.get_mut(..slash) else { return Err(Errno::NAMETOOLONG) };
    slot.copy_from_slice(parent);
    let parent = CStr::from_bytes_until_nul(&buffer).map_err(|_| Errno::NAMETOOLONG)?;
    let name = CStr::from_bytes_with_nul(bytes.get(slash + 1..).unwrap_or_default());
    Ok((find_or_make(root, parent, Leaf::Directory)?, name.map_err(|_| Errno::INVAL)?))
}

/// A walk along a path, one component at a time by descriptor. It keeps its own stack of directories,
/// so that `..` and absolute links stay inside whatever else happens on disk; it never follows a link
/// but reads it.
struct Walk {
    /// What is still ahead, at the end of the buffer.
    pending: [u8; PENDING],
    start: usize,
    stack: [Option<OwnedFd>; MAX_DEPTH],
    depth: usize,
    links: usize,
}

impl Walk {
    fn new(path: &CStr) -> Result<Self> {
        let stack = [const { None }; MAX_DEPTH];
        let mut walk = Self { pending: [0; PENDING], start: PENDING, stack, depth: 0, links: 0 };
        walk.prepend(path.to_bytes())?;
        Ok(walk)
    }

    fn prepend(&mut self, path: &[u8]) -> Result<()> {
        let needed = path.len() + 1;
        if needed > self.start {
            return Err(Errno::NAMETOOLONG);
        }
        if let Some(slash) = self.pending.get_mut(self.start - 1) {
            *slash = b'/';
        }
        self.start -= needed;
        if let Some(slot) = self.pending.get_mut(self.start..self.start + path.len()) {
            slot.copy_from_slice(path);
        }
        Ok(())
    }

    /// Takes the next component into `name`; its length, and whether it is the last one.
    fn next(&mut self, name: &mut [u8; 256]) -> Result<Option<(usize, bool)>> {
        let is_slash = |b: &u8| *b == b'/';
        let ahead = self.pending.get(self.start..).unwrap_or_default();
        let skipped = ahead.iter().position(|b| !is_slash(b)).unwrap_or(ahead.len());
        let ahead = ahead.get(skipped..).unwrap_or_default();
        let length = ahead.iter().position(is_slash).unwrap_or(ahead.len());
        if length == 0 {
            return Ok(None);
        }
        let Some(slot) = name.get_mut(..length) else { return Err(Errno::NAMETOOLONG) };
        slot.copy_from_slice(ahead.get(..length).unwrap_or_default());
        let Some(end) = name.get_mut(length) else { return Err(Errno::NAMETOOLONG) };
        *end = 0;
        let last = ahead.iter().skip(length).all(is_slash);
        self.start += skipped + length;
        Ok(Some((length, last)))
    }

    fn run(mut self, root: BorrowedFd<'_>, leaf: Leaf) -> Result<OwnedFd> {
        let mut name = [0u8; 256];
        while let Some((length, last)) = self.next(&mut name)? {
            let text = name.get(..=length).unwrap_or_default();
            let text = CStr::from_bytes_with_nul(text).map_err(|_| Errno::INVAL)?;
            match text.to_bytes() {
                b"." => {}
                b".." => self.pop(),
                _ => {
                    let leaf = if last { leaf } else { Leaf::Directory };
                    if let Some(file) = self.step(root, text, leaf, last)? {
                        return Ok(file);
                    }
                }
            }
        }
        match self.pop_top() {
            Some(directory) => Ok(directory),
            None => find(root, c".", PLACE),
        }
    }

    fn pop(&mut self) {
        drop(self.pop_top());
    }

    fn pop_top(&mut self) -> Option<OwnedFd> {
        self.depth = self.depth.checked_sub(1)?;
        self.stack.get_mut(self.depth)?.take()
    }

    fn push(&mut self, directory: OwnedFd) -> Result<()> {
        let Some(slot) = self.stack.get_mut(self.depth) else { return Err(Errno::NAMETOOLONG) };
        *slot = Some(directory);
        self.depth += 1;
        Ok(())
    }

    fn current<'a>(&'a self, root: BorrowedFd<'a>) -> BorrowedFd<'a> {
        let top = self.depth.checked_sub(1).and_then(|top| self.stack.get(top));
        top.and_then(Option::as_ref).map_or(root, AsFd::as_fd)
    }

    /// One component: a directory is entered, a link's text goes ahead, what is missing is made.
    fn step(&mut self, root: BorrowedFd<'_>, name: &CStr, leaf: Leaf, last: bool) -> Result<Option<OwnedFd>> {
        let at = self.current(root);
        let found = match rustix::fs::openat(at, name, PLACE | OFlags::NOFOLLOW, Mode::empty()) {
            Err(Errno::NOENT) => Self::make(at, name, leaf)?,
            done => done?,
        };
        match FileType::from_raw_mode(rustix::fs::fstat(&found)?.st_mode) {
            FileType::Directory => self.push(found)?,
            // Links such as /proc/self/fd/7 lead where their text does not say.
            FileType::Symlink
                if filesystem(&found)? == super::rootfs::PROCFS && !PLAIN_LINKS.contains(&name) =>
            {
                return Err(Errno::LOOP);
            }
            FileType::Symlink => self.follow(root, name)?,
            _ if last => return Ok(Some(found)),
            _ => return Err(Errno::NOTDIR),
        }
        Ok(None)
    }

    fn make(at: BorrowedFd<'_>, name: &CStr, leaf: Leaf) -> Result<OwnedFd> {
        let made = match leaf {
            Leaf::Directory => rustix::fs::mkdirat(at, name, Mode::from_raw_mode(0o755)),
            Leaf::File => {
                let mode = Mode::from_raw_mode(0o755);
                rustix::fs::mknodat(at, name, FileType::RegularFile, mode, 0)
            }
        };
        match made {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(errno) => return Err(errno),
        }
        rustix::fs::openat(at, name, PLACE | OFlags::NOFOLLOW, Mode::empty())
    }

    fn follow(&mut self, root: BorrowedFd<'_>, name: &CStr) -> Result<()> {
        self.links += 1;
        if self.links > MAX_LINKS {
            return Err(Errno::LOOP);
        }
        let mut target = [std::mem::MaybeUninit::<u8>::uninit(); libc::PATH_MAX as usize];
        let (target, _) = rustix::fs::readlinkat_raw(self.current(root), name, &mut target)?;
        let absolute = target.first() == Some(&b'/');
        if absolute {
            while self.depth > 0 {
                self.pop();
            }
        }
        self.prepend(target)
    }
}

/// The magic number of the filesystem that `fd` lies on.
pub(super) fn filesystem(fd: impl AsFd) -> Result<i64> {
    // Not fstatfs' own type: it differs between architectures.
    Ok(rustix::fs::fstatfs(fd)?.f_type as i64)
}

/// Whether two descriptors are of the same file.
pub(super) fn same(a: impl AsFd, b: impl AsFd) -> Result<bool> {
    let (a, b) = (rustix::fs::fstat(a)?, rustix::fs::fstat(b)?);
    Ok((a.st_dev, a.st_ino) == (b.st_dev, b.st_ino))
}

#[cfg(test)]
mod tests;
