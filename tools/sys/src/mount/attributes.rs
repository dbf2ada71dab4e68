//! `mount_setattr(2)`: attributes of a mount, recursively or not, and id mapping.

#![expect(unsafe_code, reason = "mount_setattr has no wrapper in rustix or glibc")]

use std::ffi::CStr;
use std::io;
use std::os::fd::{AsFd, AsRawFd};

/// Attribute bits of `<linux/mount.h>`, as `mount_setattr` and `fsmount` take them.
pub mod attribute {
    /// No writes through this mount.
    pub const RDONLY: u64 = 0x1;
    /// Set-user-ID bits and file capabilities have no effect.
    pub const NOSUID: u64 = 0x2;
    /// Device nodes cannot be opened.
    pub const NODEV: u64 = 0x4;
    /// Nothing can be executed.
    pub const NOEXEC: u64 = 0x8;
    /// The field of the three access time modes; relatime is its zero.
    pub const ATIME: u64 = 0x70;
    /// Access times are never written.
    pub const NOATIME: u64 = 0x10;
    /// Access times are always written.
    pub const STRICTATIME: u64 = 0x20;
    /// Access times of directories are never written.
    pub const NODIRATIME: u64 = 0x80;
    /// Ids are mapped by `userns_fd`.
    pub const IDMAP: u64 = 0x0010_0000;
    /// Symbolic links are not followed.
    pub const NOSYMFOLLOW: u64 = 0x0020_0000;
}

/// `struct mount_attr` of `<linux/mount.h>`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct MountAttributes {
    /// Bits of [`attribute`] to set.
    pub set: u64,
    /// Bits to clear; clear before set, so a field such as `ATIME` is replaced by naming it in both.
    pub clear: u64,
    /// `MS_SHARED`, `MS_SLAVE`, `MS_PRIVATE`, `MS_UNBINDABLE` or 0 for unchanged.
    pub propagation: u64,
    /// The namespace whose maps `IDMAP` applies.
    pub userns_fd: u64,
}

/// Whether the change covers the mounts below as well.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reach {
    /// This one mount.
    One,
    /// The whole tree of mounts below, all or nothing.
    Tree,
}

/// Changes the attributes of the mount at `path` below `dir`; an empty path means `dir` itself.
///
/// ENOSYS before Linux 5.12; EINVAL when the filesystem cannot map ids.
pub fn set_attributes(
    dir: impl AsFd,
    path: &CStr,
    reach: Reach,
    attributes: &MountAttributes,
) -> io::Result<()> {
    let empty = if path.is_empty() { libc::AT_EMPTY_PATH } else { 0 };
    let tree = if reach == Reach::Tree { libc::AT_RECURSIVE } else { 0 };
    // SAFETY: path is NUL-terminated, attributes is a live struct of exactly the size passed, and the
    // kernel only reads both.
    let done = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            dir.as_fd().as_raw_fd(),
            path.as_ptr(),
            (empty | tree | libc::AT_SYMLINK_NOFOLLOW) as libc::c_uint,
            std::ptr::from_ref(attributes),
            size_of::<MountAttributes>(),
        )
    };
    if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
