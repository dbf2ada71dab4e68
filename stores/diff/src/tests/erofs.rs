//! Applying to snapshots of erofs: the kernel shows the same as of an unpacked tree, and erofs-utils find no fault.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use berth_archive::{Compression, Hasher};
use berth_core::{NewSnapshot, Snapshotter};
use berth_erofs::Builder;
use berth_snapshot::{erofs, overlayfs};
use berth_types::{ErrorKind, Labels, Mount, SnapshotKey};
use testkit::image::tar::{Entry, Kind, Tar};
use testkit::need;
use testkit::tree::Tree;

use super::apply::{menagerie, pack};
use super::{Fixture, bind, compress, mount};
use crate::ImageForm;

/// An erofs snapshotter beside an overlayfs one; none where the machine cannot have both.
struct Pair {
    f: Fixture,
    images: Arc<dyn Snapshotter>,
    trees: Arc<dyn Snapshotter>,
}

impl Pair {
    fn new() -> Option<Self> {
        Self::with(erofs::Config::default())
    }

    /// The same with all layers of a snapshot mounted as one.
    fn merged() -> Option<Self> {
        Self::with(erofs::Config { max_unmerged_layers: 1, ..Default::default() })
    }

    fn with(config: erofs::Config) -> Option<Self> {
        need::root().ok()?;
        let f = Fixture::new();
        // What is only compared with can do without a disk, whose flushes wait for everybody's data.
        berth_sys::mount::mount_all(&mount("tmpfs", "tmpfs", &[]), &f.folder("trees")).unwrap();
        let images = erofs::open(&f.scratch.path("images"), config);
        let why = images.as_ref().err().map(ToString::to_string).unwrap_or_default();
        need::that(images.is_ok(), &format!("EROFS ({why})")).ok()?;
        let trees = overlayfs::open(&f.scratch.path("trees"), overlayfs::Config::default()).unwrap();
        Some(Self { f, images: images.unwrap(), trees })
    }

    /// Applies layers on top of one another with both.
    async fn apply(&self, layers: &[Vec<u8>]) {
        for snapshots in [&self.images, &self.trees] {
            let mut parent = None;
            for (number, tar) in layers.iter().enumerate() {
                let mounts = snapshots.prepare(new("apply", parent)).await.unwrap();
                let done = self.f.apply(tar.clone(), &mounts).await.unwrap();
                assert_eq!((done.digest, done.size), (Hasher::digest(tar), tar.len() as u64));
                let name = key(&number.to_string());
                snapshots.commit(&name, &key("apply"), Labels::new()).await.unwrap();
                parent = Some(name);
            }
        }
    }

    /// The trees of a committed snapshot, ours first.
    async fn seen(&self, name: &str) -> (Tree, Tree) {
        (see(&self.f, &*self.images, name).await, see(&self.f, &*self.trees, name).await)
    }

    fn image(&self, number: u32) -> PathBuf {
        self.f.scratch.path(format!("images/snapshots/{number}/layer.erofs"))
    }
}

fn key(name: &str) -> SnapshotKey {
    name.parse().unwrap()
}

fn new(name: &str, parent: Option<SnapshotKey>) -> NewSnapshot {
    NewSnapshot { key: key(name), parent, labels: Labels::new() }
}

async fn see(f: &Fixture, snapshots: &dyn Snapshotter, name: &str) -> Tree {
    let mounts = snapshots.view(new("see", Some(key(name)))).await.unwrap();
    let tree = mounted(f, &mounts, |point| Tree::read(point).without_root());
    snapshots.remove(&key("see")).await.unwrap();
    tree
}

fn mounted<T>(f: &Fixture, mounts: &[Mount], look: impl FnOnce(&Path) -> T) -> T {
    let point = f.folder("point");
    berth_sys::mount::mount_all(mounts, &point).unwrap();
    let seen = look(&point);
    berth_sys::mount::unmount_all(&point).unwrap();
    seen
}

/// What erofs-utils have to say about an image.
fn check(image: &Path) {
    let Ok(fsck) = need::program("fsck.erofs") else { return };
    // Only so talkative it says that all is well, and to standard error.
    let done = std::process::Command::new(fsck).arg("-d3").arg(image).output().unwrap();
    let said = String::from_utf8_lossy(&done.stderr).into_owned();
    assert!(done.status.success() && said.contains("No errors found"), "{}: {said}", image.display());
}

fn file(path: &str) -> Entry {
    Entry::new(Kind::File, path)
}

#[tokio::test]
async fn everything_a_tree_can_hold_is_as_unpacked() {
    let Some(pair) = Pair::new() else { return };
    let from = pair.f.folder("from");
    menagerie(&from);
    for (number, options) in [&[][..], &["--sparse"]].iter().enumerate() {
        let tar = pack(&from, &pair.f.scratch.path("a.tar"), options);
        let name = format!("menagerie-{number}");
        let mounts = pair.images.prepare(new("apply", None)).await.unwrap();
        pair.f.apply(tar, &mounts).await.unwrap();
        let upper = fs::read_dir(pair.f.scratch.path(format!("images/snapshots/{}/fs", 2 * number + 1)));
        assert_eq!(upper.unwrap().count(), 0, "nothing is unpacked");
        pair.images.commit(&key(&name), &key("apply"), Labels::new()).await.unwrap();
        let seen = see(&pair.f, &*pair.images, &name).await;
        seen.assert_same(&Tree::read(&from).without_root(), "the image and the original");
        check(&pair.image(2 * number as u32 + 1));
    }
    let (whole, sparse) = (fs::metadata(pair.image(1)).unwrap(), fs::metadata(pair.image(3)).unwrap());
    assert!(sparse.len() + (8 << 20) < whole.len(), "holes stay holes: {} of {}", sparse.len(), whole.len());
}

#[tokio::test]
async fn removals_and_unnamed_folders_in_a_stack_are_as_unpacked() {
    for pair in [Pair::new(), Pair::merged()].into_iter().flatten() {
        removals_and_unnamed_folders(&pair).await;
    }
}

async fn removals_and_unnamed_folders(pair: &Pair) {
    let folder = |path: &str, mode| {
        let mut entry = Entry::new(Kind::Folder, path);
        (entry.mode, entry.uid, entry.gid) = (mode, 5, 6);
        entry
    };
    let below = ["removed", "gone/x", "opaque/x", "opaque/sub/x", "again/x", "kept/x", "file-then-dir"];
    let base = below
        .iter()
        .fold(Tar::default().entry(&folder("unnamed/", 0o1777)), |tar, path| tar.entry(&file(path)));
    let base = base.entry(&file("unnamed/x")).entry(&folder("dir-then-file/", 0o700)).finish();
    let middle = Tar::default()
        .entry(&file(".wh.removed"))
        .entry(&file(".wh.gone"))
        .entry(&file("opaque/.wh..wh..opq"))
        .entry(&file("opaque/sub/new"))
        .entry(&file(".wh.again"))
        .entry(&folder("again/", 0o750))
        .entry(&file("again/new"))
        .entry(&file("unnamed/y"))
        .entry(&folder("file-then-dir/", 0o755))
        .entry(&file("dir-then-file"))
        .finish();
    let top = Tar::default().entry(&file("gone/back")).entry(&file("kept/.wh.x")).finish();
    pair.apply(&[base, middle, top]).await;
    for name in ["0", "1", "2"] {
        let (ours, theirs) = pair.seen(name).await;
        // A folder that no member tells of is made now in a tree, and never in an image.
        ours.without_directory_times().assert_same(&theirs.without_directory_times(), "image and tree");
    }
    (1..=3).for_each(|number| check(&pair.image(number)));
}

#[tokio::test]
async fn a_hundred_thousand_files_are_as_unpacked() {
    let Some(pair) = Pair::new() else { return };
    let tar = (0..100_000).fold(Tar::default(), |tar, number: u32| {
        let folder = if number < 60_000 { "one".to_owned() } else { format!("many/{}", number % 997) };
        let mut entry = file(&format!("{folder}/{number}"));
        entry.mode = 0o600 | (number % 0o200);
        (entry.uid, entry.gid) = (number, number / 3);
        entry.bytes = vec![number as u8; number as usize % 97];
        tar.entry(&entry)
    });
    pair.apply(&[tar.finish()]).await;
    let (ours, theirs) = pair.seen("0").await;
    assert_eq!(ours.0.len(), 100_000 + 1 + 1 + 997);
    ours.without_directory_times().assert_same(&theirs.without_directory_times(), "image and tree");
    check(&pair.image(1));
    let usage = pair.images.usage(&key("0")).await.unwrap();
    assert_eq!(usage.inodes, 100_000 + 1 + 1 + 997 + 1);
}

#[tokio::test]
async fn a_layer_by_itself_is_refused_where_it_needs_those_below() {
    let Some(pair) = Pair::new() else { return };
    let apart = |mounts: Vec<Mount>| {
        let upper = format!("upperdir={}", mounts[0].source);
        mount("overlay", "overlay", &[&upper, "x-berth.apart"])
    };
    let mounts = apart(pair.images.prepare(new("alone", None)).await.unwrap());
    let tar = Tar::default().entry(&file("dir/file")).finish();
    let error = pair.f.apply(tar, &mounts).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::FailedPrecondition, "{error:?}");
    let tar = Tar::default().entry(&Entry::new(Kind::Folder, "dir/")).entry(&file("dir/.wh.x")).finish();
    pair.f.apply(tar, &mounts).await.unwrap();
    let base = pair.images.prepare(new("base", None)).await.unwrap();
    pair.f.apply(Tar::default().entry(&file("dir/x")).finish(), &base).await.unwrap();
    pair.images.commit(&key("below"), &key("base"), Labels::new()).await.unwrap();
    pair.images.commit_onto(&key("above"), &key("alone"), &key("below"), Labels::new()).await.unwrap();
    let seen = see(&pair.f, &*pair.images, "above").await;
    assert_eq!(seen.0.keys().collect::<Vec<_>>(), [Path::new("dir")]);
}

#[tokio::test]
async fn an_applied_layer_can_be_looked_at_and_takes_no_second_one() {
    let Some(pair) = Pair::new() else { return };
    let mounts = pair.images.prepare(new("active", None)).await.unwrap();
    pair.f.apply(Tar::default().entry(&file("one")).finish(), &mounts).await.unwrap();
    let error = pair.f.apply(Tar::default().entry(&file("two")).finish(), &mounts).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::FailedPrecondition);
    let mounts = pair.images.mounts(&key("active")).await.unwrap();
    mounted(&pair.f, &mounts, |point| {
        assert!(point.join("one").exists());
        fs::write(point.join("three"), "").unwrap();
    });
    let error = pair.images.commit(&key("both"), &key("active"), Labels::new()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::FailedPrecondition, "{error:?}");
    mounted(&pair.f, &mounts, |point| fs::remove_file(point.join("three")).unwrap());
    pair.images.commit(&key("one"), &key("active"), Labels::new()).await.unwrap();
    assert_eq!(see(&pair.f, &*pair.images, "one").await.0.len(), 1);
}

#[tokio::test]
async fn a_failed_layer_leaves_no_image() {
    let Some(pair) = Pair::new() else { return };
    let mounts = pair.images.prepare(new("active", None)).await.unwrap();
    let mut cut = Tar::default().entry(&file("one")).finish();
    cut.truncate(700);
    let error = pair.f.apply(cut, &mounts).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidArgument, "{error:?}");
    let folder = pair.f.scratch.path("images/snapshots/1");
    let mut names: Vec<_> = fs::read_dir(&folder).unwrap().map(|item| item.unwrap().file_name()).collect();
    names.sort();
    assert_eq!(names, [".erofslayer", "fs", "work"]);
    pair.f.apply(Tar::default().entry(&file("one")).finish(), &mounts).await.unwrap();
}

#[tokio::test]
async fn layers_that_are_images_are_taken_as_they_are() {
    let Some(pair) = Pair::new() else { return };
    let mut builder = Builder::new(std::io::Cursor::new(Vec::new())).unwrap();
    let root = builder.root();
    builder.file(root, b"file", &Default::default(), 4, &mut &b"text"[..]).unwrap();
    let image = builder.finish([1; 16]).unwrap().0.into_inner();
    const TYPE: &str = "application/vnd.erofs.layer.v1";
    for (name, media_type, blob) in [
        ("plain", TYPE.to_owned(), image.clone()),
        ("packed", format!("{TYPE}+zstd"), compress(&image, Compression::Zstd)),
    ] {
        let layer = pair.f.blobs.add(&media_type, blob);
        let mounts = pair.images.prepare(new("active", None)).await.unwrap();
        let done = pair.f.apply_layer(layer.clone(), &mounts).await.unwrap();
        assert_eq!((&*done.media_type, done.digest), (TYPE, Hasher::digest(&image)));
        pair.images.commit(&key(name), &key("active"), Labels::new()).await.unwrap();
        assert_eq!(see(&pair.f, &*pair.images, name).await.0.len(), 1);
        let tree = pair.f.folder("tree");
        let error = pair.f.apply_layer(layer, &bind(&tree)).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NotImplemented, "{error:?}");
    }
    let no_image = pair.f.blobs.add(TYPE, vec![0; 8192]);
    let mounts = pair.images.prepare(new("active", None)).await.unwrap();
    let error = pair.f.apply_layer(no_image, &mounts).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidArgument, "{error:?}");
}

#[tokio::test]
async fn images_of_erofs_utils_are_taken_too() {
    let (Some(pair), Ok(mkfs)) = (Pair::new(), need::program("mkfs.erofs")) else { return };
    let from = pair.f.folder("from");
    menagerie(&from);
    for (name, options) in [("plain", &[][..]), ("packed", &["-zlz4"])] {
        let image = pair.f.scratch.path(name);
        let made = std::process::Command::new(&mkfs).args(options).args([&image, &from]).output().unwrap();
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        let layer = pair.f.blobs.add("application/vnd.erofs.layer.v1", fs::read(&image).unwrap());
        let mounts = pair.images.prepare(new("active", None)).await.unwrap();
        pair.f.apply_layer(layer, &mounts).await.unwrap();
        pair.images.commit(&key(name), &key("active"), Labels::new()).await.unwrap();
        let seen = see(&pair.f, &*pair.images, name).await;
        seen.assert_same(&Tree::read(&from).without_root(), "their image and the original");
    }
}

#[tokio::test]
async fn an_image_that_the_kernel_should_not_see_is_refused_and_leaves_nothing() {
    let Some(pair) = Pair::new() else { return };
    let mut builder = Builder::new(std::io::Cursor::new(Vec::new())).unwrap();
    let dir = builder.directory(builder.root(), b"dir", &Default::default()).unwrap();
    builder.set_xattr(dir, b"dir", b"trusted.overlay.redirect", b"/etc").unwrap();
    let points = builder.finish([1; 16]).unwrap().0.into_inner();
    let short = points[..points.len() - 4096].to_vec();
    let mounts = pair.images.prepare(new("active", None)).await.unwrap();
    for (bad, why) in [(points, "notes of overlayfs"), (short, "shorter than it says")] {
        let layer = pair.f.blobs.add("application/vnd.erofs.layer.v1", bad);
        let error = pair.f.apply_layer(layer, &mounts).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidArgument, "{error:?}");
        assert!(error.chain().contains(why), "{}", error.chain());
        let folder = fs::read_dir(pair.f.scratch.path("images/snapshots/1")).unwrap();
        assert_eq!(folder.count(), 3, "the marker and two folders");
    }
}

#[tokio::test]
async fn an_archive_with_an_index_is_as_unpacked() {
    let Some(mut pair) = Pair::new() else { return };
    pair.f.differ = pair.f.differ.clone().with_images(ImageForm::Indexed);
    let from = pair.f.folder("from");
    menagerie(&from);
    for (number, options) in [&[][..], &["--sparse"]].iter().enumerate() {
        let tar = pack(&from, &pair.f.scratch.path("a.tar"), options);
        let name = format!("menagerie-{number}");
        let mounts = pair.images.prepare(new("apply", None)).await.unwrap();
        let done = pair.f.apply(tar.clone(), &mounts).await.unwrap();
        assert_eq!(done.digest, Hasher::digest(&tar));
        pair.images.commit(&key(&name), &key("apply"), Labels::new()).await.unwrap();
        let seen = see(&pair.f, &*pair.images, &name).await;
        seen.assert_same(&Tree::read(&from).without_root(), "the index and the original");
        let image = fs::read(pair.image(2 * number as u32 + 1)).unwrap();
        assert!(image[4096..].starts_with(&tar), "the archive lies in the image");
        berth_erofs::check(&image[..], image.len() as u64).unwrap();
    }
}

#[tokio::test]
async fn indexes_in_a_stack_are_as_unpacked() {
    for mut pair in [Pair::new(), Pair::merged()].into_iter().flatten() {
        pair.f.differ = pair.f.differ.clone().with_images(ImageForm::Indexed);
        stack_with_large_files(&pair).await;
    }
}

#[tokio::test]
async fn everything_a_tree_can_hold_is_in_layers_seen_as_one() {
    let Some(pair) = Pair::merged() else { return };
    let from = pair.f.folder("from");
    menagerie(&from);
    let below = pack(&from, &pair.f.scratch.path("a.tar"), &["--sparse"]);
    let mut folder = Entry::new(Kind::Folder, "added/");
    (folder.mode, folder.uid) = (0o751, 9);
    let mut large = file("added/large");
    large.bytes = vec![3; 1 << 20];
    pair.apply(&[below, Tar::default().entry(&folder).entry(&large).finish()]).await;
    let (ours, theirs) = pair.seen("1").await;
    assert!(ours.0.len() > 10, "{} files", ours.0.len());
    ours.assert_same(&theirs, "one image of two layers, and an overlay of two trees");
    let merged = pair.f.scratch.path("images/snapshots/2/fsmeta.erofs");
    let (merged, layer) = (fs::metadata(merged).unwrap(), fs::metadata(pair.image(1)).unwrap());
    assert!(merged.len() < layer.len() / 4, "{} of {}: no data is in it", merged.len(), layer.len());
}

async fn stack_with_large_files(pair: &Pair) {
    let mut folder = Entry::new(Kind::Folder, "dir/");
    (folder.mode, folder.uid, folder.gid) = (0o1777, 5, 6);
    let mut large = file("dir/large");
    large.bytes = vec![9; 3_000_001];
    let base =
        Tar::default().entry(&folder).entry(&large).entry(&file("dir/gone")).entry(&file("all/x")).finish();
    let top = Tar::default()
        .entry(&file("dir/.wh.gone"))
        .entry(&file("dir/new"))
        .entry(&file("all/.wh..wh..opq"))
        .finish();
    pair.apply(&[base, top]).await;
    for name in ["0", "1"] {
        let (ours, theirs) = pair.seen(name).await;
        ours.without_directory_times().assert_same(&theirs.without_directory_times(), "index and tree");
    }
}

#[tokio::test]
async fn the_same_layer_makes_the_same_image() {
    let Some(pair) = Pair::new() else { return };
    let tar = Tar::default().entry(&file("a")).entry(&file("b/c")).finish();
    pair.apply(std::slice::from_ref(&tar)).await;
    let mounts = pair.images.prepare(new("again", None)).await.unwrap();
    pair.f.apply(tar, &mounts).await.unwrap();
    assert!(fs::read(pair.image(1)).unwrap() == fs::read(pair.image(2)).unwrap());
    assert!(fs::metadata(pair.image(1)).unwrap().blocks() > 0);
}
