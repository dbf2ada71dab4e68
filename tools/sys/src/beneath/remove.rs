//! Recursive removal by directory descriptors.

use std::ffi::{CString, OsStr};
use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};

use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags};
use rustix::io::Errno;

/// Directories held open at once. What lies deeper is moved to the top first, so that a tree of any depth
/// is removed with a bounded number of descriptors.
const MAX_DEPTH: usize = 64;

/// Removes `name` in `parent` with everything below it; nothing being there is fine.
pub(super) fn remove_tree(parent: BorrowedFd<'_>, name: &OsStr) -> io::Result<()> {
    match rustix::fs::unlinkat(parent, name, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => return Ok(()),
        Err(Errno::ISDIR | Errno::PERM) => {}
        Err(error) => return Err(error.into()),
    }
    let top = match open_dir(parent, name) {
        Err(Errno::NOENT) => return Ok(()),
        opened => opened?,
    };
    Removal { top: &top, moved: 0 }.empty()?;
    match rustix::fs::unlinkat(parent, name, AtFlags::REMOVEDIR) {
        Ok(()) | Err(Errno::NOENT) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

struct Removal<'t> {
    top: &'t OwnedFd,
    moved: u64,
}

impl Removal<'_> {
    /// Empties the top directory. Repeats while deep directories were moved up into it.
    fn empty(mut self) -> io::Result<()> {
        loop {
            let before = self.moved;
            self.empty_dir(self.top, 0)?;
            if self.moved == before {
                return Ok(());
            }
        }
    }

    fn empty_dir(&mut self, dir: &OwnedFd, depth: usize) -> io::Result<()> {
        for (name, kind) in list(dir)? {
            if kind != FileType::Directory && unlink(dir, &name, AtFlags::empty())? {
                continue;
            }
            if depth >= MAX_DEPTH {
                self.move_up(dir, &name)?;
                continue;
            }
            match open_dir(dir, &name) {
                Ok(child) => self.empty_dir(&child, depth + 1)?,
                Err(Errno::NOENT) => continue,
                Err(error) => return Err(error.into()),
            }
            unlink(dir, &name, AtFlags::REMOVEDIR)?;
        }
        Ok(())
    }

    fn move_up(&mut self, dir: &OwnedFd, name: &CString) -> io::Result<()> {
        loop {
            self.moved += 1;
            let target = format!(".berth-removing-{}", self.moved);
            let flags = rustix::fs::RenameFlags::NOREPLACE;
            match rustix::fs::renameat_with(dir, name, self.top, target, flags) {
                Err(Errno::EXIST) => {}
                Ok(()) | Err(Errno::NOENT) => return Ok(()),
                Err(error) => return Err(error.into()),
            }
        }
    }
}

fn open_dir<F: std::os::fd::AsFd, N: rustix::path::Arg>(at: F, name: N) -> Result<OwnedFd, Errno> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::openat(at, name, flags, Mode::empty())
}

/// Lists a directory whole before anything in it is removed: removal while reading may skip names.
fn list(dir: &OwnedFd) -> io::Result<Vec<(CString, FileType)>> {
    let mut names = Vec::new();
    for item in Dir::read_from(dir)? {
        let item = item?;
        if item.file_name() != c"." && item.file_name() != c".." {
            names.push((item.file_name().to_owned(), item.file_type()));
        }
    }
    Ok(names)
}

/// Answers whether the name is gone; `false` when it turned out to be a directory.
fn unlink(dir: &OwnedFd, name: &CString, flags: AtFlags) -> io::Result<bool> {
    match rustix::fs::unlinkat(dir, name, flags) {
        Ok(()) | Err(Errno::NOENT) => Ok(true),
        Err(Errno::ISDIR | Errno::PERM) if flags.is_empty() => Ok(false),
        // Directories moved up from below are emptied in the next round.
        Err(Errno::NOTEMPTY) => Ok(true),
        Err(error) => Err(error.into()),
    }
}
