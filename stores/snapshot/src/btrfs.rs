//! Snapshots as subvolumes of btrfs, which share with their parent every block that neither has written since.
//!
//! ```text
//!   N/fs    the subvolume; read-only once it is committed
//! ```
//! A mount is the subvolume itself, by its number, as with containerd: `btrfs DEVICE subvolid=257`. A view of a parent
//! is the parent's own, mounted read-only.

use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use berth_core::Snapshotter;
use berth_sys::mount::info::{self, MountInfo};
use berth_sys::subvolume;
use berth_types::{Error, Mount, Result, SnapshotKind, Usage};
use rustix::fs::{AtFlags, CWD, Mode, OFlags, StatxFlags};
use serde::{Deserialize, Serialize};

use crate::backend::{Local, Place, Removal, Shape};
use crate::open::{OpenError, folder};
use crate::trees::Trees;
use crate::usage;

/// `[plugins."io.containerd.snapshotter.v1.btrfs"]`, with containerd's key.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Where snapshots are kept instead of the daemon's folder; empty means there.
    pub root_path: PathBuf,
}

/// Opens the snapshots below `root`.
///
/// `Skipped` where the folder is on another filesystem. Blocking.
pub fn open(root: &Path, config: Config) -> Result<Arc<dyn Snapshotter>, OpenError> {
    let root = folder(root, &config.root_path)?;
    let failed = |what: &str, error| OpenError::failed(&root, Error::io(what, error));
    fs::create_dir_all(&root).map_err(|error| failed("cannot make the folder", error))?;
    let opened = File::open(&root).map_err(|error| failed("cannot open the folder", error))?;
    let mount = mount_of(&opened).map_err(|error| failed("cannot tell its filesystem", error))?;
    if !subvolume::supported(&opened).map_err(|error| failed("cannot tell its filesystem", error))? {
        return Err(OpenError::Skipped(format!(
            "{} is on {}: mount a btrfs there, or name a folder on one with root_path",
            root.display(),
            mount.kind
        )));
    }
    let device = mount.source.to_string_lossy().into_owned();
    Ok(Arc::new(Local::open(&root, Btrfs { device }, Removal::AtCleanup)?))
}

/// The mount that an open folder is on.
fn mount_of(folder: &File) -> io::Result<MountInfo> {
    let id = rustix::fs::statx(folder, "", AtFlags::EMPTY_PATH, StatxFlags::MNT_ID)?.stx_mnt_id;
    let found = info::own()?.into_iter().find(|mount| mount.id == id);
    found.ok_or_else(|| io::Error::from(io::ErrorKind::NotFound))
}

struct Btrfs {
    /// The filesystem's device, for mounts.
    device: String,
}

fn directory(path: &Path) -> io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    Ok(rustix::fs::openat(CWD, path, flags, Mode::empty())?)
}

fn root_of(trees: &Trees, id: u64) -> PathBuf {
    trees.path(id).join("fs")
}

/// Makes the subvolume of a new snapshot in its folder.
fn make(folder: &OwnedFd, parent: Option<&Path>, named: &Path) -> io::Result<()> {
    if let Some(parent) = parent {
        return subvolume::copy(directory(parent)?, folder, c"fs");
    }
    subvolume::create(folder, c"fs")?;
    // Whatever the process' umask is.
    Ok(rustix::fs::fchmod(directory(named)?, Mode::from_raw_mode(0o755))?)
}

/// Removes a subvolume with everything in it, also one that is closed to writes.
fn remove(folder: &Path) -> io::Result<()> {
    let above = directory(folder)?;
    subvolume::set_read_only(directory(&folder.join("fs"))?, false)?;
    subvolume::remove(above.as_fd(), c"fs")
}

impl Shape for Btrfs {
    fn has_folder(&self, place: &Place<'_>) -> bool {
        place.kind != SnapshotKind::View || place.parents.is_empty()
    }

    fn folder_mode(&self) -> u32 {
        0o700
    }

    fn fill(&self, trees: &Trees, folder: &OwnedFd, place: &Place<'_>) -> Result<()> {
        let parent = place.parents.first().map(|parent| root_of(trees, *parent));
        let named = root_of(trees, place.id);
        make(folder, parent.as_deref(), &named)
            .map_err(|error| Error::io(format!("cannot make the subvolume {}", named.display()), error))
    }

    fn mounts(&self, trees: &Trees, place: &Place<'_>) -> Result<Vec<Mount>> {
        let id = if self.has_folder(place) { place.id } else { place.parents[0] };
        let root = root_of(trees, id);
        let subvolume = directory(&root)
            .and_then(subvolume::of)
            .map_err(|error| Error::io(format!("cannot tell the number of {}", root.display()), error))?;
        let mut options = vec![format!("subvolid={}", subvolume.id)];
        if place.kind != SnapshotKind::Active {
            options.push("ro".to_owned());
        }
        let (kind, source) = ("btrfs".to_owned(), self.device.clone());
        Ok(vec![Mount { kind, source, target: String::new(), options }])
    }

    fn tree(&self, trees: &Trees, id: u64) -> PathBuf {
        root_of(trees, id)
    }

    /// A copy keeps its parent's inodes, so what is its own has changed since it was made.
    fn measure(&self, trees: &Trees, id: u64) -> io::Result<Usage> {
        let root = root_of(trees, id);
        let subvolume = subvolume::of(directory(&root)?)?;
        usage::measure_since(&root, subvolume.copied.then_some(subvolume.made))
    }

    fn committed(&self, trees: &Trees, id: u64) {
        let closed = directory(&root_of(trees, id)).and_then(|root| subvolume::set_read_only(root, true));
        if let Err(error) = closed {
            tracing::warn!(id, %error, "cannot close a committed subvolume to writes");
        }
    }

    fn take_down(&self, trees: &Trees, id: u64) {
        match remove(&trees.path(id)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                // The files go one by one, with the folder: a container may have made subvolumes in its own.
                tracing::debug!(id, %error, "cannot remove a subvolume at once");
            }
            _ => {}
        }
    }
}
