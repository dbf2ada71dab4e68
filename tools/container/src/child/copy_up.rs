//! A tmpfs that starts with what the directory below it has (`tmpcopyup`).

use std::ffi::CStr;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use berth_sys::child as sys;
use rustix::fs::{AtFlags, FileType, Gid, Mode, OFlags, Timestamps, Uid, openat};
use rustix::io::{Errno, Result};

/// Depth of directories that are copied; each level takes 8 KiB of stack.
const MAX_DEPTH: usize = 64;

/// Copies everything in the directory `from` into the directory `to`.
pub(super) fn copy(from: BorrowedFd<'_>, to: BorrowedFd<'_>) -> Result<()> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let from = openat(from, c".", flags, Mode::empty())?;
    let to = openat(to, c".", flags, Mode::empty())?;
    directory(&from, to.as_fd(), 0)?;
    same_attributes(&from, to.as_fd())
}

fn directory(from: &OwnedFd, to: BorrowedFd<'_>, depth: usize) -> Result<()> {
    if depth > MAX_DEPTH {
        return Err(Errno::LOOP);
    }
    let mut buffer = [0u8; 4096];
    loop {
        let filled = sys::read_directory(from, &mut buffer)?;
        let mut rest = buffer.get(..filled).unwrap_or_default();
        if rest.is_empty() {
            return Ok(());
        }
        while let Some(bytes) = rest.get(16..18) {
            // struct linux_dirent64: inode, offset, record length, type, name.
            let length = usize::from(u16::from_ne_bytes([bytes[0], bytes[1]]));
            let name = rest.get(19..length).ok_or(Errno::IO)?;
            let name = CStr::from_bytes_until_nul(name).map_err(|_| Errno::IO)?;
            if !matches!(name.to_bytes(), b"." | b"..") {
                entry(from, to, name, depth)?;
            }
            rest = rest.get(length..).unwrap_or_default();
        }
    }
}

fn entry(from: &OwnedFd, to: BorrowedFd<'_>, name: &CStr, depth: usize) -> Result<()> {
    let stat = rustix::fs::statat(from, name, AtFlags::SYMLINK_NOFOLLOW)?;
    let mode = Mode::from_raw_mode(stat.st_mode & 0o7777);
    let plain = OFlags::NOFOLLOW | OFlags::CLOEXEC;
    match FileType::from_raw_mode(stat.st_mode) {
        FileType::Directory => {
            rustix::fs::mkdirat(to, name, mode)?;
            let flags = plain | OFlags::RDONLY | OFlags::DIRECTORY;
            let (source, copy) =
                (openat(from, name, flags, Mode::empty())?, openat(to, name, flags, Mode::empty())?);
            directory(&source, copy.as_fd(), depth + 1)?;
            same_attributes(&source, copy.as_fd())
        }
        FileType::RegularFile => {
            // Opened without blocking: it may have become a fifo meanwhile.
            let source = openat(from, name, plain | OFlags::RDONLY | OFlags::NONBLOCK, Mode::empty())?;
            let copy = openat(to, name, plain | OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL, mode)?;
            while rustix::fs::sendfile(&copy, &source, None, 1 << 20)? > 0 {}
            same_attributes(&source, copy.as_fd())
        }
        FileType::Symlink => {
            let mut target = [MaybeUninit::<u8>::uninit(); libc::PATH_MAX as usize];
            let (target, rest) = rustix::fs::readlinkat_raw(from, name, &mut target)?;
            let length = target.len();
            if rest.is_empty() {
                return Err(Errno::NAMETOOLONG);
            }
            let mut text = [0u8; libc::PATH_MAX as usize];
            text.get_mut(..length).ok_or(Errno::NAMETOOLONG)?.copy_from_slice(target);
            let text = CStr::from_bytes_until_nul(&text).map_err(|_| Errno::NAMETOOLONG)?;
            rustix::fs::symlinkat(text, to, name)?;
            let (uid, gid) = (Uid::from_raw(stat.st_uid), Gid::from_raw(stat.st_gid));
            rustix::fs::chownat(to, name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)
        }
        kind => {
            rustix::fs::mknodat(to, name, kind, mode, stat.st_rdev)?;
            let (uid, gid) = (Uid::from_raw(stat.st_uid), Gid::from_raw(stat.st_gid));
            rustix::fs::chownat(to, name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)
        }
    }
}

/// Owner, mode and times of `from` for `to`.
fn same_attributes(from: &OwnedFd, to: BorrowedFd<'_>) -> Result<()> {
    let stat = rustix::fs::fstat(from)?;
    rustix::fs::fchown(to, Some(Uid::from_raw(stat.st_uid)), Some(Gid::from_raw(stat.st_gid)))?;
    rustix::fs::fchmod(to, Mode::from_raw_mode(stat.st_mode & 0o7777))?;
    let at = |tv_sec: i64, tv_nsec: i64| rustix::fs::Timespec { tv_sec, tv_nsec };
    rustix::fs::futimens(
        to,
        &Timestamps {
            last_access: at(stat.st_atime as i64, stat.st_atime_nsec as i64),
            last_modification: at(stat.st_mtime as i64, stat.st_mtime_nsec as i64),
        },
    )
}
