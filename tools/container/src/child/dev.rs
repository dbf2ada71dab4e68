//! The container's /dev: links and device files.

use std::ffi::CStr;
use std::os::fd::BorrowedFd;

use rustix::fs::{AtFlags, FileType, Gid, Mode, OFlags, Uid};
use rustix::io::{Errno, Result};

use super::resolve::{self, Leaf};
use super::rootfs::attach_to;
use super::step::At;
use super::{Failure, Step};
use crate::plan::{Device, Init};

/// Name in /dev and what it points to.
const LINKS: [(&CStr, &CStr); 5] = [
    (c"fd", c"/proc/self/fd"),
    (c"stdin", c"/proc/self/fd/0"),
    (c"stdout", c"/proc/self/fd/1"),
    (c"stderr", c"/proc/self/fd/2"),
    (c"core", c"/proc/kcore"),
];

/// The links that programs expect, and /dev/ptmx as the one of the container's own terminals.
pub(super) fn links(root: BorrowedFd<'_>) -> Result<()> {
    let dev = resolve::find_or_make(root, c"dev", Leaf::Directory)?;
    for (name, target) in LINKS {
        // Not every kernel shows its memory. The host's /proc is still there to be asked.
        if target == c"/proc/kcore" && rustix::fs::stat(target).is_err() {
            continue;
        }
        match rustix::fs::symlinkat(target, &dev, name) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(errno) => return Err(errno),
        }
    }
    match rustix::fs::unlinkat(&dev, c"ptmx", AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => {}
        Err(errno) => return Err(errno),
    }
    rustix::fs::symlinkat(c"pts/ptmx", &dev, c"ptmx")
}

/// Device files: made, or bound from the host where none can be made.
pub(super) fn devices(init: &Init, root: BorrowedFd<'_>) -> std::result::Result<(), Failure> {
    for (n, device) in init.devices.iter().enumerate() {
        one(device, root).nth(Step::Device, n)?;
    }
    Ok(())
}

fn one(device: &Device, root: BorrowedFd<'_>) -> Result<()> {
    if let Some(bind) = &device.bind {
        let place = resolve::find_or_make(root, &device.path, Leaf::File)?;
        return attach_to(bind, place);
    }
    let (parent, name) = resolve::parent_of(root, &device.path)?;
    let kind = FileType::from_raw_mode(device.mode);
    let mode = Mode::from_raw_mode(device.mode & 0o7777);
    match rustix::fs::mknodat(&parent, name, kind, mode, device.device) {
        Ok(()) => {}
        // Somebody's own: in the image, or mounted. Left as it is.
        Err(Errno::EXIST) => return Ok(()),
        Err(errno) => return Err(errno),
    }
    if device.uid == 0 && device.gid == 0 {
        return Ok(());
    }
    let made = rustix::fs::openat(&parent, name, OFlags::PATH | OFlags::NOFOLLOW, Mode::empty())?;
    let (uid, gid) = (Uid::from_raw(device.uid), Gid::from_raw(device.gid));
    rustix::fs::chownat(&made, c"", Some(uid), Some(gid), AtFlags::EMPTY_PATH)
}
