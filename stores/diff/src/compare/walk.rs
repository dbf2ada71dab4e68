//! Two trees side by side.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::io;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::Path;

use berth_sys::beneath::{Entry, Root};
use berth_types::{Error, Result};
use rustix::fs::{FileType, Stat};

use super::changes::{Change, What, join};
use super::same::same;

/// Which of the trees have a path.
#[derive(Clone, Copy, Debug, Default)]
struct Sides {
    lower: bool,
    upper: bool,
}

/// Tells every difference, directories before what is in them, names in byte order.
pub(super) fn changes(
    lower: Option<&Root>,
    upper: &Root,
    tell: &mut dyn FnMut(&Change) -> Result<()>,
) -> Result<()> {
    // What is still to be looked at, the next last.
    let mut waiting = vec![(Vec::new(), Sides { lower: lower.is_some(), upper: true })];
    while let Some((path, sides)) = waiting.pop() {
        let failed = |error| {
            let shown = String::from_utf8_lossy(&path).into_owned();
            Error::io(format!("cannot compare {shown:?}"), error)
        };
        if !sides.upper {
            tell(&Change { path, what: What::Removed })?;
            continue;
        }
        let after = find(upper, &path).map_err(failed)?;
        let before = match lower.filter(|_| sides.lower) {
            Some(lower) => Some(find(lower, &path).map_err(failed)?),
            None => None,
        };
        let what = judge(before.as_ref(), &after).map_err(failed)?;
        if let Some(what) = what.filter(|_| !path.is_empty()) {
            tell(&Change { path: path.clone(), what })?;
        }
        if is_directory(&after.1) {
            let before = before.filter(|(_, stat)| is_directory(stat)).map(|(entry, _)| entry);
            let inside = list(before.as_ref(), &after.0).map_err(failed)?;
            waiting.extend(inside.into_iter().rev().map(|(name, sides)| (join(&path, &name), sides)));
        }
    }
    Ok(())
}

fn find<'r>(root: &'r Root, path: &[u8]) -> io::Result<(Entry<'r>, Stat)> {
    let entry = root.entry(Path::new(OsStr::from_bytes(path)))?;
    let stat = entry.stat()?;
    Ok((entry, stat))
}

fn judge(before: Option<&(Entry<'_>, Stat)>, after: &(Entry<'_>, Stat)) -> io::Result<Option<What>> {
    let Some(before) = before else { return Ok(Some(What::Written)) };
    if !same((&before.0, &before.1), (&after.0, &after.1))? {
        return Ok(Some(What::Written));
    }
    let linked = !is_directory(&after.1) && after.1.st_nlink > 1;
    Ok(linked.then_some(What::SameLinked))
}

fn is_directory(stat: &Stat) -> bool {
    FileType::from_raw_mode(stat.st_mode) == FileType::Directory
}

fn list(before: Option<&Entry<'_>>, after: &Entry<'_>) -> io::Result<BTreeMap<Vec<u8>, Sides>> {
    let mut names: BTreeMap<Vec<u8>, Sides> = BTreeMap::new();
    for name in after.read_dir()? {
        names.entry(OsString::into_vec(name)).or_default().upper = true;
    }
    if let Some(before) = before {
        for name in before.read_dir()? {
            names.entry(OsString::into_vec(name)).or_default().lower = true;
        }
    }
    Ok(names)
}
