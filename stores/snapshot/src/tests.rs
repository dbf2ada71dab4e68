use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::Path;
use std::sync::Arc;

use berth_core::{NewSnapshot, Snapshotter};
use berth_types::filter::Filters;
use berth_types::{ErrorKind, Labels, Mount, SnapshotKey};
use testkit::{Scratch, conformance, need};

use crate::{OpenError, erofs, native, overlayfs};

mod images;
mod model;
mod volumes;

fn overlay(root: &Path) -> Arc<dyn Snapshotter> {
    overlayfs::open(root, overlayfs::Config::default()).unwrap()
}

fn copies(root: &Path) -> Arc<dyn Snapshotter> {
    native::open(root, native::Config::default()).unwrap()
}

fn key(name: &str) -> SnapshotKey {
    name.parse().unwrap()
}

fn new(name: &str, parent: &str) -> NewSnapshot {
    NewSnapshot { key: key(name), parent: parent.parse().ok(), labels: Labels::new() }
}

async fn layer(snapshots: &dyn Snapshotter, name: &str, parent: &str) {
    snapshots.prepare(new("layer", parent)).await.unwrap();
    snapshots.commit(&key(name), &key("layer"), Labels::new()).await.unwrap();
}

fn words(mounts: &[Mount]) -> String {
    let one = |mount: &Mount| format!("{} {} {}", mount.kind, mount.source, mount.options.join(","));
    mounts.iter().map(one).collect::<Vec<_>>().join("; ")
}

#[tokio::test(flavor = "multi_thread")]
async fn overlayfs_is_a_snapshotter() {
    let Ok(()) = need::root() else { return };
    conformance::snapshot::all(overlay).await;
    conformance::snapshot::reopening(overlay).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn native_is_a_snapshotter() {
    let Ok(()) = need::root() else { return };
    conformance::snapshot::all(copies).await;
    conformance::snapshot::reopening(copies).await;
}

#[tokio::test]
async fn overlay_mounts_are_containerds_word_for_word() {
    let scratch = Scratch::new();
    let config = overlayfs::Config { mount_options: vec!["volatile".into()], ..Default::default() };
    let snapshots = overlayfs::open(&scratch.path("root"), config).unwrap();
    let tree = scratch.path("root/snapshots").display().to_string();
    let s = &*snapshots;
    let mounts = s.prepare(new("first", "")).await.unwrap();
    assert_eq!(words(&mounts), format!("bind {tree}/1/fs rw,rbind"));
    s.commit(&key("one"), &key("first"), Labels::new()).await.unwrap();
    let mounts = s.view(new("single", "one")).await.unwrap();
    assert_eq!(words(&mounts), format!("bind {tree}/1/fs ro,rbind"));
    let mounts = s.prepare(new("second", "one")).await.unwrap();
    let upper = format!("workdir={tree}/3/work,upperdir={tree}/3/fs");
    assert_eq!(words(&mounts), format!("overlay overlay {upper},lowerdir={tree}/1/fs,volatile,index=off"));
    s.commit(&key("two"), &key("second"), Labels::new()).await.unwrap();
    let mounts = s.view(new("double", "two")).await.unwrap();
    assert_eq!(
        words(&mounts),
        format!("overlay overlay lowerdir={tree}/3/fs:{tree}/1/fs,volatile,index=off")
    );
    let mounts = s.view(new("empty", "")).await.unwrap();
    assert_eq!(words(&mounts), format!("bind {tree}/5/fs ro,rbind"));
}

#[tokio::test]
async fn native_mounts_are_containerds_word_for_word() {
    let scratch = Scratch::new();
    let snapshots = copies(&scratch.path("root"));
    let tree = scratch.path("root/snapshots").display().to_string();
    layer(&*snapshots, "one", "").await;
    let mounts = snapshots.prepare(new("a", "one")).await.unwrap();
    assert_eq!(words(&mounts), format!("bind {tree}/2 rbind,rw"));
    let mounts = snapshots.view(new("v", "one")).await.unwrap();
    assert_eq!(words(&mounts), format!("bind {tree}/1 rbind,ro"));
}

#[tokio::test]
async fn a_copy_has_the_extended_attributes_of_its_parent() {
    let scratch = Scratch::new();
    let snapshots = copies(&scratch.path("root"));
    snapshots.prepare(new("layer", "")).await.unwrap();
    let tree = scratch.path("root/snapshots/1");
    fs::create_dir(tree.join("dir")).unwrap();
    fs::write(tree.join("file"), "").unwrap();
    let none = rustix::fs::XattrFlags::empty();
    for name in ["dir", "file"] {
        rustix::fs::setxattr(tree.join(name), "user.of", name.as_bytes(), none).unwrap();
    }
    snapshots.commit(&key("base"), &key("layer"), Labels::new()).await.unwrap();
    snapshots.prepare(new("copy", "base")).await.unwrap();
    for name in ["dir", "file"] {
        let mut value = [0; 100];
        let length =
            rustix::fs::getxattr(scratch.path("root/snapshots/2").join(name), "user.of", &mut value[..]);
        assert_eq!(&value[..length.unwrap()], name.as_bytes());
    }
}

#[tokio::test]
async fn a_mapped_snapshot_belongs_to_the_namespaces_root() {
    let Ok(()) = need::root() else { return };
    let scratch = Scratch::new();
    let snapshots = overlay(&scratch.path("root"));
    layer(&*snapshots, "base", "").await;
    let mut request = new("mapped", "base");
    request.labels = Labels::from([
        ("containerd.io/snapshot/uidmapping".to_owned(), "0:1000:65536".to_owned()),
        ("containerd.io/snapshot/gidmapping".to_owned(), "0:2000:65536".to_owned()),
    ]);
    let mounts = snapshots.prepare(request.clone()).await.unwrap();
    assert!(words(&mounts).starts_with("overlay overlay uidmap=0:1000:65536,gidmap=0:2000:65536,workdir="));
    let upper = fs::metadata(scratch.path("root/snapshots/2/fs")).unwrap();
    assert_eq!((upper.uid(), upper.gid()), (1000, 2000));
    let point = scratch.path("mnt");
    fs::create_dir(&point).unwrap();
    berth_sys::mount::mount_all(&mounts, &point).unwrap();
    berth_sys::mount::unmount_all(&point).unwrap();
    request.key = key("broken");
    request.labels.insert("containerd.io/snapshot/gidmapping".to_owned(), "nonsense".to_owned());
    let error = snapshots.prepare(request).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidArgument);
    assert!(!scratch.path("root/snapshots/3").exists(), "a failed snapshot leaves nothing");
}

#[tokio::test]
async fn the_upper_folder_is_told_where_that_is_configured() {
    let scratch = Scratch::new();
    let config = overlayfs::Config { upperdir_label: true, ..Default::default() };
    let snapshots = overlayfs::open(&scratch.path("root"), config).unwrap();
    snapshots.prepare(new("a", "")).await.unwrap();
    let labels = snapshots.stat(&key("a")).await.unwrap().labels;
    let upper = scratch.path("root/snapshots/1/fs").display().to_string();
    assert_eq!(labels.get("containerd.io/snapshot/overlay.upperdir"), Some(&upper));
}

#[tokio::test]
async fn folders_that_no_record_names_go_with_a_cleanup() {
    let scratch = Scratch::new();
    let root = scratch.path("root");
    let snapshots = overlay(&root);
    snapshots.prepare(new("kept", "")).await.unwrap();
    snapshots.prepare(new("gone", "")).await.unwrap();
    snapshots.remove(&key("gone")).await.unwrap();
    assert!(root.join("snapshots/2").exists(), "removal is quick");
    // What a crash between making a folder and writing its record leaves, in the way of the next number.
    fs::create_dir_all(root.join("snapshots/3/fs")).unwrap();
    snapshots.prepare(new("next", "")).await.unwrap();
    assert!(root.join("snapshots/4/fs").exists());
    // A removal that a crash ended half-way.
    fs::create_dir_all(root.join("snapshots/rm-2/fs")).unwrap();
    // A link planted among the folders is removed, not followed.
    let canary = scratch.path("canary");
    fs::create_dir(&canary).unwrap();
    fs::write(canary.join("file"), "x").unwrap();
    symlink(&canary, root.join("snapshots/9")).unwrap();
    symlink(&canary, root.join("snapshots/3/fs/link")).unwrap();
    snapshots.cleanup().await.unwrap();
    let mut left: Vec<_> =
        fs::read_dir(root.join("snapshots")).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    left.sort();
    assert_eq!(left, ["1", "4"]);
    snapshots.remove(&key("next")).await.unwrap();
    snapshots.cleanup().await.unwrap();
    assert!(!root.join("snapshots/4").exists(), "later cleanups know what was removed");
    assert_eq!(fs::read_to_string(canary.join("file")).unwrap(), "x");
}

#[tokio::test]
async fn synchronous_removal_waits_for_the_files() {
    let scratch = Scratch::new();
    let config = overlayfs::Config { sync_remove: true, ..Default::default() };
    let snapshots = overlayfs::open(&scratch.path("root"), config).unwrap();
    snapshots.prepare(new("a", "")).await.unwrap();
    snapshots.remove(&key("a")).await.unwrap();
    assert!(!scratch.path("root/snapshots/1").exists());
}

#[test]
fn two_daemons_cannot_share_a_folder() {
    let scratch = Scratch::new();
    let first = copies(&scratch.path("root"));
    match native::open(&scratch.path("root"), native::Config::default()) {
        Err(OpenError::Failed { source, .. }) => assert_eq!(source.kind(), ErrorKind::Unavailable),
        _ => panic!("a second opening has to fail"),
    }
    drop(first);
    copies(&scratch.path("root"));
}

#[test]
fn folders_are_closed_whatever_they_were_before() {
    let scratch = Scratch::new();
    let root = scratch.path("root");
    fs::create_dir_all(root.join("snapshots")).unwrap();
    for folder in [&root, &root.join("snapshots")] {
        fs::set_permissions(folder, fs::Permissions::from_mode(0o755)).unwrap();
    }
    let _open = overlay(&root);
    for folder in [&root, &root.join("snapshots")] {
        assert_eq!(fs::metadata(folder).unwrap().mode() & 0o777, 0o700);
    }
}

#[tokio::test]
async fn a_lost_parent_takes_only_its_children_along() {
    let scratch = Scratch::new();
    let root = scratch.path("root");
    {
        let s = overlay(&root);
        layer(&*s, "one", "").await;
        layer(&*s, "two", "one").await;
        layer(&*s, "other", "").await;
        s.prepare(new("active", "two")).await.unwrap();
    }
    let journal = root.join("journal");
    let text = fs::read_to_string(&journal).unwrap();
    let damaged: Vec<String> = text
        .lines()
        .map(|line| {
            if line.contains("\"one\",{") { line.replace("committed", "c0mmitted") } else { line.to_owned() }
        })
        .collect();
    fs::write(&journal, damaged.join("\n") + "\n").unwrap();
    for _ in 0..2 {
        let s = overlay(&root);
        // The line before the damaged one still says that it is active.
        let left: Vec<String> =
            s.list(&Filters::default()).await.unwrap().iter().map(|info| info.key.to_string()).collect();
        assert!(left.contains(&"other".to_owned()), "{left:?}");
        assert!(!left.iter().any(|name| ["one", "two", "active"].contains(&name.as_str())), "{left:?}");
    }
    assert!(root.join("journal.damaged").exists());
}

#[tokio::test]
async fn after_a_reboot_snapshots_without_their_folder_are_dropped() {
    let scratch = Scratch::new();
    let root = scratch.path("root");
    {
        let s = overlay(&root);
        layer(&*s, "kept", "").await;
        layer(&*s, "lost", "").await;
        s.prepare(new("above", "lost")).await.unwrap();
    }
    fs::remove_dir_all(root.join("snapshots/2")).unwrap();
    let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap();
    // The same journal as another boot would have written it.
    let mut journal = Vec::new();
    for line in fs::read_to_string(root.join("journal")).unwrap().lines() {
        let body = line[17..].replace(boot.trim(), "another");
        let sum = body.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |sum, byte| {
            (sum ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
        });
        journal.push(format!("{sum:016x} {body}\n"));
    }
    fs::write(root.join("journal"), journal.concat()).unwrap();
    let s = overlay(&root);
    let left: Vec<String> =
        s.list(&Filters::default()).await.unwrap().iter().map(|info| info.key.to_string()).collect();
    assert_eq!(left, ["kept"]);
}

#[tokio::test]
async fn a_full_disk_refuses_new_snapshots_and_still_removes_old_ones() {
    let Ok(()) = need::root() else { return };
    let scratch = Scratch::new();
    let root = scratch.path("root");
    fs::create_dir(&root).unwrap();
    let small = Mount {
        kind: "tmpfs".into(),
        source: "tmpfs".into(),
        target: String::new(),
        options: vec!["size=1m".into()],
    };
    berth_sys::mount::mount_all(&[small], &root).unwrap();
    {
        let s = overlay(&root);
        for number in 0..3 {
            s.prepare(new(&number.to_string(), "")).await.unwrap();
        }
        let filling = fs::write(root.join("snapshots/1/fs/filling"), vec![0; 2 << 20]);
        assert!(filling.is_err());
        let mut made = 3;
        let error = loop {
            match s.prepare(new(&made.to_string(), "")).await {
                Ok(_) => made += 1,
                Err(error) => break error,
            }
            assert!(made < 2000, "the disk has to become full");
        };
        assert_eq!(error.kind(), ErrorKind::ResourceExhausted, "{error:?}");
        for number in 0..3 {
            s.remove(&key(&number.to_string())).await.unwrap();
        }
        s.cleanup().await.unwrap();
        s.prepare(new("again", "")).await.unwrap();
    }
    berth_sys::mount::unmount_all(&root).unwrap();
}

#[test]
fn a_filesystem_without_overlays_is_skipped_with_the_way_out() {
    // No overlay stands on proc-like filesystems, and nothing can be made there either.
    let opened = overlayfs::open(Path::new("/proc/berth"), overlayfs::Config::default());
    assert!(matches!(opened, Err(OpenError::Failed { .. })));
    let Ok(()) = need::root() else { return };
    let scratch = Scratch::new();
    let (below, point) = (scratch.path("below"), scratch.path("point"));
    for folder in ["below", "below/l", "below/u", "below/w", "point"] {
        fs::create_dir(scratch.path(folder)).unwrap();
    }
    let path = |name: &str| below.join(name).display().to_string();
    let nested = Mount {
        kind: "overlay".into(),
        source: "overlay".into(),
        target: String::new(),
        options: vec![
            format!("lowerdir={}", path("l")),
            format!("upperdir={}", path("u")),
            format!("workdir={}", path("w")),
        ],
    };
    berth_sys::mount::mount_all(&[nested], &point).unwrap();
    match overlayfs::open(&point.join("root"), overlayfs::Config::default()) {
        Err(OpenError::Skipped(why)) => assert!(why.contains("native"), "{why}"),
        _ => panic!("an overlay cannot be the upper layer of another"),
    }
    berth_sys::mount::unmount_all(&point).unwrap();
}
