//! The folder that an overlay's changes go into, `N/fs`, and the one it works in, `N/work`.

use std::io;
use std::os::fd::OwnedFd;
use std::path::PathBuf;

use berth_sys::beneath::Owner;
use berth_types::{Error, Result, SnapshotKind};
use rustix::fs::{AtFlags, CWD};

use crate::backend::Place;
use crate::mapping;
use crate::trees::{Trees, give, make_dir};

/// What root owns needs no gift.
const ROOT: Owner = Owner { uid: 0, gid: 0 };

/// Where a snapshot's changes are.
pub(crate) fn path(trees: &Trees, id: u64) -> PathBuf {
    trees.path(id).join("fs")
}

/// Makes them in a snapshot's own folder, the second only for an active one.
pub(crate) fn make(trees: &Trees, folder: &OwnedFd, place: &Place<'_>) -> Result<()> {
    let owner = owner(trees, place)?;
    let make = || -> io::Result<()> {
        let tree = make_dir(folder, "fs", 0o755)?;
        if let Some(owner) = owner.filter(|owner| *owner != ROOT) {
            give(&tree, owner)?;
        }
        if place.kind == SnapshotKind::Active {
            make_dir(folder, "work", 0o711)?;
        }
        Ok(())
    };
    make().map_err(|error| Error::io(format!("cannot fill {}", trees.path(place.id).display()), error))
}

/// Who owns the root of the new tree: root of the user namespace, or who owns the parent's. (Beneath a mounted image it
/// has the owner of the image's root.)
fn owner(trees: &Trees, place: &Place<'_>) -> Result<Option<Owner>> {
    if let Some(root) = mapping::root(place.labels)? {
        return Ok(Some(root));
    }
    let Some(parent) = place.parents.first() else { return Ok(None) };
    let path = path(trees, *parent);
    let stat = rustix::fs::statat(CWD, &path, AtFlags::SYMLINK_NOFOLLOW).map_err(|error| {
        Error::io(format!("cannot look at the parent's tree {}", path.display()), error.into())
    })?;
    Ok(Some(Owner { uid: stat.st_uid, gid: stat.st_gid }))
}
