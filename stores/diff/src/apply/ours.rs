//! Which files of a tree came from the layer that is being applied.
//!
//! Whiteouts are about lower layers only. In a tree that was empty everything is the layer's own and
//! nothing has to be remembered; else each name is, by its directory's inode, because paths that lead
//! through links may name the same file.

use std::collections::HashSet;
use std::hash::{BuildHasher, RandomState};
use std::io;
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;

use berth_archive::parent;
use berth_sys::beneath::{Entry, Root};
use rustix::fs::Dir;

use super::UnpackError;
use super::unpack::path_of;

/// Names remembered at most: eight bytes and a little each.
const MAX_NAMES: usize = 4_000_000;

/// A directory, whatever its path.
pub(super) type Id = (u64, u64);

pub(super) enum Ours {
    /// The tree was empty.
    Everything,
    /// Only what is remembered.
    Some(Names),
}

#[derive(Default)]
pub(super) struct Names {
    /// Hashes under a secret key, so that no layer can choose two names that look the same.
    names: HashSet<u64>,
    key: RandomState,
    /// Directories without anything from lower layers.
    cleared: HashSet<Id>,
    /// The directory that got the latest name: those above it are known.
    latest: Option<Id>,
}

impl Ours {
    /// Looks whether the tree is empty.
    pub(super) fn of(root: &Root) -> io::Result<Self> {
        for item in Dir::read_from(root.fd())? {
            let item = item?;
            if item.file_name() != c"." && item.file_name() != c".." {
                return Ok(Self::Some(Names::default()));
            }
        }
        Ok(Self::Everything)
    }

    /// Remembers that what is at `path` is the layer's, and so are the folders above it.
    pub(super) fn add(&mut self, root: &Root, entry: &Entry<'_>, path: &[u8]) -> Result<(), UnpackError> {
        let Self::Some(names) = self else { return Ok(()) };
        let failed = |error| UnpackError::write("cannot look at the folder of", path, error);
        let dir = id(entry.parent()).map_err(failed)?;
        names.insert(dir, entry.name().as_bytes())?;
        if names.latest.replace(dir) == Some(dir) {
            return Ok(());
        }
        let mut above = parent(path).0;
        while !above.is_empty() {
            let entry = root.entry(path_of(above)).map_err(failed)?;
            let dir = id(entry.parent()).map_err(failed)?;
            if !names.insert(dir, entry.name().as_bytes())? {
                break;
            }
            above = parent(above).0;
        }
        Ok(())
    }

    /// Remembers that a directory holds nothing of lower layers.
    pub(super) fn add_cleared(&mut self, dir: impl AsFd) -> io::Result<()> {
        if let Self::Some(names) = self {
            names.cleared.insert(id(dir)?);
        }
        Ok(())
    }
}

impl Names {
    fn insert(&mut self, dir: Id, name: &[u8]) -> Result<bool, UnpackError> {
        if self.names.len() >= MAX_NAMES {
            return Err(UnpackError::TooMany("files"));
        }
        Ok(self.names.insert(self.key.hash_one((dir, name))))
    }

    pub(super) fn has(&self, dir: Id, name: &[u8]) -> bool {
        self.names.contains(&self.key.hash_one((dir, name)))
    }

    /// Marks a directory as cleared; `false` if it was already.
    pub(super) fn clear(&mut self, dir: Id) -> bool {
        self.cleared.insert(dir)
    }
}

pub(super) fn id(dir: impl AsFd) -> io::Result<Id> {
    let stat = rustix::fs::fstat(dir)?;
    Ok((stat.st_dev, stat.st_ino))
}
