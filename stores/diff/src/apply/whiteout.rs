//! Removals that a layer asks for.

use std::ffi::OsStr;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use berth_sys::beneath::Entry;
use rustix::fs::{Dir, FileType, Stat};

use super::ours::{Ours, id};
use super::unpack::{Unpack, path_of};
use crate::mounted::Whiteouts;
use crate::xattr;

impl Unpack {
    /// Hides `name` beside `marker`, in `folder`, in lower layers. What this layer has itself under that
    /// name stays.
    pub(super) fn white_out(&mut self, marker: &Entry<'_>, folder: &Path, name: &[u8]) -> io::Result<()> {
        let hidden = marker.sibling(OsStr::from_bytes(name))?;
        if let Ours::Some(names) = &self.ours {
            if names.has(id(hidden.parent())?, name) {
                return self.white_out_below(&hidden, &folder.join(OsStr::from_bytes(name)));
            }
            hidden.remove_all()?;
        }
        if self.whiteouts == Whiteouts::Remove {
            return Ok(());
        }
        self.files.take(&hidden)?;
        match hidden.create_node(FileType::CharacterDevice, 0, 0) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                self.white_out_below(&hidden, &folder.join(OsStr::from_bytes(name)))
            }
            done => done,
        }
    }

    /// A file of this layer hides the lower one already; its directory must not let one show through.
    fn white_out_below(&mut self, hidden: &Entry<'_>, path: &Path) -> io::Result<()> {
        match hidden.open_dir() {
            Ok(_) => self.white_out_all(path),
            Err(_) => Ok(()),
        }
    }

    /// Hides everything that lower layers have in the directory at `path`.
    pub(super) fn white_out_all(&mut self, path: &Path) -> io::Result<()> {
        let dir = self.root.entry(path)?.open_dir()?;
        self.clear(path)?;
        if path.as_os_str().is_empty() {
            // overlayfs never takes the root for opaque, so each name is hidden by itself.
            return self.hide_root();
        }
        self.make_opaque(&dir)
    }

    fn hide_root(&mut self) -> io::Result<()> {
        self.lowers.need(Path::new("/"))?;
        let root = Arc::clone(&self.root);
        for name in self.lowers.root_names()? {
            let hidden = root.entry(Path::new(&name))?;
            self.files.take(&hidden)?;
            match hidden.create_node(FileType::CharacterDevice, 0, 0) {
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                    self.white_out_below(&hidden, Path::new(&name))?;
                }
                done => done?,
            }
        }
        Ok(())
    }

    /// Marks a directory so that overlayfs shows nothing below it.
    pub(super) fn make_opaque(&self, dir: &OwnedFd) -> io::Result<()> {
        match &self.whiteouts {
            Whiteouts::Overlay { prefix, .. } => {
                xattr::set(dir.as_fd(), format!("{prefix}opaque").as_bytes(), b"y")
            }
            Whiteouts::Remove => Ok(()),
        }
    }

    /// Removes what is not this layer's own from a directory and from those in it, each directory at
    /// most once however many markers a layer has.
    fn clear(&mut self, path: &Path) -> io::Result<()> {
        let Self { root, ours: Ours::Some(ours), .. } = self else { return Ok(()) };
        let mut waiting: Vec<PathBuf> = vec![path.to_owned()];
        while let Some(path) = waiting.pop() {
            let dir = root.entry(&path)?.open_dir()?;
            let dir_id = id(&dir)?;
            if !ours.clear(dir_id) {
                continue;
            }
            for item in Dir::read_from(&dir)? {
                let item = item?;
                let name = item.file_name().to_bytes();
                if name == b"." || name == b".." {
                    continue;
                }
                let inside = path.join(OsStr::from_bytes(name));
                if !ours.has(dir_id, name) {
                    root.entry(&inside)?.remove_all()?;
                } else if item.file_type() == FileType::Directory {
                    waiting.push(inside);
                }
            }
        }
        Ok(())
    }
}

/// Whether this is overlayfs' mark of a removed file.
pub(super) fn is_mark(stat: &Stat) -> bool {
    FileType::from_raw_mode(stat.st_mode) == FileType::CharacterDevice && stat.st_rdev == 0
}

/// The path of the directory that a marker stands in.
pub(super) fn directory_of(marker: &[u8]) -> &Path {
    path_of(berth_archive::parent(marker).0)
}
