//! Bind mounts whose files appear to belong to other ids (mount_setattr(2), Linux 5.12).

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use rustix::fs::CWD;
use rustix::mount::{MoveMountFlags, OpenTreeFlags, move_mount, open_tree};

use super::attributes::{MountAttributes, Reach, attribute, set_attributes};

/// A mount that exists only as a descriptor; it goes away with it unless attached.
#[derive(Debug)]
pub struct DetachedMount(OwnedFd);

impl DetachedMount {
    /// Clones the mount at `path`, or the whole tree of mounts from there.
    pub fn clone_of(path: &Path, reach: Reach) -> io::Result<Self> {
        let tree = if reach == Reach::Tree { OpenTreeFlags::AT_RECURSIVE } else { OpenTreeFlags::empty() };
        let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | tree;
        Ok(Self(open_tree(CWD, path, flags)?))
    }

    /// Changes attributes before anyone can see the mount.
    pub fn set_attributes(&self, reach: Reach, attributes: &MountAttributes) -> io::Result<()> {
        set_attributes(&self.0, c"", reach, attributes)
    }

    /// Puts the mount at `point`, following links there.
    pub fn attach(self, point: &Path) -> io::Result<()> {
        let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_SYMLINKS;
        Ok(move_mount(&self.0, "", CWD, point, flags)?)
    }

    /// Puts the mount exactly on the file or folder that `point` holds open.
    pub fn attach_to(self, point: impl AsFd) -> io::Result<()> {
        let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
        Ok(move_mount(&self.0, "", point, "", flags)?)
    }

    /// The descriptor, for openat2 below the mount.
    pub fn into_fd(self) -> OwnedFd {
        self.0
    }
}

impl From<OwnedFd> for DetachedMount {
    /// Takes a descriptor made by `fsmount` or `open_tree` with `OPEN_TREE_CLONE`.
    fn from(fd: OwnedFd) -> Self {
        Self(fd)
    }
}

impl AsFd for DetachedMount {
    fn as_fd(&self) -> std::os::fd::BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// Clones the mount at `path` with its ids mapped by `userns`.
pub fn mapped_clone(path: &Path, reach: Reach, userns: &OwnedFd) -> io::Result<DetachedMount> {
    use std::os::fd::AsRawFd as _;
    let mount = DetachedMount::clone_of(path, reach)?;
    let attributes = MountAttributes {
        set: attribute::IDMAP,
        userns_fd: userns.as_raw_fd() as u64,
        ..MountAttributes::default()
    };
    mount.set_attributes(reach, &attributes)?;
    Ok(mount)
}
