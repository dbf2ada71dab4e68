//! One name in one directory of a root.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::PathBuf;
use std::sync::Arc;

use rustix::fs::{AtFlags, CWD, Dev, Dir, FileType, Gid, Mode, OFlags, Stat, Timestamps, Uid, XattrFlags};
use rustix::io::Errno;

use super::root::Root;

/// A user and a group, by number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Owner {
    /// The user's number.
    pub uid: u32,
    /// The group's number.
    pub gid: u32,
}

/// The largest value of one extended attribute (the kernel's `XATTR_SIZE_MAX`) and of the name list.
const XATTR_MAX: usize = 65_536;

/// A place inside a [`Root`]: an open parent directory and a name in it, which may not exist yet.
///
/// No operation follows a link in the name. All of them block on the file system.
#[derive(Debug)]
pub struct Entry<'r> {
    root: &'r Root,
    parent: Arc<OwnedFd>,
    name: OsString,
}

impl<'r> Entry<'r> {
    pub(super) fn new(root: &'r Root, parent: Arc<OwnedFd>, name: &OsStr) -> Self {
        Self { root, parent, name: name.to_owned() }
    }

    /// The open parent directory (`O_PATH`, or the root's descriptor).
    pub fn parent(&self) -> &OwnedFd {
        &self.parent
    }

    /// The name in the parent; empty for the root itself.
    pub fn name(&self) -> &OsStr {
        &self.name
    }

    /// Whether this is the root itself, which can be read and changed but not made or removed.
    pub fn is_root(&self) -> bool {
        self.name.is_empty()
    }

    /// The place beside this one that has another name; `name` is one component.
    pub fn sibling(&self, name: &OsStr) -> io::Result<Entry<'r>> {
        let bytes = name.as_bytes();
        if bytes.is_empty() || bytes == b"." || bytes == b".." || bytes.contains(&b'/') || self.is_root() {
            return Err(Errno::INVAL.into());
        }
        Ok(Self::new(self.root, Arc::clone(&self.parent), name))
    }

    /// Makes a new regular file (mode 0600 until changed), open for writing; `EEXIST` if the name is taken.
    pub fn create_file(&self) -> io::Result<File> {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let fd = rustix::fs::openat(&*self.parent, self.new_name()?, flags, Mode::RUSR | Mode::WUSR)?;
        Ok(File::from(fd))
    }

    /// Makes a directory with mode 0700, for [`Entry::open_dir`] and `fchmod` to finish.
    pub fn create_dir(&self) -> io::Result<()> {
        Ok(rustix::fs::mkdirat(&*self.parent, self.new_name()?, Mode::RWXU)?)
    }

    /// Makes a symlink holding `target`, whatever that says: it is only ever resolved inside a root.
    pub fn create_symlink(&self, target: &OsStr) -> io::Result<()> {
        Ok(rustix::fs::symlinkat(target, &*self.parent, self.new_name()?)?)
    }

    /// Makes a device node, fifo or socket; the mode is filtered by the umask, so follow with
    /// [`Entry::set_mode`].
    pub fn create_node(&self, kind: FileType, mode: u32, device: Dev) -> io::Result<()> {
        let mode = Mode::from_raw_mode(mode);
        Ok(rustix::fs::mknodat(&*self.parent, self.new_name()?, kind, mode, device)?)
    }

    /// Makes this name another name of `existing`, which isn't followed if it is a symlink.
    pub fn create_link(&self, existing: &Entry<'_>) -> io::Result<()> {
        let from = existing.new_name()?;
        let to = self.new_name()?;
        Ok(rustix::fs::linkat(&*existing.parent, from, &*self.parent, to, AtFlags::empty())?)
    }

    /// Moves what is here to `target`, replacing what is there as rename(2) does.
    pub fn rename_to(&self, target: &Entry<'_>) -> io::Result<()> {
        self.root.forget();
        target.root.forget();
        Ok(rustix::fs::renameat(&*self.parent, self.new_name()?, &*target.parent, target.new_name()?)?)
    }

    /// Opens what is here without following; the caller's `flags` must not create.
    pub fn open(&self, flags: OFlags) -> io::Result<OwnedFd> {
        let flags = flags | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        Ok(rustix::fs::openat(&*self.parent, self.any_name(), flags, Mode::empty())?)
    }

    /// Opens the directory here for reading; `ENOTDIR` for anything else, also for a link to one.
    pub fn open_dir(&self) -> io::Result<OwnedFd> {
        self.open(OFlags::RDONLY | OFlags::DIRECTORY)
    }

    /// The names in the directory here, in byte order, without `.` and `..`.
    pub fn read_dir(&self) -> io::Result<Vec<OsString>> {
        let mut names = Vec::new();
        for item in Dir::new(self.open_dir()?)? {
            let name = item?.file_name().to_bytes().to_vec();
            if name != b"." && name != b".." {
                names.push(OsString::from_vec(name));
            }
        }
        names.sort_unstable();
        Ok(names)
    }

    /// The state of what is here, not followed.
    pub fn stat(&self) -> io::Result<Stat> {
        Ok(rustix::fs::statat(&*self.parent, self.any_name(), AtFlags::SYMLINK_NOFOLLOW)?)
    }

    /// As [`Entry::stat`], with `None` where nothing is.
    pub fn stat_if_present(&self) -> io::Result<Option<Stat>> {
        match self.stat() {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            found => found.map(Some),
        }
    }

    /// What the symlink here holds.
    pub fn read_link(&self) -> io::Result<PathBuf> {
        let target = rustix::fs::readlinkat(&*self.parent, self.new_name()?, Vec::new())?;
        Ok(PathBuf::from(OsString::from_vec(target.into_bytes())))
    }

    /// Changes user and group, of a link itself too. Clears set-id bits, so it comes before the mode.
    pub fn set_owner(&self, owner: Owner) -> io::Result<()> {
        let (uid, gid) = (Some(Uid::from_raw(owner.uid)), Some(Gid::from_raw(owner.gid)));
        Ok(rustix::fs::chownat(&*self.parent, self.any_name(), uid, gid, AtFlags::SYMLINK_NOFOLLOW)?)
    }

    /// Changes the permission bits (07777) of anything but a symlink, which answers `EOPNOTSUPP`.
    pub fn set_mode(&self, mode: u32) -> io::Result<()> {
        let fd = self.open(OFlags::PATH)?;
        if FileType::from_raw_mode(rustix::fs::fstat(&fd)?.st_mode) == FileType::Symlink {
            return Err(Errno::OPNOTSUPP.into());
        }
        // fchmod refuses O_PATH descriptors; the magic link names exactly the inode that was just checked.
        let link = format!("/proc/self/fd/{}", fd.as_raw_fd());
        Ok(rustix::fs::chmodat(CWD, link, Mode::from_raw_mode(mode & 0o7777), AtFlags::empty())?)
    }

    /// Sets access and modification times, of a link itself too.
    pub fn set_times(&self, times: &Timestamps) -> io::Result<()> {
        Ok(rustix::fs::utimensat(&*self.parent, self.any_name(), times, AtFlags::SYMLINK_NOFOLLOW)?)
    }

    /// Sets an extended attribute, of a link itself too.
    pub fn set_xattr(&self, name: &OsStr, value: &[u8]) -> io::Result<()> {
        Ok(rustix::fs::lsetxattr(self.through_proc(), name, value, XattrFlags::empty())?)
    }

    /// Removes an extended attribute, of a link itself too.
    pub fn remove_xattr(&self, name: &OsStr) -> io::Result<()> {
        Ok(rustix::fs::lremovexattr(self.through_proc(), name)?)
    }

    /// One extended attribute; `None` where it isn't set or the file system has none.
    pub fn xattr(&self, name: &OsStr) -> io::Result<Option<Vec<u8>>> {
        let mut value = vec![0; XATTR_MAX];
        match rustix::fs::lgetxattr(self.through_proc(), name, &mut value[..]) {
            Ok(length) => {
                value.truncate(length);
                Ok(Some(value))
            }
            Err(Errno::NODATA | Errno::OPNOTSUPP) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// The names of all extended attributes, in byte order; none where the file system has none.
    pub fn xattr_names(&self) -> io::Result<Vec<OsString>> {
        let path = self.through_proc();
        let mut list = match rustix::fs::llistxattr_query(&path) {
            Ok(0) | Err(Errno::OPNOTSUPP) => return Ok(Vec::new()),
            Ok(_) => vec![0_u8; XATTR_MAX],
            Err(error) => return Err(error.into()),
        };
        let length = rustix::fs::llistxattr(&path, &mut list[..])?;
        let names = list[..length].split(|byte| *byte == 0).filter(|name| !name.is_empty());
        let mut names: Vec<OsString> = names.map(|name| OsString::from_vec(name.to_vec())).collect();
        names.sort_unstable();
        Ok(names)
    }

    /// Removes the file or link here (not a directory).
    pub fn remove_file(&self) -> io::Result<()> {
        self.root.forget();
        Ok(rustix::fs::unlinkat(&*self.parent, self.new_name()?, AtFlags::empty())?)
    }

    /// Removes the empty directory here.
    pub fn remove_dir(&self) -> io::Result<()> {
        self.root.forget();
        Ok(rustix::fs::unlinkat(&*self.parent, self.new_name()?, AtFlags::REMOVEDIR)?)
    }

    /// Removes whatever is here with everything below it; nothing being here is fine.
    ///
    /// Works by descriptors only, so that a directory swapped for a link is never entered.
    pub fn remove_all(&self) -> io::Result<()> {
        self.root.forget();
        super::remove::remove_tree(self.parent.as_fd(), self.new_name()?)
    }

    /// The name for operations that make or unmake it: the root itself is refused.
    fn new_name(&self) -> io::Result<&OsStr> {
        if self.is_root() { Err(Errno::BUSY.into()) } else { Ok(&self.name) }
    }

    fn any_name(&self) -> &OsStr {
        if self.is_root() { OsStr::new(".") } else { &self.name }
    }

    /// A path for the calls that have no descriptor form: the magic link leads to the held parent and
    /// the `l…` calls don't follow the one component after it.
    fn through_proc(&self) -> PathBuf {
        let mut path = PathBuf::from(format!("/proc/self/fd/{}", self.parent.as_raw_fd()));
        path.push(self.any_name());
        path
    }
}
