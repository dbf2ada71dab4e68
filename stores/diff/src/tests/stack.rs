//! Layers from one stack of snapshots, put onto others: whatever the snapshotter, the tree is the same.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use berth_core::{ApplyRequest, CompareRequest, Differ, NewSnapshot, Snapshotter};
use berth_oci::image::media;
use berth_snapshot::{erofs, native, overlayfs};
use berth_types::{Descriptor, Labels, SnapshotKey};
use proptest::prelude::*;
use testkit::need;
use testkit::tree::Tree;

use super::compare::build;
use super::{Fixture, mount};

fn new(name: &str, parent: Option<&str>) -> NewSnapshot {
    NewSnapshot { key: key(name), parent: parent.map(key), labels: Labels::new() }
}

fn key(name: &str) -> SnapshotKey {
    name.parse().unwrap()
}

/// The tree of a committed snapshot as a container sees it.
async fn seen(snapshots: &dyn Snapshotter, name: &str, point: &Path) -> Tree {
    let mounts = snapshots.view(new("seen", Some(name))).await.unwrap();
    berth_sys::mount::mount_all(&mounts, point).unwrap();
    let tree = Tree::read(point).without_root().in_whole_seconds().without_directory_times();
    berth_sys::mount::unmount_all(point).unwrap();
    snapshots.remove(&key("seen")).await.unwrap();
    tree
}

/// Makes a snapshot of what `steps` do on top of `parent`, and the layer of it.
async fn make(
    f: &Fixture,
    snapshots: &dyn Snapshotter,
    name: &str,
    parent: Option<&str>,
    steps: &[(u8, u8, u8)],
) -> Descriptor {
    let point = f.folder("point");
    let upper = snapshots.prepare(new("active", parent)).await.unwrap();
    berth_sys::mount::mount_all(&upper, &point).unwrap();
    build(&point, steps);
    berth_sys::mount::unmount_all(&point).unwrap();
    let lower = match parent {
        Some(_) => snapshots.view(new("below", parent)).await.unwrap(),
        None => Vec::new(),
    };
    let media_type = media::OCI_LAYER.to_owned();
    let layer =
        f.differ.compare(CompareRequest { lower, upper, media_type, ..Default::default() }).await.unwrap();
    if parent.is_some() {
        snapshots.remove(&key("below")).await.unwrap();
    }
    snapshots.commit(&key(name), &key("active"), Labels::new()).await.unwrap();
    layer
}

/// Unpacks a stack of layers.
async fn unpack(f: &Fixture, snapshots: &dyn Snapshotter, layers: &[Descriptor]) -> String {
    let mut parent: Option<String> = None;
    for (number, layer) in layers.iter().enumerate() {
        let mounts = snapshots.prepare(new("unpack", parent.as_deref())).await.unwrap();
        let request = ApplyRequest {
            layer: layer.clone(),
            arriving: None,
            mounts,
            payloads: Default::default(),
            sync: false,
        };
        f.differ.apply(request).await.unwrap();
        let name = format!("unpacked-{number}");
        snapshots.commit(&key(&name), &key("unpack"), Labels::new()).await.unwrap();
        parent = Some(name);
    }
    parent.unwrap()
}

async fn check(f: &Fixture, memory: &Path, stack: &[Vec<(u8, u8, u8)>]) {
    let overlay = |name: &str| -> Arc<dyn Snapshotter> {
        overlayfs::open(&memory.join(name), overlayfs::Config::default()).unwrap()
    };
    let first = overlay("first");
    let (mut layers, mut parent): (_, Option<String>) = (Vec::new(), None);
    for (number, steps) in stack.iter().enumerate() {
        let name = format!("made-{number}");
        layers.push(make(f, &*first, &name, parent.as_deref(), steps).await);
        parent = Some(name);
    }
    let point = f.folder("point");
    let expected = seen(&*first, &parent.unwrap(), &point).await;
    let second = overlay("second");
    let top = unpack(f, &*second, &layers).await;
    seen(&*second, &top, &point).await.assert_same(&expected, "unpacked by overlayfs");
    let third = native::open(&memory.join("third"), native::Config::default()).unwrap();
    let top = unpack(f, &*third, &layers).await;
    seen(&*third, &top, &point).await.assert_same(&expected, "unpacked by native");
    if let Ok(fourth) = erofs::open(&memory.join("fourth"), erofs::Config::default()) {
        let top = unpack(f, &*fourth, &layers).await;
        seen(&*fourth, &top, &point).await.assert_same(&expected, "written as images");
        for number in (0..layers.len()).rev() {
            fourth.remove(&key(&format!("unpacked-{number}"))).await.unwrap();
        }
        fourth.cleanup().await.unwrap();
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 20, ..ProptestConfig::default() })]

    #[test]
    fn a_stack_of_layers_gives_the_same_tree_on_every_snapshotter(
        stack in proptest::collection::vec(proptest::collection::vec(any::<(u8, u8, u8)>(), 0..20), 1..4),
    ) {
        let Ok(()) = need::root() else { return Ok(()) };
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let f = Fixture::new();
        let memory = f.folder("memory");
        // Commits flush the filesystem; one in memory has nobody else's data to flush.
        berth_sys::mount::mount_all(&mount("tmpfs", "tmpfs", &[]), &memory).unwrap();
        runtime.block_on(check(&f, &memory, &stack));
        berth_sys::mount::unmount_all(&memory).unwrap();
        fs::remove_dir(&memory).unwrap();
    }
}
