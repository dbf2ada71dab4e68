//! What every snapshotter has to do, whatever it is made of and wherever it runs.
//!
//! ```no_run
//! # async fn test(open: impl Fn(&std::path::Path) -> std::sync::Arc<dyn berth_core::Snapshotter>) {
//! testkit::conformance::snapshot::all(open).await;
//! # }
//! ```
//! Each check gets a snapshotter of its own. The checks mount, so they need root's rights. Snapshots are
//! labelled as roots, so that a garbage collection between does not take them.

mod records;
mod trees;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use berth_core::{NewSnapshot, Snapshotter};
use berth_types::{Labels, Mount, Result, SnapshotKey};

use crate::Scratch;

/// Runs every check, each on what `open` gives for a new folder.
pub async fn all(open: impl Fn(&Path) -> Arc<dyn Snapshotter>) {
    trees::usage_is_of_a_snapshot_alone(Fixture::new(&open)).await;
    of_images(open).await;
}

/// The checks of a snapshotter whose snapshots are images of filesystems: it cannot tell how many files are in one.
pub async fn of_images(open: impl Fn(&Path) -> Arc<dyn Snapshotter>) {
    let fixture = || Fixture::new(&open);
    records::an_active_snapshot_becomes_a_committed_one(fixture()).await;
    records::names_are_taken_once(fixture()).await;
    records::parents_have_to_be_committed(fixture()).await;
    records::what_has_children_stays(fixture()).await;
    records::what_is_not_there_is_not_found(fixture()).await;
    records::only_labels_change(fixture()).await;
    records::labels_do_not_pass_to_the_committed_one(fixture()).await;
    records::filters_choose(fixture()).await;
    records::committed_snapshots_have_no_mounts(fixture()).await;
    records::a_parent_can_come_with_the_commit(fixture()).await;
    records::several_are_committed_at_once(fixture()).await;
    records::one_of_many_makers_of_a_name_wins(fixture()).await;
    trees::each_layer_adds_to_the_one_below(fixture()).await;
    trees::removed_files_stay_removed_above(fixture()).await;
    trees::views_cannot_be_written(fixture()).await;
    trees::the_root_is_open_to_read(fixture()).await;
    trees::owners_modes_and_names_change_in_the_upper_tree_only(fixture()).await;
    trees::many_layers_give_one_tree(fixture()).await;
    trees::a_name_is_free_after_removal(fixture()).await;
}

/// The checks of a snapshotter that keeps its state in the folder: `open` is called again on it.
pub async fn reopening(open: impl Fn(&Path) -> Arc<dyn Snapshotter>) {
    records::everything_is_there_after_reopening(&open).await;
}

/// A snapshotter, a folder for mount points, and short words.
struct Fixture {
    snapshots: Option<Arc<dyn Snapshotter>>,
    scratch: Scratch,
}

impl Fixture {
    fn new(open: &impl Fn(&Path) -> Arc<dyn Snapshotter>) -> Self {
        let scratch = Scratch::new();
        let snapshots = Some(open(&scratch.path("root")));
        Self { snapshots, scratch }
    }

    fn snapshots(&self) -> &dyn Snapshotter {
        self.snapshots.as_deref().expect("the snapshotter lives as long as the fixture")
    }

    async fn prepare(&self, name: &str, parent: &str) -> Result<Vec<Mount>> {
        self.snapshots().prepare(new(name, parent)).await
    }

    async fn view(&self, name: &str, parent: &str) -> Result<Vec<Mount>> {
        self.snapshots().view(new(name, parent)).await
    }

    async fn commit(&self, name: &str, active: &str) -> Result<()> {
        self.snapshots().commit(&key(name), &key(active), labels(&[])).await
    }

    /// A committed snapshot of what `write` puts on top of `parent`.
    async fn layer(&self, name: &str, parent: &str, write: impl FnOnce(&Path)) {
        let active = format!("{name}-active");
        let mounts = self.prepare(&active, parent).await.expect("prepare a layer");
        write(&self.mount(&active, &mounts));
        self.unmount(&active);
        self.commit(name, &active).await.expect("commit a layer");
    }

    fn point(&self, name: &str) -> PathBuf {
        self.scratch.path(format!("mnt-{}", name.replace('/', "_")))
    }

    fn mount(&self, name: &str, mounts: &[Mount]) -> PathBuf {
        let point = self.point(name);
        std::fs::create_dir_all(&point).expect("make a mount point");
        berth_sys::mount::mount_all(mounts, &point)
            .unwrap_or_else(|error| panic!("cannot mount {name} as {mounts:?}: {error:?}"));
        point
    }

    fn unmount(&self, name: &str) {
        berth_sys::mount::unmount_all(&self.point(name)).expect("unmount");
    }
}

fn key(name: &str) -> SnapshotKey {
    name.parse().expect("a test's key is not empty")
}

fn labels(pairs: &[(&str, &str)]) -> Labels {
    let root = std::iter::once(("containerd.io/gc.root", "conformance"));
    root.chain(pairs.iter().copied()).map(|(key, value)| (key.to_owned(), value.to_owned())).collect()
}

fn new(name: &str, parent: &str) -> NewSnapshot {
    NewSnapshot { key: key(name), parent: parent.parse().ok(), labels: labels(&[]) }
}
