//! Room for what a container writes that has an end: an ext4 in a file of a fixed size.
//!
//! ```text
//!   N/rwlayer.img    the filesystem; only what is written of it takes room
//!   N/rw             where it is mounted, from the first question for the snapshot's mounts until its commit or removal
//!   N/rw/upper       what the container writes, and beside it work
//! ```

use std::ffi::OsStr;
use std::fs::{self, Permissions};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};

use berth_sys::filesystem::{MakeError, NewFilesystem};
use berth_sys::mount::{mount_all, unmount_all};
use berth_types::{Error, Mount, Result};

const FILE: &str = "rwlayer.img";

/// The room of one snapshot, whether it has any or not.
pub(super) struct Room {
    file: PathBuf,
    point: PathBuf,
}

impl Room {
    /// Of the snapshot with that folder.
    pub(super) fn of(snapshot: &Path) -> Self {
        Self { file: snapshot.join(FILE), point: snapshot.join("rw") }
    }

    /// Makes room in an open folder.
    pub(super) fn make(folder: &OwnedFd, size: u64) -> Result<()> {
        let ext4 = NewFilesystem { kind: "ext4".to_owned(), size, uuid: None };
        ext4.make(folder, OsStr::new(FILE)).map_err(|error| {
            let text = "cannot make room of a fixed size (default_size)";
            match error {
                MakeError::Io(_, source) => Error::io(text, source),
                error => Error::failed_precondition(text).caused_by(error),
            }
        })
    }

    /// Whether the snapshot has any.
    pub(super) fn is_there(&self) -> bool {
        self.file.exists()
    }

    /// What the container writes.
    pub(super) fn upper(&self) -> PathBuf {
        self.point.join("upper")
    }

    /// What the overlay works in.
    pub(super) fn work(&self) -> PathBuf {
        self.point.join("work")
    }

    /// Mounts it, if it is there and not mounted, and makes its folders, the first with mode and owner of `like`. Not for
    /// two at a time.
    pub(super) fn open(&self, like: &Path) -> Result<()> {
        if !self.is_there() || self.upper().exists() {
            return Ok(());
        }
        let failed = |error| Error::io(format!("cannot mount {}", self.file.display()), error);
        match fs::DirBuilder::new().mode(0o700).create(&self.point) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(failed(error)),
            _ => {}
        }
        let mount = Mount {
            kind: "ext4".to_owned(),
            source: self.file.to_string_lossy().into_owned(),
            target: String::new(),
            options: vec!["rw".to_owned(), "loop".to_owned()],
        };
        mount_all(&[mount], &self.point).map_err(|error| {
            let number = error.raw_os_error();
            let kind =
                number.map_or(io::ErrorKind::Other, |number| io::Error::from_raw_os_error(number).kind());
            failed(io::Error::new(kind, error))
        })?;
        self.fill(like).map_err(failed)
    }

    fn fill(&self, like: &Path) -> io::Result<()> {
        if self.upper().exists() {
            return Ok(());
        }
        if !self.work().exists() {
            fs::create_dir(self.work())?;
        }
        fs::set_permissions(self.work(), Permissions::from_mode(0o711))?;
        // Whoever finds it finds it whole.
        let new = self.point.join("new");
        if !new.exists() {
            fs::create_dir(&new)?;
        }
        resemble(&new, like)?;
        fs::rename(&new, self.upper())
    }

    /// Gives mode and owner of what the container wrote to another folder: the one that later snapshots look at.
    pub(super) fn pass_on(&self, to: &Path) -> Result<()> {
        if !self.is_there() {
            return Ok(());
        }
        resemble(to, &self.upper())
            .map_err(|error| Error::io(format!("cannot set mode and owner of {}", to.display()), error))
    }

    /// Ends it. What an overlay still uses of it goes on until that ends.
    pub(super) fn close(&self) -> Result<()> {
        unmount_all(&self.point).map_err(|error| {
            Error::failed_precondition(format!("cannot unmount {}", self.point.display())).caused_by(error)
        })
    }

    /// Ends it and frees what it takes: the snapshot is committed, and has no more use for it.
    pub(super) fn remove(&self) -> Result<()> {
        self.close()?;
        let failed = |error| Error::io(format!("cannot remove {}", self.file.display()), error);
        match fs::remove_file(&self.file) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed(error)),
            _ => {}
        }
        match fs::remove_dir(&self.point) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(failed(error)),
            _ => Ok(()),
        }
    }
}

/// Gives a folder the mode and the owner of another one.
fn resemble(folder: &Path, like: &Path) -> io::Result<()> {
    let like = fs::metadata(like)?;
    chown(folder, Some(like.uid()), Some(like.gid()))?;
    fs::set_permissions(folder, Permissions::from_mode(like.mode() & 0o7777))
}
