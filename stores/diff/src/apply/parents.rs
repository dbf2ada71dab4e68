//! Folders that a layer uses without telling what they are like.
//!
//! In an overlay's upper folder such a one hides the attributes of the lower folder of its name, so it
//! gets them. Anywhere else it is new, and root's with mode 0755.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use berth_sys::beneath::Root;
use rustix::fs::{FileType, Gid, Mode, OFlags, Timespec, Timestamps, Uid};
use rustix::io::Errno;

use super::unpack::Unpack;
use super::whiteout::is_mark;
use crate::mounted::{Apart, Whiteouts};
use crate::xattr;

/// The folders below an upper one, nearest first, each opened when first needed.
pub(crate) struct Lowers {
    paths: Vec<PathBuf>,
    opened: Vec<Root>,
    apart: Apart,
    /// What needed them when they were not known.
    pub(crate) missed: Option<PathBuf>,
}

impl Lowers {
    pub(crate) fn of(whiteouts: &Whiteouts) -> Self {
        let (paths, apart) = match whiteouts {
            Whiteouts::Overlay { lowers, apart, .. } => (lowers.clone(), *apart),
            Whiteouts::Remove => (Vec::new(), Apart::No),
        };
        Self { paths, opened: Vec::new(), apart, missed: None }
    }

    /// Fails where the folders are not known and nothing may be guessed.
    pub(crate) fn need(&mut self, path: &Path) -> io::Result<()> {
        if self.apart != Apart::Refuse {
            return Ok(());
        }
        self.missed = Some(path.to_owned());
        Err(io::Error::other("the layers below are not here yet"))
    }

    fn root(&mut self, number: usize) -> io::Result<Option<&Root>> {
        if number >= self.paths.len() {
            return Ok(None);
        }
        while self.opened.len() <= number {
            self.opened.push(Root::open(&self.paths[self.opened.len()])?);
        }
        Ok(self.opened.get(number))
    }

    /// The directory at `path` in the nearest folder that has something there; none if that is no directory, or a mark
    /// that nothing is.
    pub(crate) fn directory(&mut self, path: &Path) -> io::Result<Option<OwnedFd>> {
        let mut number = 0;
        while let Some(lower) = self.root(number)? {
            number += 1;
            if let Ok(entry) = lower.entry(path)
                && let Ok(Some(stat)) = entry.stat_if_present()
                && is_mark(&stat)
            {
                return Ok(None);
            }
            match lower.open_file(path, OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty()) {
                Ok(found) => return Ok(Some(found)),
                Err(error) => match Errno::from_io_error(&error) {
                    Some(Errno::NOENT) => {}
                    // A file of that name hides what is further below.
                    Some(Errno::NOTDIR | Errno::LOOP) => return Ok(None),
                    _ => return Err(error),
                },
            }
        }
        Ok(None)
    }

    /// Every name that one of the folders has at its top.
    pub(crate) fn root_names(&mut self) -> io::Result<BTreeSet<OsString>> {
        let (mut names, mut number) = (BTreeSet::new(), 0);
        while let Some(lower) = self.root(number)? {
            names.extend(lower.entry(Path::new(""))?.read_dir()?);
            number += 1;
        }
        Ok(names)
    }
}

impl Unpack {
    /// Finishes the folder at `path` that was just made.
    pub(super) fn made_parent(&mut self, path: &Path, dir: BorrowedFd<'_>) -> io::Result<()> {
        self.lowers.need(path)?;
        let entry = self.root.entry(path)?;
        self.ours.add(&self.root, &entry, path.as_os_str().as_bytes()).map_err(io::Error::other)?;
        self.files.take(&entry)?;
        self.ours.add_cleared(dir)?;
        let Some(from) = self.lowers.directory(path)? else { return Ok(()) };
        let times = copy_attributes(from.as_fd(), dir)?;
        self.directories.add(path.as_os_str().as_bytes(), times).map_err(io::Error::other)
    }
}

/// Copies owner, mode and attributes, and tells the times.
fn copy_attributes(from: BorrowedFd<'_>, to: BorrowedFd<'_>) -> io::Result<Timestamps> {
    let stat = rustix::fs::fstat(from)?;
    debug_assert_eq!(FileType::from_raw_mode(stat.st_mode), FileType::Directory);
    rustix::fs::fchown(to, Some(Uid::from_raw(stat.st_uid)), Some(Gid::from_raw(stat.st_gid)))?;
    for (name, value) in xattr::all(from)? {
        let bytes = name.to_bytes();
        if !bytes.starts_with(b"trusted.") && !bytes.starts_with(b"user.overlay.") {
            match xattr::set(to, bytes, &value) {
                Err(error) if Errno::from_io_error(&error) == Some(Errno::OPNOTSUPP) => {}
                done => done?,
            }
        }
    }
    rustix::fs::fchmod(to, Mode::from_raw_mode(stat.st_mode & 0o7777))?;
    Ok(Timestamps {
        last_access: Timespec { tv_sec: stat.st_atime, tv_nsec: stat.st_atime_nsec as _ },
        last_modification: Timespec { tv_sec: stat.st_mtime, tv_nsec: stat.st_mtime_nsec as _ },
    })
}
