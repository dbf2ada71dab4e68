//! A copy of a tree with everything that a file has.

use std::collections::HashMap;
use std::ffi::CString;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::path::Path;

use rustix::fs::{
    AtFlags, CWD, Dir, FileType, Gid, Mode, OFlags, SeekFrom, Stat, Timespec, Timestamps, Uid, XattrFlags,
};
use rustix::io::Errno;

const OPEN: OFlags = OFlags::NOFOLLOW.union(OFlags::CLOEXEC);
const DIRECTORY: OFlags = OPEN.union(OFlags::RDONLY).union(OFlags::DIRECTORY);

/// Both trees hold a directory open for each level; one that is deeper is refused, not followed.
const MAX_DEPTH: usize = 400;

/// The largest value of one extended attribute (the kernel's `XATTR_SIZE_MAX`) and of the list of names.
const XATTR_MAX: usize = 65_536;

/// Copies what is in the committed tree `from` into `to`, and `from`'s own owner, mode and times.
///
/// Nobody writes to a committed tree, and no link in it is followed.
pub(super) fn tree(from: &Path, to: &OwnedFd) -> io::Result<()> {
    let from = rustix::fs::openat(CWD, from, DIRECTORY, Mode::empty())?;
    let mut copy = Copy { links: HashMap::new(), target: to };
    copy.directory(&from, to.as_fd(), &mut Vec::new())
}

struct Copy<'t> {
    /// Where the first of several names of an inode was copied to, below the target.
    links: HashMap<(u64, u64), Vec<CString>>,
    target: &'t OwnedFd,
}

impl Copy<'_> {
    fn directory(&mut self, from: &OwnedFd, to: BorrowedFd<'_>, path: &mut Vec<CString>) -> io::Result<()> {
        if path.len() > MAX_DEPTH {
            return Err(io::Error::other("the tree has too many levels to be copied"));
        }
        let mut entries = Vec::new();
        for item in Dir::read_from(from)? {
            let name = item?.file_name().to_owned();
            if name.as_c_str() != c"." && name.as_c_str() != c".." {
                entries.push(name);
            }
        }
        for name in entries {
            path.push(name);
            self.entry(from, to, path)?;
            path.pop();
        }
        let stat = rustix::fs::fstat(from)?;
        xattrs(from.as_fd(), to)?;
        rustix::fs::fchown(to, Some(Uid::from_raw(stat.st_uid)), Some(Gid::from_raw(stat.st_gid)))?;
        rustix::fs::fchmod(to, Mode::from_raw_mode(stat.st_mode & 0o7777))?;
        Ok(rustix::fs::futimens(to, &times(&stat))?)
    }

    fn entry(&mut self, from: &OwnedFd, to: BorrowedFd<'_>, path: &mut Vec<CString>) -> io::Result<()> {
        let name = path.last().expect("the caller pushed a name").clone();
        let stat = rustix::fs::statat(from, &name, AtFlags::SYMLINK_NOFOLLOW)?;
        let kind = FileType::from_raw_mode(stat.st_mode);
        if kind == FileType::Directory {
            rustix::fs::mkdirat(to, &name, Mode::RWXU)?;
            let source = rustix::fs::openat(from, &name, DIRECTORY, Mode::empty())?;
            let made = rustix::fs::openat(to, &name, DIRECTORY, Mode::empty())?;
            return self.directory(&source, made.as_fd(), path);
        }
        if stat.st_nlink > 1 && self.link(&stat, to, &name, path)? {
            return Ok(());
        }
        match kind {
            FileType::RegularFile => return file(from, to, &name, &stat),
            FileType::Symlink => {
                let target = rustix::fs::readlinkat(from, &name, Vec::new())?;
                rustix::fs::symlinkat(target, to, &name)?;
            }
            // A socket without its process is of no use, but leaving it out would change the tree.
            kind => rustix::fs::mknodat(to, &name, kind, Mode::from_raw_mode(0o600), stat.st_rdev)?,
        }
        finish(from, to, &name, &stat, kind)
    }

    /// Makes another name of an inode that was copied before; the first one is remembered.
    fn link(
        &mut self,
        stat: &Stat,
        to: BorrowedFd<'_>,
        name: &CString,
        path: &[CString],
    ) -> io::Result<bool> {
        let inode = (stat.st_dev, stat.st_ino);
        let Some(first) = self.links.get(&inode) else {
            self.links.insert(inode, path.to_vec());
            return Ok(false);
        };
        let (last, above) = first.split_last().expect("a path has a name");
        let mut dir = self.target.try_clone()?;
        for part in above {
            dir = rustix::fs::openat(&dir, part, DIRECTORY, Mode::empty())?;
        }
        rustix::fs::linkat(&dir, last, to, name, AtFlags::empty())?;
        Ok(true)
    }
}

fn file(from: &OwnedFd, to: BorrowedFd<'_>, name: &CString, stat: &Stat) -> io::Result<()> {
    let source = File::from(rustix::fs::openat(from, name, OPEN | OFlags::RDONLY, Mode::empty())?);
    let flags = OPEN | OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL;
    let copy = File::from(rustix::fs::openat(to, name, flags, Mode::RUSR | Mode::WUSR)?);
    contents(&source, &copy, stat.st_size.unsigned_abs())?;
    rustix::fs::fchown(&copy, Some(Uid::from_raw(stat.st_uid)), Some(Gid::from_raw(stat.st_gid)))?;
    xattrs(source.as_fd(), copy.as_fd())?;
    rustix::fs::fchmod(&copy, Mode::from_raw_mode(stat.st_mode & 0o7777))?;
    Ok(rustix::fs::futimens(&copy, &times(stat))?)
}

/// Shares the blocks if the filesystem can, else copies the runs of data and leaves the holes.
pub(crate) fn contents(from: &File, to: &File, size: u64) -> io::Result<()> {
    if size == 0 || rustix::fs::ioctl_ficlone(to, from).is_ok() {
        return Ok(());
    }
    to.set_len(size)?;
    let mut at = 0;
    while at < size {
        let start = match rustix::fs::seek(from, SeekFrom::Data(at)) {
            Ok(start) => start,
            Err(Errno::NXIO) => return Ok(()),
            Err(_) => at,
        };
        let end = rustix::fs::seek(from, SeekFrom::Hole(start)).unwrap_or(size).min(size);
        run(from, to, start, end)?;
        at = end;
    }
    Ok(())
}

fn run(from: &File, to: &File, mut at: u64, end: u64) -> io::Result<()> {
    while at < end {
        let (mut off_in, mut off_out) = (at, at);
        let length = usize::try_from(end - at).unwrap_or(usize::MAX).min(1 << 30);
        match rustix::fs::copy_file_range(from, Some(&mut off_in), to, Some(&mut off_out), length) {
            Ok(0) => return Ok(()),
            Ok(copied) => at += copied as u64,
            Err(Errno::INTR) => {}
            Err(Errno::XDEV | Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP) => {
                return by_hand(from, to, at, end);
            }
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

fn by_hand(from: &File, to: &File, mut at: u64, end: u64) -> io::Result<()> {
    let mut buffer = vec![0; 256 << 10];
    while at < end {
        let length = usize::try_from(end - at).unwrap_or(usize::MAX).min(buffer.len());
        let length = from.read_at(&mut buffer[..length], at)?;
        if length == 0 {
            return Ok(());
        }
        to.write_all_at(&buffer[..length], at)?;
        at += length as u64;
    }
    Ok(())
}

/// Owner, mode, attributes and times of what has no descriptor for them.
fn finish(from: &OwnedFd, to: BorrowedFd<'_>, name: &CString, stat: &Stat, kind: FileType) -> io::Result<()> {
    let (uid, gid) = (Uid::from_raw(stat.st_uid), Gid::from_raw(stat.st_gid));
    rustix::fs::chownat(to, name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)?;
    let (source, copy) = (through_proc(from.as_fd(), name), through_proc(to, name));
    for (key, value) in read_xattrs(
        |list| rustix::fs::llistxattr(&source, list),
        |key, value| rustix::fs::lgetxattr(&source, key, value),
    )? {
        let _ = rustix::fs::lsetxattr(&copy, &key, &value, XattrFlags::empty());
    }
    if kind != FileType::Symlink {
        rustix::fs::chmodat(to, name, Mode::from_raw_mode(stat.st_mode & 0o7777), AtFlags::empty())?;
    }
    Ok(rustix::fs::utimensat(to, name, &times(stat), AtFlags::SYMLINK_NOFOLLOW)?)
}

fn through_proc(dir: BorrowedFd<'_>, name: &CString) -> Vec<u8> {
    [format!("/proc/self/fd/{}/", dir.as_raw_fd()).as_bytes(), name.as_bytes()].concat()
}

fn xattrs(from: BorrowedFd<'_>, to: BorrowedFd<'_>) -> io::Result<()> {
    let found = read_xattrs(
        |list| rustix::fs::flistxattr(from, list),
        |key, value| rustix::fs::fgetxattr(from, key, value),
    )?;
    for (key, value) in found {
        // Labels of security modules often cannot be set by hand; the copy is good without.
        let _ = rustix::fs::fsetxattr(to, &key, &value, XattrFlags::empty());
    }
    Ok(())
}

/// All extended attributes, by name; what may not be read, or is gone meanwhile, is left out.
pub(crate) fn read_xattrs(
    list: impl Fn(&mut [u8]) -> Result<usize, Errno>,
    get: impl Fn(&CString, &mut [u8]) -> Result<usize, Errno>,
) -> io::Result<Vec<(CString, Vec<u8>)>> {
    // As many as there can be: an empty list asks nothing, for rustix answers 0 to it since 1.1.5.
    let mut names = vec![0; XATTR_MAX];
    let length = match list(&mut names) {
        Ok(0) | Err(Errno::OPNOTSUPP) => return Ok(Vec::new()),
        Ok(length) => length,
        Err(error) => return Err(error.into()),
    };
    let mut found = Vec::new();
    for name in names[..length].split(|byte| *byte == 0).filter(|name| !name.is_empty()) {
        let name = CString::new(name)?;
        let mut value = vec![0; XATTR_MAX];
        match get(&name, &mut value) {
            Ok(length) => {
                value.truncate(length);
                found.push((name, value));
            }
            Err(Errno::NODATA | Errno::OPNOTSUPP | Errno::ACCESS | Errno::PERM) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(found)
}

fn times(stat: &Stat) -> Timestamps {
    Timestamps {
        last_access: Timespec { tv_sec: stat.st_atime, tv_nsec: stat.st_atime_nsec as _ },
        last_modification: Timespec { tv_sec: stat.st_mtime, tv_nsec: stat.st_mtime_nsec as _ },
    }
}
