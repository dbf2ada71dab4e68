//! The directory that nothing leaves.

use std::collections::VecDeque;
use std::ffi::{OsStr, OsString};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Component, Path};
use std::sync::Arc;

use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

use super::entry::Entry;
use super::parents::Parents;

/// Symlinks followed while missing parents are made, as many as the kernel follows.
const MAX_LINKS: usize = 40;

/// Tries of an `openat2` that reports a race with a rename (`EAGAIN`).
const MAX_RACES: usize = 128;

const DIRECTORY: OFlags = OFlags::PATH.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC);

/// A directory; every path given to it is resolved inside it. See the [module](super).
///
/// It remembers the parents it resolved last. Removal and renaming through it (or its entries) forget
/// them; if another process changes directories meanwhile, an operation may still land in the directory
/// that the path meant before, which is never one outside the root.
#[derive(Debug)]
pub struct Root {
    fd: Arc<OwnedFd>,
    parents: Parents,
}

impl Root {
    /// Opens the host directory `path` (following links: the caller vouches for it).
    pub fn open(path: &Path) -> io::Result<Self> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        Ok(Self::from_fd(rustix::fs::openat(CWD, path, flags, Mode::empty())?))
    }

    /// Takes an open directory as the root.
    pub fn from_fd(fd: OwnedFd) -> Self {
        Self { fd: Arc::new(fd), parents: Parents::default() }
    }

    /// The root's own descriptor.
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    /// Finds the place that `path` names; its parent must exist, the place itself need not.
    ///
    /// A last component of `..` is refused with `EINVAL`; an empty path, `/` and `.` mean the root itself.
    pub fn entry(&self, path: &Path) -> io::Result<Entry<'_>> {
        let (parent, name) = split(path)?;
        Ok(Entry::new(self, self.parent(parent)?, name))
    }

    /// As [`Root::entry`], and makes the missing parents with mode 0755.
    ///
    /// `made` sees each new directory: its path below the root with all links resolved, and a descriptor
    /// for reading it.
    pub fn entry_making_parents(
        &self,
        path: &Path,
        made: &mut dyn FnMut(&Path, BorrowedFd<'_>) -> io::Result<()>,
    ) -> io::Result<Entry<'_>> {
        let (parent, name) = split(path)?;
        let fd = match self.parent(parent) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => self.make_parents(parent, made)?,
            found => found?,
        };
        Ok(Entry::new(self, fd, name))
    }

    /// Makes the directory `path` and all missing parents (mode 0755); an existing directory is fine.
    pub fn make_dirs(&self, path: &Path) -> io::Result<OwnedFd> {
        let made: &mut dyn FnMut(&Path, BorrowedFd<'_>) -> io::Result<()> = &mut |_, _| Ok(());
        let fd = self.make_parents(path, made)?;
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        Ok(rustix::fs::openat(&*fd, c".", flags, Mode::empty())?)
    }

    /// Opens `path`, following links inside the root, with `flags` (and `mode` for a new file).
    pub fn open_file(&self, path: &Path, flags: OFlags, mode: Mode) -> io::Result<OwnedFd> {
        self.resolve(path, flags | OFlags::CLOEXEC, mode)
    }

    /// As [`Root::open_file`], and refuses a path with a link in it (`ELOOP`) or one that leads out (`EXDEV`).
    pub fn open_file_without_links(&self, path: &Path, flags: OFlags, mode: Mode) -> io::Result<OwnedFd> {
        self.open_resolved(
            path,
            flags | OFlags::CLOEXEC,
            mode,
            ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS,
        )
    }

    /// Forgets the remembered parents, after somebody else changed directories below the root.
    pub fn forget(&self) {
        self.parents.clear();
    }

    fn parent(&self, parent: &Path) -> io::Result<Arc<OwnedFd>> {
        if parent.as_os_str().is_empty() {
            return Ok(Arc::clone(&self.fd));
        }
        if let Some(fd) = self.parents.find(parent) {
            return Ok(fd);
        }
        let fd = Arc::new(self.resolve(parent, DIRECTORY, Mode::empty())?);
        self.parents.keep(parent, &fd);
        Ok(fd)
    }

    fn resolve(&self, path: &Path, flags: OFlags, mode: Mode) -> io::Result<OwnedFd> {
        self.open_resolved(path, flags, mode, ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS)
    }

    fn open_resolved(
        &self,
        path: &Path,
        flags: OFlags,
        mode: Mode,
        resolve: ResolveFlags,
    ) -> io::Result<OwnedFd> {
        let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
        for _ in 0..MAX_RACES {
            match rustix::fs::openat2(&*self.fd, path, flags, mode, resolve) {
                Err(Errno::AGAIN | Errno::INTR) => {}
                done => return Ok(done?),
            }
        }
        Err(Errno::AGAIN.into())
    }

    /// Walks `path` one component at a time, making what is missing. The walk keeps its own stack of
    /// descriptors, so that `..` and absolute links stay inside whatever else happens on disk.
    fn make_parents(
        &self,
        path: &Path,
        made: &mut dyn FnMut(&Path, BorrowedFd<'_>) -> io::Result<()>,
    ) -> io::Result<Arc<OwnedFd>> {
        let mut walk = Walk { root: self, stack: Vec::new(), pending: VecDeque::new(), links: 0 };
        walk.prepend(path);
        while let Some(name) = walk.pending.pop_front() {
            walk.step(name, made)?;
        }
        Ok(walk.current())
    }
}

struct Walk<'r> {
    root: &'r Root,
    stack: Vec<(OsString, Arc<OwnedFd>)>,
    pending: VecDeque<OsString>,
    links: usize,
}

impl Walk<'_> {
    fn current(&self) -> Arc<OwnedFd> {
        self.stack.last().map_or_else(|| Arc::clone(&self.root.fd), |(_, fd)| Arc::clone(fd))
    }

    fn prepend(&mut self, path: &Path) {
        if path.has_root() {
            self.stack.clear();
        }
        for component in path.components().rev() {
            match component {
                Component::Normal(name) => self.pending.push_front(name.to_owned()),
                Component::ParentDir => self.pending.push_front(OsString::from("..")),
                Component::RootDir | Component::CurDir | Component::Prefix(_) => {}
            }
        }
    }

    fn step(
        &mut self,
        name: OsString,
        made: &mut dyn FnMut(&Path, BorrowedFd<'_>) -> io::Result<()>,
    ) -> io::Result<()> {
        if name == ".." {
            self.stack.pop();
            return Ok(());
        }
        let at = self.current();
        match rustix::fs::openat(&*at, &name, DIRECTORY | OFlags::NOFOLLOW, Mode::empty()) {
            Ok(fd) => self.stack.push((name, Arc::new(fd))),
            Err(Errno::NOENT) => self.make(&at, name, made)?,
            Err(Errno::NOTDIR | Errno::LOOP) => self.follow(&at, &name)?,
            Err(error) => return Err(error.into()),
        }
        Ok(())
    }

    fn make(
        &mut self,
        at: &OwnedFd,
        name: OsString,
        made: &mut dyn FnMut(&Path, BorrowedFd<'_>) -> io::Result<()>,
    ) -> io::Result<()> {
        match rustix::fs::mkdirat(at, &name, Mode::RWXU) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(error) => return Err(error.into()),
        }
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let fd = rustix::fs::openat(at, &name, flags, Mode::empty())?;
        // The process's umask must not decide what an image looks like.
        rustix::fs::fchmod(&fd, Mode::from_raw_mode(0o755))?;
        self.stack.push((name, Arc::new(fd)));
        let path: std::path::PathBuf = self.stack.iter().map(|(name, _)| name).collect();
        made(&path, self.current().as_fd())
    }

    fn follow(&mut self, at: &OwnedFd, name: &OsStr) -> io::Result<()> {
        let stat = rustix::fs::statat(at, name, AtFlags::SYMLINK_NOFOLLOW)?;
        if FileType::from_raw_mode(stat.st_mode) != FileType::Symlink {
            return Err(Errno::NOTDIR.into());
        }
        self.links += 1;
        if self.links > MAX_LINKS {
            return Err(Errno::LOOP.into());
        }
        let target = rustix::fs::readlinkat(at, name, Vec::new())?;
        self.prepend(Path::new(&OsString::from_vec(target.into_bytes())));
        Ok(())
    }
}

/// Splits into parent and last name; an empty name stands for the root itself.
fn split(path: &Path) -> io::Result<(&Path, &OsStr)> {
    let bytes = trim(path.as_os_str().as_bytes());
    let (parent, name) = match bytes.iter().rposition(|byte| *byte == b'/') {
        Some(slash) => (trim(&bytes[..slash]), &bytes[slash + 1..]),
        None => (&bytes[..0], bytes),
    };
    match name {
        b".." => Err(Errno::INVAL.into()),
        b"." if parent.is_empty() => Ok((Path::new(""), OsStr::new(""))),
        b"." => split(Path::new(OsStr::from_bytes(parent))),
        name => Ok((Path::new(OsStr::from_bytes(parent)), OsStr::from_bytes(name))),
    }
}

fn trim(mut bytes: &[u8]) -> &[u8] {
    while let [b'/', rest @ ..] = bytes {
        bytes = rest;
    }
    while let [rest @ .., b'/'] = bytes {
        bytes = rest;
    }
    bytes
}
