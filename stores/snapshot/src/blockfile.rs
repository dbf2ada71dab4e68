//! Snapshots as images of a filesystem in files, each a copy of its parent's: for runtimes that give a block device to
//! a virtual machine.
//!
//! ```text
//!   ROOT/scratch    the image of an empty filesystem, which the first snapshot of a chain is a copy of
//!   N/image         the image of snapshot N
//! ```
//! Copies share blocks where the filesystem below can (btrfs, xfs); holes stay holes everywhere. A mount is the file by a
//! loop device, as with containerd: `ext4 FILE loop,rw`. A view of a parent is the parent's own, mounted read-only.

use std::fs::{self, File};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use berth_core::Snapshotter;
use berth_types::{Error, Mount, Result, SnapshotKind, Usage};
use rustix::fs::{Mode, OFlags};
use serde::{Deserialize, Serialize};

use crate::backend::{Local, Place, Removal, Shape};
use crate::native;
use crate::open::{OpenError, folder};
use crate::trees::Trees;

const IMAGE: &str = "image";

/// `[plugins."io.containerd.snapshotter.v1.blockfile"]`, with containerd's keys.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Where snapshots are kept instead of the daemon's folder; empty means there.
    pub root_path: PathBuf,
    /// The image of an empty filesystem. Without one there is no such snapshotter, unless one was copied before.
    pub scratch_file: PathBuf,
    /// The filesystem in the images; empty means ext4.
    pub fs_type: String,
    /// More options for the mounts.
    pub mount_options: Vec<String>,
    /// Whether `scratch_file` is copied anew at each start, and not only where there is no copy yet.
    pub recreate_scratch: bool,
}

/// Opens the snapshots below `root`.
///
/// `Skipped` where nobody has given the image of an empty filesystem. Blocking.
pub fn open(root: &Path, config: Config) -> Result<Arc<dyn Snapshotter>, OpenError> {
    let root = folder(root, &config.root_path)?;
    let scratch = root.join("scratch");
    if config.recreate_scratch || !scratch.exists() {
        let given = &config.scratch_file;
        if given.as_os_str().is_empty() {
            return Err(OpenError::Skipped(
                "no scratch_file is configured: make one, for example with truncate and mkfs.ext4".to_owned(),
            ));
        }
        let what = || format!("cannot copy scratch_file {}", given.display());
        keep(given, &root).map_err(|error| OpenError::failed(&root, Error::io(what(), error)))?;
    }
    let mut options = config.mount_options;
    if !options.iter().any(|option| option == "loop") {
        options.push("loop".to_owned());
    }
    let kind = if config.fs_type.is_empty() { "ext4".to_owned() } else { config.fs_type };
    Ok(Arc::new(Local::open(&root, Blockfile { kind, options, scratch }, Removal::Now)?))
}

/// Takes the image of an empty filesystem to the snapshots, whole or not at all.
fn keep(given: &Path, root: &Path) -> io::Result<()> {
    fs::create_dir_all(root)?;
    let partial = root.join("scratch.new");
    let copy = File::create(&partial)?;
    fill(&File::open(given)?, &copy)?;
    copy.sync_all()?;
    fs::rename(&partial, root.join("scratch"))
}

fn fill(from: &File, to: &File) -> io::Result<()> {
    native::copy_contents(from, to, from.metadata()?.len())
}

struct Blockfile {
    kind: String,
    options: Vec<String>,
    scratch: PathBuf,
}

impl Shape for Blockfile {
    fn has_folder(&self, place: &Place<'_>) -> bool {
        place.kind != SnapshotKind::View || place.parents.is_empty()
    }

    fn folder_mode(&self) -> u32 {
        0o700
    }

    fn fill(&self, trees: &Trees, folder: &OwnedFd, place: &Place<'_>) -> Result<()> {
        let parent = place.parents.first().map(|parent| self.tree(trees, *parent));
        let from = parent.as_deref().unwrap_or(&self.scratch);
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
        let made = rustix::fs::openat(folder, IMAGE, flags, Mode::RUSR | Mode::WUSR).map_err(io::Error::from);
        made.and_then(|made| fill(&File::open(from)?, &File::from(made)))
            .map_err(|error| Error::io(format!("cannot copy the image {}", from.display()), error))
    }

    fn mounts(&self, trees: &Trees, place: &Place<'_>) -> Result<Vec<Mount>> {
        let id = if self.has_folder(place) { place.id } else { place.parents[0] };
        let access = if place.kind == SnapshotKind::View { "ro" } else { "rw" };
        let mut options = self.options.clone();
        options.push(access.to_owned());
        let source = self.tree(trees, id).to_string_lossy().into_owned();
        Ok(vec![Mount { kind: self.kind.clone(), source, target: String::new(), options }])
    }

    fn tree(&self, trees: &Trees, id: u64) -> PathBuf {
        trees.path(id).join(IMAGE)
    }

    /// The blocks of the file. What it shares with its parent's cannot be told apart.
    fn measure(&self, trees: &Trees, id: u64) -> io::Result<Usage> {
        let found = fs::metadata(self.tree(trees, id))?;
        Ok(Usage { inodes: 1, size: found.blocks() * 512 })
    }
}
