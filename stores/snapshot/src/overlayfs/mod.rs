//! Snapshots as layers of the kernel's overlay filesystem.
//!
//! Snapshot N keeps what it changes in `N/fs`, the overlay's upper folder, beside `N/work` while it is
//! active. The mounts are the ones that containerd 2.3 gives, word for word, because clients look into
//! them: a bind mount without parents or of a view of one layer, else an overlay.

mod probe;

pub(crate) use probe::{in_user_namespace, maps_ids, supported};

use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use berth_core::Snapshotter;
use berth_types::{Labels, Mount, Result, SnapshotKind};
use serde::{Deserialize, Serialize};

use crate::backend::{Local, Place, Removal, Shape};
use crate::mapping;
use crate::open::{OpenError, folder};
use crate::trees::Trees;
use crate::upper;

/// berth's own word beside containerd's `rebase`: the differ refuses a layer that cannot be unpacked without its
/// parents, instead of guessing what they are like.
const APART: &str = "berth.apart";

/// The label that tells where a snapshot's own changes are.
const UPPERDIR_LABEL: &str = "containerd.io/snapshot/overlay.upperdir";

/// `[plugins."io.containerd.snapshotter.v1.overlayfs"]`, with containerd's keys.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Where snapshots are kept instead of the daemon's folder; empty means there.
    pub root_path: PathBuf,
    /// Whether each snapshot tells its upper folder in a label.
    pub upperdir_label: bool,
    /// Whether a removal answers only when the files are gone.
    pub sync_remove: bool,
    /// Whether clients may change the owners of whole trees where the kernel cannot map ids.
    pub slow_chown: bool,
    /// More options for overlay mounts, such as `volatile` or `metacopy=on`.
    pub mount_options: Vec<String>,
}

/// Opens the snapshots below `root`.
///
/// `Skipped` where the kernel refuses an overlay on that filesystem, which is tried once. Blocking.
pub fn open(root: &Path, config: Config) -> Result<Arc<dyn Snapshotter>, OpenError> {
    let root = folder(root, &config.root_path)?;
    probe::supported(&root)?;
    let shape = Overlay {
        options: options(&root, config.mount_options),
        remap: probe::maps_ids(),
        upperdir_label: config.upperdir_label,
    };
    let removal = if config.sync_remove { Removal::Now } else { Removal::AtCleanup };
    Ok(Arc::new(Local::open(&root, shape, removal)?))
}

/// What introspection tells clients about this snapshotter on this machine.
pub fn capabilities(config: &Config) -> Vec<&'static str> {
    let remap = probe::maps_ids().then_some("remap-ids");
    let only = (!config.slow_chown).then_some("only-remap-ids");
    // Removals in a tree without its parents are device nodes, which a user namespace may not make.
    let own_xattrs = config.mount_options.iter().any(|option| option == "userxattr");
    let apart = (!own_xattrs && !probe::in_user_namespace()).then_some(["rebase", APART]);
    remap.into_iter().chain(only).chain(apart.into_iter().flatten()).collect()
}

/// The configured options with those that this machine needs.
fn options(root: &Path, mut options: Vec<String>) -> Vec<String> {
    let given =
        |options: &[String], key: &str| options.iter().any(|option| option.split('=').next() == Some(key));
    if !given(&options, "userxattr") && probe::needs_user_xattrs(root) {
        options.push("userxattr".into());
    }
    if !given(&options, "index") && probe::knows_index() {
        options.push("index=off".into());
    }
    options
}

struct Overlay {
    options: Vec<String>,
    remap: bool,
    upperdir_label: bool,
}

fn upper(trees: &Trees, id: u64) -> String {
    upper::path(trees, id).to_string_lossy().into_owned()
}

impl Shape for Overlay {
    fn has_folder(&self, _place: &Place<'_>) -> bool {
        true
    }

    fn folder_mode(&self) -> u32 {
        0o700
    }

    fn fill(&self, trees: &Trees, folder: &OwnedFd, place: &Place<'_>) -> Result<()> {
        upper::make(trees, folder, place)
    }

    fn mounts(&self, trees: &Trees, place: &Place<'_>) -> Result<Vec<Mount>> {
        let mut options = if self.remap { mapping::options(place.labels) } else { Vec::new() };
        let writable = place.kind == SnapshotKind::Active;
        let bound = match place.parents {
            [] => Some(place.id),
            [only] if !writable => Some(*only),
            _ => None,
        };
        if let Some(id) = bound {
            options.extend([if writable { "rw" } else { "ro" }.to_owned(), "rbind".to_owned()]);
            return Ok(vec![mount("bind", upper(trees, id), options)]);
        }
        if writable {
            options.push(format!("workdir={}", trees.path(place.id).join("work").display()));
            options.push(format!("upperdir={}", upper(trees, place.id)));
        }
        let lower: Vec<String> = place.parents.iter().map(|id| upper(trees, *id)).collect();
        options.push(format!("lowerdir={}", lower.join(":")));
        options.extend_from_slice(&self.options);
        Ok(vec![mount("overlay", "overlay".to_owned(), options)])
    }

    fn tree(&self, trees: &Trees, id: u64) -> PathBuf {
        trees.path(id).join("fs")
    }

    fn rebases(&self) -> bool {
        true
    }

    fn add_labels(&self, trees: &Trees, id: u64, labels: &mut Labels) {
        if self.upperdir_label {
            labels.insert(UPPERDIR_LABEL.to_owned(), upper(trees, id));
        }
    }
}

fn mount(kind: &str, source: String, options: Vec<String>) -> Mount {
    Mount { kind: kind.to_owned(), source, target: String::new(), options }
}
