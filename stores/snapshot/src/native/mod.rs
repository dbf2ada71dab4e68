//! Snapshots as whole copies of their parents: slow and large, but on any filesystem.
//!
//! Where the filesystem can share blocks (btrfs, xfs), copies share them.

mod copy;

pub(crate) use copy::{contents as copy_contents, read_xattrs};

use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use berth_core::Snapshotter;
use berth_types::{Error, Mount, Result, SnapshotKind};
use serde::{Deserialize, Serialize};

use crate::backend::{Local, Place, Removal, Shape};
use crate::open::{OpenError, folder};
use crate::trees::Trees;

/// `[plugins."io.containerd.snapshotter.v1.native"]`, with containerd's key.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Where snapshots are kept instead of the daemon's folder; empty means there.
    pub root_path: PathBuf,
}

/// Opens the snapshots below `root`. Blocking.
pub fn open(root: &Path, config: Config) -> Result<Arc<dyn Snapshotter>, OpenError> {
    let root = folder(root, &config.root_path)?;
    Ok(Arc::new(Local::open(&root, Native, Removal::Now)?))
}

struct Native;

impl Shape for Native {
    /// A view of a parent is the parent itself, mounted read-only.
    fn has_folder(&self, place: &Place<'_>) -> bool {
        place.kind != SnapshotKind::View || place.parents.is_empty()
    }

    fn folder_mode(&self) -> u32 {
        0o755
    }

    fn fill(&self, trees: &Trees, folder: &OwnedFd, place: &Place<'_>) -> Result<()> {
        let Some(parent) = place.parents.first() else { return Ok(()) };
        let from = trees.path(*parent);
        copy::tree(&from, folder)
            .map_err(|error| Error::io(format!("cannot copy the parent's tree {}", from.display()), error))
    }

    fn mounts(&self, trees: &Trees, place: &Place<'_>) -> Result<Vec<Mount>> {
        let id = if self.has_folder(place) { Some(&place.id) } else { place.parents.first() };
        let access = if place.kind == SnapshotKind::View { "ro" } else { "rw" };
        let mount = |id: &u64| Mount {
            kind: "bind".into(),
            source: trees.path(*id).to_string_lossy().into_owned(),
            target: String::new(),
            options: vec!["rbind".into(), access.into()],
        };
        Ok(id.into_iter().map(mount).collect())
    }

    fn tree(&self, trees: &Trees, id: u64) -> PathBuf {
        trees.path(id)
    }
}
