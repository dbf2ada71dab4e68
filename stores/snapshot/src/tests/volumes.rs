//! Snapshots as subvolumes, and as images of filesystems.

use std::fs::File;
use std::path::PathBuf;

use berth_sys::mount::info;
use testkit::volume::{Volume, empty_ext4};

use super::*;
use crate::{blockfile, btrfs};

/// The folder on a volume that stands for one elsewhere.
fn on(volume: &Volume, path: &Path) -> PathBuf {
    volume.root().join(path.strip_prefix("/").unwrap())
}

fn subvolumes(root: &Path) -> Arc<dyn Snapshotter> {
    btrfs::open(root, btrfs::Config::default()).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn btrfs_is_a_snapshotter() {
    let Ok(volume) = Volume::btrfs() else { return };
    conformance::snapshot::all(|root| subvolumes(&on(&volume, root))).await;
    conformance::snapshot::reopening(|root| subvolumes(&on(&volume, root))).await;
}

#[tokio::test]
async fn mounts_of_subvolumes_are_containerds() {
    let Ok(volume) = Volume::btrfs() else { return };
    let root = volume.root().join("snapshots");
    let s = &*subvolumes(&root);
    let source = info::of(&volume.root()).unwrap().source.to_string_lossy().into_owned();
    let mounts = s.prepare(new("first", "")).await.unwrap();
    let first = berth_sys::subvolume::of(File::open(root.join("snapshots/1/fs")).unwrap()).unwrap().id;
    assert_eq!(words(&mounts), format!("btrfs {source} subvolid={first}"));
    s.commit(&key("one"), &key("first"), Labels::new()).await.unwrap();
    let mounts = s.view(new("view", "one")).await.unwrap();
    assert_eq!(words(&mounts), format!("btrfs {source} subvolid={first},ro"));
    assert!(fs::write(root.join("snapshots/1/fs/new"), "").is_err(), "what is committed is closed to writes");
    let mounts = s.prepare(new("second", "one")).await.unwrap();
    assert!(words(&mounts) != format!("btrfs {source} subvolid={first}"), "{mounts:?}");
}

#[tokio::test]
async fn a_subvolume_goes_with_all_that_was_made_in_it_and_shares_what_it_can() {
    let Ok(volume) = Volume::btrfs() else { return };
    let root = volume.root().join("snapshots");
    let s = &*subvolumes(&root);
    s.prepare(new("first", "")).await.unwrap();
    fs::write(root.join("snapshots/1/fs/large"), vec![7; 4 << 20]).unwrap();
    s.commit(&key("one"), &key("first"), Labels::new()).await.unwrap();
    s.prepare(new("second", "one")).await.unwrap();
    let second = root.join("snapshots/2/fs");
    fs::write(second.join("small"), "x").unwrap();
    let usage = s.usage(&key("second")).await.unwrap();
    assert_eq!(usage.inodes, 2, "its root and one file are its own: {usage:?}");
    assert!(usage.size < 1 << 20, "{usage:?}");

    // What a container with rights over its filesystem may do.
    let folder = File::open(&second).unwrap();
    berth_sys::subvolume::create(&folder, c"inner").unwrap();
    fs::write(second.join("inner/file"), "x").unwrap();
    drop(folder);
    for name in ["second", "one"] {
        s.remove(&key(name)).await.unwrap();
    }
    s.cleanup().await.unwrap();
    assert_eq!(fs::read_dir(root.join("snapshots")).unwrap().count(), 0);
}

#[test]
fn another_filesystem_is_said_to_be_one() {
    let scratch = Scratch::new();
    let opened = btrfs::open(&scratch.path("root"), btrfs::Config::default());
    let Err(OpenError::Skipped(why)) = opened else { panic!("it should be skipped") };
    assert!(why.contains("root_path") && why.contains(&scratch.path("root").display().to_string()), "{why}");
}

fn files(scratch_file: &Path) -> blockfile::Config {
    blockfile::Config { scratch_file: scratch_file.to_owned(), ..Default::default() }
}

#[tokio::test(flavor = "multi_thread")]
async fn blockfile_is_a_snapshotter() {
    let scratch = Scratch::new();
    let Ok(empty) = empty_ext4(&scratch, 24 << 20) else { return };
    let open = |root: &Path| blockfile::open(root, files(&empty)).unwrap();
    conformance::snapshot::of_images(open).await;
    conformance::snapshot::reopening(open).await;
}

#[tokio::test]
async fn mounts_of_images_in_files_are_containerds() {
    let scratch = Scratch::new();
    let given = scratch.file("given", "an image");
    let config =
        blockfile::Config { mount_options: vec!["noatime".into()], fs_type: "xfs".into(), ..files(&given) };
    let snapshots = blockfile::open(&scratch.path("root"), config).unwrap();
    let tree = scratch.path("root/snapshots").display().to_string();
    let mounts = snapshots.prepare(new("first", "")).await.unwrap();
    assert_eq!(words(&mounts), format!("xfs {tree}/1/image noatime,loop,rw"));
    fs::write(scratch.path("root/snapshots/1/image"), "changed").unwrap();
    snapshots.commit(&key("one"), &key("first"), Labels::new()).await.unwrap();
    let mounts = snapshots.view(new("view", "one")).await.unwrap();
    assert_eq!(words(&mounts), format!("xfs {tree}/1/image noatime,loop,ro"));
    snapshots.prepare(new("second", "one")).await.unwrap();
    assert_eq!(fs::read_to_string(scratch.path("root/snapshots/3/image")).unwrap(), "changed");
}

#[test]
fn without_an_empty_filesystem_there_are_no_images_in_files() {
    let scratch = Scratch::new();
    let root = scratch.path("root");
    let opened = |config| blockfile::open(&root, config);
    let Err(OpenError::Skipped(why)) = opened(blockfile::Config::default()) else {
        panic!("it should be skipped")
    };
    assert!(why.contains("scratch_file"), "{why}");
    let Err(OpenError::Failed { source, .. }) = opened(files(&scratch.path("absent"))) else {
        panic!("it should fail")
    };
    assert!(source.to_string().contains("absent"), "{source}");
    let given = scratch.file("given", "an image");
    opened(files(&given)).unwrap();
    // What was copied once is enough.
    opened(blockfile::Config::default()).unwrap();
}
