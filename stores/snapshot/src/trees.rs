//! The folder that holds a folder for each snapshot.

use std::ffi::OsStr;
use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use berth_sys::beneath::{Owner, Root};
use berth_types::{Error, Result};
use rustix::fs::{AtFlags, CWD, Dir, FlockOperation, Gid, Mode, OFlags, Uid};
use rustix::io::Errno;

const DIRECTORY: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC);

#[derive(Debug)]
pub(crate) struct Trees {
    path: PathBuf,
    root: Root,
    /// The snapshotter's folder, held locked so that no second daemon works on it.
    lock: OwnedFd,
}

impl Trees {
    /// Makes or opens the folders below `root` and locks them.
    pub(crate) fn open(root: &Path) -> Result<Self> {
        let failed = |what: &str, error| Error::io(format!("cannot {what} {}", root.display()), error);
        fs::create_dir_all(root).map_err(|error| failed("make", error))?;
        // Whoever can enter sees the files of every container.
        fs::set_permissions(root, fs::Permissions::from_mode(0o700))
            .map_err(|error| failed("close", error))?;
        let lock = rustix::fs::openat(CWD, root, DIRECTORY, Mode::empty())
            .map_err(|error| failed("open", error.into()))?;
        match rustix::fs::flock(&lock, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(Errno::WOULDBLOCK) => {
                return Err(Error::unavailable(format!(
                    "{} is in use by another daemon: stop it, or choose another root",
                    root.display()
                )));
            }
            Err(error) => return Err(failed("lock", error.into())),
        }
        let path = root.join("snapshots");
        match fs::create_dir(&path) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                return Err(failed("make a folder in", error));
            }
            _ => {}
        }
        fs::set_permissions(&path, fs::Permissions::from_mode(0o700))
            .map_err(|error| failed("close", error))?;
        let trees = Root::open(&path).map_err(|error| failed("open", error))?;
        Ok(Self { path, root: trees, lock })
    }

    /// A descriptor of the snapshotter's folder.
    pub(crate) fn folder(&self) -> io::Result<OwnedFd> {
        self.lock.try_clone()
    }

    /// Where the folder of a number is.
    pub(crate) fn path(&self, id: u64) -> PathBuf {
        self.path.join(id.to_string())
    }

    /// Makes the folder of a number with this mode; `AlreadyExists` if a crash left one.
    pub(crate) fn make(&self, id: u64, mode: u32) -> io::Result<OwnedFd> {
        make_dir(self.root.fd(), &id.to_string(), mode)
    }

    /// Whether the folder of a number is there.
    pub(crate) fn has(&self, id: u64) -> bool {
        rustix::fs::statat(self.root.fd(), id.to_string(), AtFlags::SYMLINK_NOFOLLOW).is_ok()
    }

    /// Removes the folder of a number and everything in it.
    ///
    /// It is renamed first: should a power cut bring the record back, its folder is there whole or not at
    /// all, without a flush.
    pub(crate) fn remove(&self, id: u64) -> io::Result<()> {
        let (name, aside) = (id.to_string(), format!("rm-{id}"));
        let folder = self.root.entry(Path::new(&name))?;
        match folder.rename_to(&folder.sibling(OsStr::new(&aside))?) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            // Left by a removal that a crash ended; both go now.
            Err(error) if error.kind() == io::ErrorKind::DirectoryNotEmpty => self.remove_name(&name)?,
            done => done?,
        }
        self.remove_name(&aside)
    }

    /// Removes a folder by its name.
    pub(crate) fn remove_name(&self, name: &str) -> io::Result<()> {
        self.root.entry(Path::new(name))?.remove_all()
    }

    /// The names in the folder.
    pub(crate) fn names(&self) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for item in Dir::read_from(self.root.fd())? {
            let item = item?;
            let name = item.file_name().to_string_lossy();
            if name != "." && name != ".." {
                names.push(name.into_owned());
            }
        }
        Ok(names)
    }

    /// Waits until everything on the filesystem of the trees is on disk.
    pub(crate) fn sync(&self) -> io::Result<()> {
        Ok(rustix::fs::syncfs(self.root.fd())?)
    }
}

/// Makes a directory whose mode the process' umask doesn't change, and opens it.
pub(crate) fn make_dir(at: impl std::os::fd::AsFd, name: &str, mode: u32) -> io::Result<OwnedFd> {
    rustix::fs::mkdirat(&at, name, Mode::RWXU)?;
    let dir = rustix::fs::openat(&at, name, DIRECTORY | OFlags::NOFOLLOW, Mode::empty())?;
    if mode != 0o700 {
        rustix::fs::fchmod(&dir, Mode::from_raw_mode(mode))?;
    }
    Ok(dir)
}

/// Gives a directory to `owner`.
pub(crate) fn give(dir: &OwnedFd, owner: Owner) -> io::Result<()> {
    Ok(rustix::fs::fchown(dir, Some(Uid::from_raw(owner.uid)), Some(Gid::from_raw(owner.gid)))?)
}
