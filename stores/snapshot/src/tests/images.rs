//! Snapshots whose committed layers are EROFS images.

use std::os::unix::fs::FileTypeExt;

use berth_sys::mount::{info, mount_all, unmount_all};
use testkit::tree::Tree;

use super::*;

fn erofs(root: &Path) -> Arc<dyn Snapshotter> {
    erofs::open(root, erofs::Config::default()).unwrap()
}

/// Whether this machine can do it; the probe says why not.
fn needed() -> Result<(), need::Missing> {
    need::root()?;
    let scratch = Scratch::new();
    let opened = erofs::open(&scratch.path("root"), erofs::Config::default());
    need::that(
        opened.is_ok(),
        &format!("EROFS ({})", opened.err().map(|e| e.to_string()).unwrap_or_default()),
    )
}

/// Mounts below a folder.
fn mounted(folder: &Path) -> Vec<(String, String)> {
    let beneath = info::own().unwrap().into_iter().filter(|mount| mount.point.starts_with(folder));
    beneath.map(|mount| (mount.kind, mount.source.to_string_lossy().into_owned())).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn erofs_is_a_snapshotter() {
    let Ok(()) = needed() else { return };
    conformance::snapshot::all(erofs).await;
    conformance::snapshot::reopening(erofs).await;
    conformance::snapshot::all(as_one).await;
    conformance::snapshot::reopening(as_one).await;
}

/// The same with all layers mounted as one wherever there are two.
fn as_one(root: &Path) -> Arc<dyn Snapshotter> {
    let config = erofs::Config { max_unmerged_layers: 1, ..Default::default() };
    erofs::open(root, config).unwrap()
}

#[tokio::test]
async fn many_layers_are_one_mount() {
    let Ok(()) = needed() else { return };
    let scratch = Scratch::new();
    let config = erofs::Config { max_unmerged_layers: 2, ..Default::default() };
    let snapshots = erofs::open(&scratch.path("root"), config).unwrap();
    let tree = scratch.path("root/snapshots").display().to_string();
    let (s, mut parent) = (&*snapshots, "");
    for (number, name) in ["one", "two", "three"].into_iter().enumerate() {
        s.prepare(new("layer", parent)).await.unwrap();
        fs::write(scratch.path(format!("root/snapshots/{}/fs/{name}", number + 1)), name).unwrap();
        s.commit(&key(name), &key("layer"), Labels::new()).await.unwrap();
        parent = name;
    }
    assert_eq!(mounted(scratch.folder()).len(), 2, "what takes a layer stands on two of them");
    let mounts = s.prepare(new("active", "three")).await.unwrap();
    let upper = format!("workdir={tree}/4/work,upperdir={tree}/4/fs");
    assert_eq!(words(&mounts), format!("overlay overlay {upper},lowerdir={tree}/3/merged"));
    assert_eq!(mounted(scratch.folder()).len(), 3);
    let mounts = s.view(new("view", "three")).await.unwrap();
    assert_eq!(words(&mounts), format!("bind {tree}/3/merged ro,rbind"));
    assert_eq!(mounted(scratch.folder()).len(), 3, "both have the same");
    for name in ["one", "two", "three"] {
        assert_eq!(fs::read_to_string(Path::new(&tree).join("3/merged").join(name)).unwrap(), name);
    }
    let mounts = s.prepare(new("short", "two")).await.unwrap();
    assert!(words(&mounts).ends_with(&format!("lowerdir={tree}/2/fs:{tree}/1/fs")), "{}", words(&mounts));
    for name in ["short", "active", "view", "three"] {
        s.remove(&key(name)).await.unwrap();
    }
    s.cleanup().await.unwrap();
    assert_eq!(mounted(scratch.folder()).len(), 2, "those of the layers that are left");
    for name in ["two", "one"] {
        s.remove(&key(name)).await.unwrap();
    }
    s.cleanup().await.unwrap();
    assert_eq!(fs::read_dir(scratch.path("root/snapshots")).unwrap().count(), 0);
}

#[tokio::test]
async fn layers_that_cannot_be_seen_as_one_are_mounted_one_by_one() {
    let Ok(()) = needed() else { return };
    let scratch = Scratch::new();
    let snapshots = as_one(&scratch.path("root"));
    layer(&*snapshots, "one", "").await;
    layer(&*snapshots, "two", "one").await;
    // As a kernel with metadata of files copied up alone leaves it.
    let mut builder = berth_erofs::Builder::new(fs::File::create(scratch.path("image")).unwrap()).unwrap();
    let root = builder.root();
    let file = builder.file(root, b"file", &Default::default(), 0, &mut &b""[..]).unwrap();
    builder.set_xattr(file, b"file", b"trusted.overlay.metacopy", b"").unwrap();
    builder.finish([0; 16]).unwrap();
    fs::rename(scratch.path("image"), scratch.path("root/snapshots/2/layer.erofs")).unwrap();
    let mounts = snapshots.view(new("view", "two")).await.unwrap();
    let tree = scratch.path("root/snapshots").display().to_string();
    assert_eq!(words(&mounts), format!("overlay overlay lowerdir={tree}/2/fs:{tree}/1/fs"));
    assert_eq!(fs::metadata(scratch.path("root/snapshots/2/fsmeta.erofs")).unwrap().len(), 0);
}

#[tokio::test]
async fn mounts_of_images_are_ones_that_any_client_can_mount() {
    let Ok(()) = needed() else { return };
    let scratch = Scratch::new();
    let config = erofs::Config { ovl_mount_options: vec!["index=off".into()], ..Default::default() };
    let snapshots = erofs::open(&scratch.path("root"), config).unwrap();
    let tree = scratch.path("root/snapshots").display().to_string();
    let s = &*snapshots;
    let mounts = s.prepare(new("first", "")).await.unwrap();
    assert_eq!(words(&mounts), format!("bind {tree}/1/fs rw,rbind"));
    assert!(scratch.path("root/snapshots/1/.erofslayer").is_file());
    s.commit(&key("one"), &key("first"), Labels::new()).await.unwrap();
    let mounts = s.view(new("single", "one")).await.unwrap();
    assert_eq!(words(&mounts), format!("erofs {tree}/1/layer.erofs ro,loop"));
    assert_eq!(mounted(scratch.folder()), [], "nobody but the client needs it");
    let mounts = s.prepare(new("second", "one")).await.unwrap();
    let upper = format!("workdir={tree}/3/work,upperdir={tree}/3/fs");
    assert_eq!(words(&mounts), format!("overlay overlay {upper},lowerdir={tree}/1/fs,index=off"));
    assert_eq!(mounted(scratch.folder()).len(), 1, "its parent's image is mounted once");
    s.commit(&key("two"), &key("second"), Labels::new()).await.unwrap();
    let mounts = s.view(new("double", "two")).await.unwrap();
    assert_eq!(words(&mounts), format!("overlay overlay lowerdir={tree}/3/fs:{tree}/1/fs,index=off"));
    assert_eq!(mounted(scratch.folder()).len(), 2);
    for name in ["double", "single", "two", "one"] {
        s.remove(&key(name)).await.unwrap();
    }
    s.cleanup().await.unwrap();
    assert_eq!(mounted(scratch.folder()), []);
    assert_eq!(fs::read_dir(scratch.path("root/snapshots")).unwrap().count(), 0);
}

#[tokio::test]
async fn everything_that_was_written_is_in_the_image() {
    let Ok(()) = needed() else { return };
    let scratch = Scratch::new();
    let snapshots = erofs(&scratch.path("root"));
    let point = scratch.path("mnt");
    fs::create_dir(&point).unwrap();
    layer(&*snapshots, "base", "").await;
    let mounts = snapshots.prepare(new("active", "base")).await.unwrap();
    mount_all(&mounts, &point).unwrap();
    fs::create_dir(point.join("dir")).unwrap();
    fs::write(point.join("dir/file"), vec![7; 10_000]).unwrap();
    fs::hard_link(point.join("dir/file"), point.join("dir/other")).unwrap();
    symlink("dir/file", point.join("link")).unwrap();
    let fifo = rustix::fs::FileType::Fifo;
    rustix::fs::mknodat(rustix::fs::CWD, point.join("fifo"), fifo, 0o640.into(), 0).unwrap();
    drop(std::os::unix::net::UnixListener::bind(point.join("socket")).unwrap());
    let sparse = fs::File::create(point.join("sparse")).unwrap();
    sparse.set_len(1 << 30).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&sparse, b"end", (1 << 30) - 3).unwrap();
    drop(sparse);
    let flags = rustix::fs::XattrFlags::empty();
    rustix::fs::setxattr(point.join("dir"), "user.of", b"dir", flags).unwrap();
    let written = Tree::read(&point).without_root();
    unmount_all(&point).unwrap();
    let before = snapshots.usage(&key("active")).await.unwrap();
    snapshots.commit(&key("done"), &key("active"), Labels::new()).await.unwrap();
    let usage = snapshots.usage(&key("done")).await.unwrap();
    assert_eq!(usage.inodes, before.inodes);
    assert!(usage.size < 200_000, "the hole takes nothing: {usage:?}");
    let mounts = snapshots.view(new("view", "done")).await.unwrap();
    mount_all(&mounts, &point).unwrap();
    written.assert_same(&Tree::read(&point).without_root(), "an upper folder and its image");
    assert!(fs::metadata(point.join("socket")).unwrap().file_type().is_socket());
    unmount_all(&point).unwrap();
    assert_eq!(fs::read_dir(scratch.path("root/snapshots/1/fs")).unwrap().count(), 0);
}

#[tokio::test]
async fn what_an_earlier_daemon_mounted_is_found_again() {
    let Ok(()) = needed() else { return };
    let scratch = Scratch::new();
    let root = scratch.path("root");
    let snapshots = erofs(&root);
    layer(&*snapshots, "base", "").await;
    let mounts = snapshots.prepare(new("active", "base")).await.unwrap();
    drop(snapshots);
    let snapshots = erofs(&root);
    assert_eq!(snapshots.mounts(&key("active")).await.unwrap(), mounts);
    assert_eq!(mounted(scratch.folder()).len(), 1);
    // As after a reboot.
    unmount_all(&root.join("snapshots/1/fs")).unwrap();
    assert_eq!(snapshots.mounts(&key("active")).await.unwrap(), mounts);
    assert_eq!(mounted(scratch.folder()).len(), 1);
}

#[tokio::test]
async fn a_commit_that_was_cut_off_before_its_image_had_its_name_is_completed() {
    let Ok(()) = needed() else { return };
    let scratch = Scratch::new();
    let snapshots = erofs(&scratch.path("root"));
    let folder = scratch.path("root/snapshots/1");
    snapshots.prepare(new("layer", "")).await.unwrap();
    fs::write(folder.join("fs/file"), "text").unwrap();
    snapshots.commit(&key("base"), &key("layer"), Labels::new()).await.unwrap();
    fs::rename(folder.join("layer.erofs"), folder.join("sealed.erofs")).unwrap();
    fs::write(folder.join("fs/file"), "text").unwrap();
    let mounts = snapshots.prepare(new("active", "base")).await.unwrap();
    let point = scratch.path("mnt");
    fs::create_dir(&point).unwrap();
    mount_all(&mounts, &point).unwrap();
    assert_eq!(fs::read_to_string(point.join("file")).unwrap(), "text");
    unmount_all(&point).unwrap();
    unmount_all(&folder.join("fs")).unwrap();
    assert_eq!(fs::read_dir(folder.join("fs")).unwrap().count(), 0, "what it was made of is freed");
}

#[tokio::test]
async fn an_immutable_image_can_be_removed_by_us_alone() {
    let Ok(()) = needed() else { return };
    let scratch = Scratch::new();
    let config = erofs::Config { set_immutable: true, ..Default::default() };
    let snapshots = erofs::open(&scratch.path("root"), config).unwrap();
    layer(&*snapshots, "base", "").await;
    // As a differ leaves it.
    snapshots.prepare(new("layer", "")).await.unwrap();
    fs::copy(scratch.path("root/snapshots/1/layer.erofs"), scratch.path("root/snapshots/2/layer.erofs"))
        .unwrap();
    snapshots.commit(&key("applied"), &key("layer"), Labels::new()).await.unwrap();
    for (number, name) in [(1, "base"), (2, "applied")] {
        let image = scratch.path(format!("root/snapshots/{number}/layer.erofs"));
        let refused = fs::remove_file(&image);
        snapshots.remove(&key(name)).await.unwrap();
        snapshots.cleanup().await.unwrap();
        assert!(!image.exists());
        assert_eq!(refused.unwrap_err().kind(), std::io::ErrorKind::PermissionDenied);
    }
}

fn limited(root: &Path) -> Arc<dyn Snapshotter> {
    erofs::open(root, erofs::Config { default_size: "16MiB".into(), ..Default::default() }).unwrap()
}

/// What a limit of size needs beside.
fn needed_for_limits() -> Result<(), need::Missing> {
    needed()?;
    need::path("/dev/loop-control")?;
    need::program("mkfs.ext4").map(drop)
}

#[tokio::test(flavor = "multi_thread")]
async fn erofs_with_limited_room_is_a_snapshotter() {
    let Ok(()) = needed_for_limits() else { return };
    conformance::snapshot::all(limited).await;
    conformance::snapshot::reopening(limited).await;
}

#[tokio::test]
async fn what_a_container_writes_has_an_end() {
    let Ok(()) = needed_for_limits() else { return };
    let scratch = Scratch::new();
    let root = scratch.path("root");
    let snapshots = limited(&root);
    let point = scratch.path("mnt");
    fs::create_dir(&point).unwrap();
    snapshots.prepare(new("extract-1 layer", "")).await.unwrap();
    assert!(!root.join("snapshots/1/rwlayer.img").exists(), "a layer has no limit");
    fs::write(root.join("snapshots/1/fs/below"), "text").unwrap();
    snapshots.commit(&key("base"), &key("extract-1 layer"), Labels::new()).await.unwrap();

    let mounts = snapshots.prepare(new("active", "base")).await.unwrap();
    let own = root.join("snapshots/2").display().to_string();
    let upper = format!("workdir={own}/rw/work,upperdir={own}/rw/upper");
    assert_eq!(
        words(&mounts),
        format!("overlay overlay {upper},lowerdir={}/fs", root.join("snapshots/1").display())
    );
    mount_all(&mounts, &point).unwrap();
    assert_eq!(fs::read_to_string(point.join("below")).unwrap(), "text");
    fs::write(point.join("fits"), vec![1; 1 << 20]).unwrap();
    let full = fs::write(point.join("does-not"), vec![1; 32 << 20]).unwrap_err();
    assert_eq!(full.kind(), std::io::ErrorKind::StorageFull);
    fs::remove_file(point.join("does-not")).unwrap();
    fs::remove_file(point.join("below")).unwrap();
    unmount_all(&point).unwrap();

    // The next daemon, after the machine was started again.
    drop(snapshots);
    unmount_all(&root.join("snapshots/2/rw")).unwrap();
    let snapshots = limited(&root);
    let usage = snapshots.usage(&key("active")).await.unwrap();
    assert!((1 << 20..4 << 20).contains(&usage.size), "{usage:?}");
    assert_eq!(snapshots.mounts(&key("active")).await.unwrap(), mounts);
    snapshots.commit(&key("done"), &key("active"), Labels::new()).await.unwrap();
    assert!(!root.join("snapshots/2/rwlayer.img").exists() && !root.join("snapshots/2/rw").exists());

    let mounts = snapshots.view(new("view", "done")).await.unwrap();
    mount_all(&mounts, &point).unwrap();
    assert_eq!(fs::read(point.join("fits")).unwrap(), vec![1; 1 << 20]);
    assert!(!point.join("below").exists());
    unmount_all(&point).unwrap();
    snapshots.prepare(new("other", "done")).await.unwrap();
    for name in ["other", "view", "done", "base"] {
        snapshots.remove(&key(name)).await.unwrap();
    }
    snapshots.cleanup().await.unwrap();
    assert_eq!(mounted(scratch.folder()), []);
    assert_eq!(fs::read_dir(root.join("snapshots")).unwrap().count(), 0);
}

#[test]
fn what_cannot_be_had_is_refused_by_its_key() {
    let scratch = Scratch::new();
    for (config, key) in [
        (erofs::Config { enable_fsverity: true, ..Default::default() }, "enable_fsverity"),
        (erofs::Config { default_size: "lots".into(), ..Default::default() }, "default_size"),
        (erofs::Config { default_size: "1MiB".into(), ..Default::default() }, "4 MiB"),
        (erofs::Config { dmverity_mode: "on".into(), ..Default::default() }, "dmverity_mode"),
        (erofs::Config { dmverity_mode: "maybe".into(), ..Default::default() }, "maybe"),
    ] {
        let Err(OpenError::Failed { source, .. }) = erofs::open(&scratch.path("root"), config) else {
            panic!("{key} was taken");
        };
        assert!(source.chain().contains(key), "{}", source.chain());
    }
}
