//! Whether a file is as it was.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::ffi::OsStrExt;

use berth_sys::beneath::Entry;
use rustix::fs::{FileType, OFlags, Stat};

/// Whether an attribute belongs into a layer: file capabilities and what users set.
pub(super) fn is_archived(name: &OsStr) -> bool {
    let name = name.as_bytes();
    name == b"security.capability" || (name.starts_with(b"user.") && !name.starts_with(b"user.overlay."))
}

/// The attributes that belong into a layer, by name.
pub(super) fn attributes(entry: &Entry<'_>, stat: &Stat) -> io::Result<Vec<(OsString, Vec<u8>)>> {
    if !matches!(FileType::from_raw_mode(stat.st_mode), FileType::RegularFile | FileType::Directory) {
        return Ok(Vec::new());
    }
    let mut found = Vec::new();
    for name in entry.xattr_names()? {
        if is_archived(&name)
            && let Some(value) = entry.xattr(&name)?
        {
            found.push((name, value));
        }
    }
    Ok(found)
}

/// Compares two files of one path.
///
/// Times decide where they have fractions of a second: whoever writes a file today leaves some. Where
/// neither has, as in files that came from a layer, the bytes are compared.
pub(super) fn same(lower: (&Entry<'_>, &Stat), upper: (&Entry<'_>, &Stat)) -> io::Result<bool> {
    let ((lower, before), (upper, after)) = (lower, upper);
    if (before.st_dev, before.st_ino) == (after.st_dev, after.st_ino) {
        return Ok(true);
    }
    let owner = |stat: &Stat| (stat.st_mode, stat.st_uid, stat.st_gid, stat.st_rdev);
    if owner(before) != owner(after) {
        return Ok(false);
    }
    let kind = FileType::from_raw_mode(after.st_mode);
    if kind != FileType::Directory {
        let stamp = |stat: &Stat| (stat.st_size, stat.st_mtime, stat.st_mtime_nsec);
        if stamp(before) != stamp(after) {
            return Ok(false);
        }
    }
    if attributes(lower, before)? != attributes(upper, after)? {
        return Ok(false);
    }
    match kind {
        _ if after.st_mtime_nsec != 0 => Ok(true),
        FileType::Symlink => Ok(lower.read_link()? == upper.read_link()?),
        FileType::RegularFile if after.st_size > 0 => same_bytes(lower, upper),
        _ => Ok(true),
    }
}

fn same_bytes(lower: &Entry<'_>, upper: &Entry<'_>) -> io::Result<bool> {
    let open =
        |entry: &Entry<'_>| Ok::<_, io::Error>(File::from(entry.open(OFlags::RDONLY | OFlags::NONBLOCK)?));
    let (mut lower, mut upper) = (open(lower)?, open(upper)?);
    let (mut one, mut other) = (vec![0; 128 << 10], vec![0; 128 << 10]);
    loop {
        let length = fill(&mut lower, &mut one)?;
        if length != fill(&mut upper, &mut other)? || one[..length] != other[..length] {
            return Ok(false);
        }
        if length == 0 {
            return Ok(true);
        }
    }
}

fn fill(file: &mut File, buffer: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        match file.read(&mut buffer[filled..]) {
            Ok(0) => break,
            Ok(length) => filled += length,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}
