//! What is seen in the mounts of snapshots.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::Path;

use berth_types::SnapshotKind;
use berth_types::filter::Filters;

use super::{Fixture, key};
use crate::tree::Tree;

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|error| panic!("cannot read {}: {error}", path.display()))
}

fn write(path: &Path, text: &str) {
    fs::write(path, text).unwrap_or_else(|error| panic!("cannot write {}: {error}", path.display()));
}

pub(super) async fn each_layer_adds_to_the_one_below(f: Fixture) {
    f.layer("one", "", |point| {
        write(&point.join("foo"), "foo");
        fs::create_dir_all(point.join("a/b")).expect("mkdir");
    })
    .await;
    f.layer("two", "one", |point| {
        assert_eq!(read(&point.join("foo")), "foo");
        write(&point.join("foo"), "changed");
        write(&point.join("a/b/bar"), "bar");
    })
    .await;
    let mounts = f.prepare("top", "two").await.expect("prepare");
    let top = f.mount("top", &mounts);
    assert_eq!((read(&top.join("foo")), read(&top.join("a/b/bar"))), ("changed".into(), "bar".into()));
    let mounts = f.view("below", "one").await.expect("view");
    let below = f.mount("below", &mounts);
    assert_eq!(read(&below.join("foo")), "foo");
    assert!(!below.join("a/b/bar").exists());
    f.unmount("top");
    f.unmount("below");
}

pub(super) async fn removed_files_stay_removed_above(f: Fixture) {
    f.layer("one", "", |point| {
        write(&point.join("file"), "1");
        fs::create_dir(point.join("dir")).expect("mkdir");
        write(&point.join("dir/old"), "1");
    })
    .await;
    f.layer("two", "one", |point| {
        fs::remove_file(point.join("file")).expect("remove");
        fs::remove_dir_all(point.join("dir")).expect("remove");
        fs::create_dir(point.join("dir")).expect("mkdir");
        write(&point.join("dir/new"), "2");
    })
    .await;
    f.layer("three", "two", |_| {}).await;
    let mounts = f.view("view", "three").await.expect("view");
    let point = f.mount("view", &mounts);
    assert!(!point.join("file").exists());
    assert!(!point.join("dir/old").exists());
    assert_eq!(read(&point.join("dir/new")), "2");
    f.unmount("view");
}

pub(super) async fn views_cannot_be_written(f: Fixture) {
    f.layer("one", "", |point| write(&point.join("file"), "1")).await;
    f.layer("two", "one", |point| write(&point.join("other"), "2")).await;
    for (name, parent) in [("empty", ""), ("single", "one"), ("double", "two")] {
        let mounts = f.view(name, parent).await.expect("view");
        let point = f.mount(name, &mounts);
        let error = fs::write(point.join("new"), "x").expect_err("a view is read-only");
        assert_eq!(error.kind(), std::io::ErrorKind::ReadOnlyFilesystem, "{name}");
        f.unmount(name);
    }
}

pub(super) async fn the_root_is_open_to_read(f: Fixture) {
    f.layer("base", "", |_| {}).await;
    for (name, parent) in [("first", ""), ("second", "base")] {
        let mounts = f.prepare(name, parent).await.expect("prepare");
        let point = f.mount(name, &mounts);
        assert_eq!(fs::metadata(&point).expect("stat").mode() & 0o7777, 0o755, "{name}");
        f.unmount(name);
    }
}

pub(super) async fn owners_modes_and_names_change_in_the_upper_tree_only(f: Fixture) {
    f.layer("one", "", |point| {
        fs::create_dir(point.join("dir")).expect("mkdir");
        write(&point.join("dir/file"), "1");
        fs::set_permissions(point.join("dir"), fs::Permissions::from_mode(0o1777)).expect("chmod");
        chown(point.join("dir/file"), Some(7), Some(8)).expect("chown");
        chown(point, Some(3), Some(4)).expect("chown the root");
    })
    .await;
    let mounts = f.prepare("two", "one").await.expect("prepare");
    let point = f.mount("two", &mounts);
    let root = fs::metadata(&point).expect("stat");
    assert_eq!((root.uid(), root.gid()), (3, 4), "the root's owner passes on");
    assert_eq!(fs::metadata(point.join("dir")).expect("stat").mode() & 0o7777, 0o1777);
    chown(point.join("dir/file"), Some(1), Some(2)).expect("chown");
    fs::rename(point.join("dir/file"), point.join("dir/renamed")).expect("rename");
    fs::set_permissions(point.join("dir"), fs::Permissions::from_mode(0o700)).expect("chmod");
    f.unmount("two");
    f.commit("two-done", "two").await.expect("commit");
    let mounts = f.view("above", "two-done").await.expect("view");
    let above = f.mount("above", &mounts);
    let file = fs::metadata(above.join("dir/renamed")).expect("stat");
    assert_eq!((file.uid(), file.gid()), (1, 2));
    assert_eq!(fs::metadata(above.join("dir")).expect("stat").mode() & 0o7777, 0o700);
    f.unmount("above");
    let mounts = f.view("below", "one").await.expect("view");
    let below = f.mount("below", &mounts);
    let file = fs::metadata(below.join("dir/file")).expect("stat");
    assert_eq!((file.uid(), file.gid()), (7, 8));
    f.unmount("below");
}

pub(super) async fn usage_is_of_a_snapshot_alone(f: Fixture) {
    let mounts = f.prepare("active", "").await.expect("prepare");
    let empty = f.snapshots().usage(&key("active")).await.expect("usage");
    assert!(empty.inodes >= 1);
    let point = f.mount("active", &mounts);
    write(&point.join("a"), &"x".repeat(100_000));
    fs::hard_link(point.join("a"), point.join("b")).expect("link");
    f.unmount("active");
    let usage = f.snapshots().usage(&key("active")).await.expect("usage");
    assert_eq!(usage.inodes, empty.inodes + 1, "two names are one inode");
    assert!(usage.size >= empty.size + 100_000 && usage.size < empty.size + 200_000, "{usage:?}");
    f.commit("base", "active").await.expect("commit");
    let committed = f.snapshots().usage(&key("base")).await.expect("usage");
    // Delayed allocation may settle between both looks.
    assert_eq!(committed.inodes, usage.inodes);
    f.view("view", "base").await.expect("view");
    assert_eq!(f.snapshots().usage(&key("view")).await.expect("usage").inodes, 0);
}

pub(super) async fn many_layers_give_one_tree(f: Fixture) {
    const LAYERS: usize = 128;
    let flat = f.scratch.path("flat");
    fs::create_dir(&flat).expect("mkdir");
    fs::set_permissions(&flat, fs::Permissions::from_mode(0o755)).expect("chmod");
    let change = |point: &Path, number: usize| {
        write(&point.join("overwritten"), &format!("by {number}"));
        fs::create_dir_all(point.join("grows")).expect("mkdir");
        write(&point.join(format!("grows/{number}")), "same");
        let _ = fs::remove_dir_all(point.join("replaced"));
        fs::create_dir(point.join("replaced")).expect("mkdir");
        write(&point.join(format!("replaced/{number}")), "only me");
    };
    let mut parent = String::new();
    for number in 0..LAYERS {
        let name = format!("layer-{number}");
        change(&flat, number);
        f.layer(&name, &parent, |point| change(point, number)).await;
        parent = name;
    }
    let mounts = f.view("view", &parent).await.expect("view");
    let point = f.mount("view", &mounts);
    let contents = |path: &Path| {
        let mut tree = Tree::read(path).without_directory_times();
        for file in tree.0.values_mut() {
            file.mtime = (0, 0);
        }
        tree
    };
    contents(&flat).assert_same(&contents(&point), "128 layers and one folder");
    f.unmount("view");
    f.snapshots().remove(&key("view")).await.expect("remove");
    for number in (0..LAYERS).rev() {
        f.snapshots().remove(&key(&format!("layer-{number}"))).await.expect("remove");
    }
    f.snapshots().cleanup().await.expect("cleanup");
}

pub(super) async fn a_name_is_free_after_removal(f: Fixture) {
    for round in 0..3 {
        let mounts = f.prepare("same", "").await.expect("prepare");
        let point = f.mount("same", &mounts);
        assert_eq!(fs::read_dir(&point).expect("list").count(), 0, "round {round} begins empty");
        write(&point.join("file"), "x");
        f.unmount("same");
        f.snapshots().remove(&key("same")).await.expect("remove");
        f.snapshots().cleanup().await.expect("cleanup");
    }
    f.view("same", "").await.expect("a view has the name now");
    let all = f.snapshots().list(&Filters::default()).await.expect("list");
    assert_eq!((all.len(), all[0].kind), (1, SnapshotKind::View));
}
