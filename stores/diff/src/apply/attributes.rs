//! Owner, attributes, mode and times of what was made.

use std::ffi::OsStr;
use std::io;
use std::os::fd::BorrowedFd;
use std::os::unix::ffi::OsStrExt;

use berth_archive::Entry as Member;
use berth_sys::beneath::{Entry, Owner};
use rustix::fs::{Gid, Mode, Uid};
use rustix::io::Errno;

use crate::mounted::Whiteouts;
use crate::xattr;

/// Finishes an open file or directory, but for its times. Owner first, because it clears set-id bits and
/// capabilities; mode last.
///
/// A change of attributes is a transaction of the filesystem even if it changes nothing, and a look is not; most
/// files of most layers are root's, which made them, and have the mode that they were made with. Asked is the file
/// itself: in a folder with the set-group-id bit or an access list, or below a mount that maps ids, a new one is
/// somebody else's.
pub(super) fn finish_open(file: BorrowedFd<'_>, member: &Member, whiteouts: &Whiteouts) -> io::Result<()> {
    let stat = rustix::fs::fstat(file)?;
    let mut finished = Mode::from_raw_mode(stat.st_mode) == Mode::from_raw_mode(member.mode);
    if (stat.st_uid, stat.st_gid) != (member.uid, member.gid) {
        finished = false;
        rustix::fs::fchown(file, Some(Uid::from_raw(member.uid)), Some(Gid::from_raw(member.gid)))?;
    }
    for (name, value) in &member.xattrs {
        if is_allowed(name, whiteouts) {
            // An access list is a mode too.
            finished = false;
            tolerate(xattr::set(file, name, value), name)?;
        }
    }
    if !finished {
        rustix::fs::fchmod(file, Mode::from_raw_mode(member.mode))?;
    }
    Ok(())
}

/// Finishes what cannot be opened, but for its times; a symlink has no mode.
pub(super) fn finish_unopened(
    entry: &Entry<'_>,
    member: &Member,
    whiteouts: &Whiteouts,
    has_mode: HasMode,
) -> io::Result<()> {
    entry.set_owner(Owner { uid: member.uid, gid: member.gid })?;
    for (name, value) in &member.xattrs {
        if is_allowed(name, whiteouts) {
            tolerate(entry.set_xattr(OsStr::from_bytes(name), value), name)?;
        }
    }
    if has_mode == HasMode::Yes { entry.set_mode(member.mode) } else { Ok(()) }
}

/// Whether a kind of file has permission bits of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum HasMode {
    Yes,
    No,
}

/// A layer may not set what the administrator's tools and overlayfs itself read.
fn is_allowed(name: &[u8], whiteouts: &Whiteouts) -> bool {
    if name.starts_with(b"trusted.") {
        return false;
    }
    match whiteouts {
        Whiteouts::Overlay { .. } => !name.starts_with(b"user.overlay."),
        Whiteouts::Remove => true,
    }
}

/// The filesystem may have no attributes, and `user.` ones only exist on files and directories.
fn tolerate(set: io::Result<()>, name: &[u8]) -> io::Result<()> {
    match set {
        Err(error) => match Errno::from_io_error(&error) {
            Some(Errno::OPNOTSUPP) => Ok(()),
            Some(Errno::PERM) if name.starts_with(b"user.") => Ok(()),
            _ => Err(error),
        },
        Ok(()) => Ok(()),
    }
}
