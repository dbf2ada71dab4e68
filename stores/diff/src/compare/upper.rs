//! The upper folder of an overlay, which holds what changed and marks of what is gone.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use berth_sys::beneath::{Entry, Root};
use berth_types::{Error, Result};
use rustix::fs::{FileType, Stat};

use super::changes::{Change, What, join};

/// Reads all changes; `None` where the folder refers to lower layers in ways that only the kernel
/// follows (renamed directories, files of which only the attributes were copied).
pub(super) fn changes(root: &Root, prefix: &str) -> Result<Option<Vec<Change>>> {
    let mut changes = Vec::new();
    let mut waiting = vec![Vec::new()];
    while let Some(path) = waiting.pop() {
        let failed = |error| {
            let shown = String::from_utf8_lossy(&path).into_owned();
            Error::io(format!("cannot read {shown:?} of the upper folder"), error)
        };
        let entry = root.entry(Path::new(OsStr::from_bytes(&path))).map_err(failed)?;
        let stat = entry.stat().map_err(failed)?;
        let Some(what) = judge(&entry, &stat, prefix).map_err(failed)? else { return Ok(None) };
        if FileType::from_raw_mode(stat.st_mode) == FileType::Directory {
            let names = entry.read_dir().map_err(failed)?;
            waiting.extend(names.iter().rev().map(|name| join(&path, name.as_bytes())));
        }
        if !path.is_empty() {
            changes.push(Change { path, what });
        }
    }
    Ok(Some(changes))
}

fn judge(entry: &Entry<'_>, stat: &Stat, prefix: &str) -> std::io::Result<Option<What>> {
    match FileType::from_raw_mode(stat.st_mode) {
        FileType::CharacterDevice if stat.st_rdev == 0 => Ok(Some(What::Removed)),
        FileType::Directory | FileType::RegularFile => {
            let mut what = What::Written;
            for name in entry.xattr_names()? {
                match name.to_str().and_then(|name| name.strip_prefix(prefix)) {
                    Some("redirect" | "metacopy" | "whiteouts") => return Ok(None),
                    Some("opaque") => match entry.xattr(&name)?.as_deref() {
                        Some(b"y") => what = What::Replaced,
                        Some(b"x") => return Ok(None),
                        _ => {}
                    },
                    _ => {}
                }
            }
            Ok(Some(what))
        }
        _ => Ok(Some(What::Written)),
    }
}
