//! Applying to the upper folder of an overlay.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};

use berth_types::Mount;
use testkit::image::tar::{Entry, Kind, Tar};
use testkit::need;
use testkit::tree::Tree;

use super::{Fixture, mount};

struct Layers {
    lower: PathBuf,
    upper: PathBuf,
    mounts: Vec<Mount>,
    point: PathBuf,
}

impl Layers {
    fn new(f: &Fixture) -> Self {
        let [lower, upper, work, point] = ["lower", "upper", "work", "point"].map(|name| f.folder(name));
        let options = [
            format!("workdir={}", work.display()),
            format!("upperdir={}", upper.display()),
            format!("lowerdir={}", lower.display()),
            "index=off".to_owned(),
        ];
        let mounts = mount("overlay", "overlay", &options.each_ref().map(String::as_str));
        Self { lower, upper, mounts, point }
    }

    /// The tree as a container sees it.
    fn seen(&self) -> Vec<String> {
        berth_sys::mount::mount_all(&self.mounts, &self.point).unwrap();
        let paths = Tree::read(&self.point).without_root().0.into_keys();
        let paths = paths.map(|path| path.display().to_string()).collect();
        berth_sys::mount::unmount_all(&self.point).unwrap();
        paths
    }
}

fn write(path: &Path) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, "lower").unwrap();
}

fn file(path: &str) -> Entry {
    Entry::new(Kind::File, path)
}

#[tokio::test]
async fn removals_become_overlayfs_marks() {
    let Ok(()) = need::root() else { return };
    let f = Fixture::new();
    let layers = Layers::new(&f);
    for path in ["removed", "kept", "gone/x", "opaque/x", "opaque/sub/x", "again/x", "own-dir/x", "twice/x"] {
        write(&layers.lower.join(path));
    }
    let tar = Tar::default()
        .entry(&file(".wh.removed"))
        .entry(&file(".wh.gone"))
        .entry(&file("opaque/sub/new"))
        .entry(&file("opaque/.wh..wh..opq"))
        .entry(&file("opaque/after"))
        // Removed and made anew in the same layer, in both orders.
        .entry(&file(".wh.again"))
        .entry(&Entry::new(Kind::Folder, "again/"))
        .entry(&file("again/new"))
        .entry(&Entry::new(Kind::Folder, "own-dir/"))
        .entry(&file("own-dir/new"))
        .entry(&file(".wh.own-dir"))
        .entry(&file(".wh.twice"))
        .entry(&file(".wh.twice"))
        .finish();
    f.apply(tar, &layers.mounts).await.unwrap();
    assert_eq!(
        layers.seen(),
        [
            "again",
            "again/new",
            "kept",
            "opaque",
            "opaque/after",
            "opaque/sub",
            "opaque/sub/new",
            "own-dir",
            "own-dir/new"
        ]
    );
    let mark = fs::symlink_metadata(layers.upper.join("removed")).unwrap();
    assert_eq!((mark.mode() & 0o170_000, mark.rdev()), (0o020_000, 0));
}

#[tokio::test]
async fn folders_that_a_layer_does_not_tell_keep_what_they_were_like() {
    let Ok(()) = need::root() else { return };
    let f = Fixture::new();
    let layers = Layers::new(&f);
    write(&layers.lower.join("a/b/x"));
    for (path, mode) in [("a", 0o700), ("a/b", 0o1777)] {
        chown(layers.lower.join(path), Some(5), Some(6)).unwrap();
        fs::set_permissions(layers.lower.join(path), fs::Permissions::from_mode(mode)).unwrap();
    }
    write(&layers.lower.join("file"));
    fs::set_permissions(layers.lower.join("file"), fs::Permissions::from_mode(0o600)).unwrap();
    let tar = Tar::default().entry(&file("a/b/new")).entry(&file("c/new")).finish();
    f.apply(tar, &layers.mounts).await.unwrap();
    let attributes = |path: &str| {
        let found = fs::metadata(layers.upper.join(path)).unwrap();
        (found.uid(), found.gid(), found.mode() & 0o7777)
    };
    assert_eq!(attributes("a"), (5, 6, 0o700));
    assert_eq!(attributes("a/b"), (5, 6, 0o1777));
    assert_eq!(attributes("c"), (0, 0, 0o755));
    let time = |root: &Path| fs::metadata(root.join("a/b")).unwrap().modified().unwrap();
    assert_eq!(time(&layers.upper), time(&layers.lower));
}

#[tokio::test]
async fn a_layer_cannot_speak_overlayfs_itself() {
    let Ok(()) = need::root() else { return };
    let f = Fixture::new();
    let layers = Layers::new(&f);
    write(&layers.lower.join("dir/secret"));
    let mut dir = Entry::new(Kind::Folder, "elsewhere/");
    dir.pax =
        ["trusted.overlay.redirect", "trusted.overlay.opaque", "user.overlay.redirect", "trusted.other"]
            .map(|name| (format!("SCHILY.xattr.{name}"), b"/dir".to_vec()))
            .to_vec();
    f.apply(Tar::default().entry(&dir).finish(), &layers.mounts).await.unwrap();
    let mut list = vec![0_u8; 4096];
    let length = rustix::fs::llistxattr(layers.upper.join("elsewhere"), &mut list[..]).unwrap();
    let names = String::from_utf8_lossy(&list[..length]).into_owned();
    assert!(!names.contains("trusted.") && !names.contains("user.overlay"), "{names:?}");
}

#[tokio::test]
async fn a_second_layer_on_the_same_upper_folder_hides_the_first() {
    let Ok(()) = need::root() else { return };
    let f = Fixture::new();
    let layers = Layers::new(&f);
    write(&layers.lower.join("dir/lower"));
    let first = Tar::default().entry(&file("dir/first")).entry(&file("one")).finish();
    f.apply(first, &layers.mounts).await.unwrap();
    let second = Tar::default()
        .entry(&file("dir/second"))
        .entry(&file("dir/.wh..wh..opq"))
        .entry(&file(".wh.one"))
        .finish();
    f.apply(second, &layers.mounts).await.unwrap();
    assert_eq!(layers.seen(), ["dir", "dir/second"]);
}

#[tokio::test]
async fn an_opaque_marker_at_the_top_hides_every_lower_name() {
    let Ok(()) = need::root() else { return };
    let f = Fixture::new();
    let layers = Layers::new(&f);
    for path in ["file", "dir/x", "both/lower"] {
        write(&layers.lower.join(path));
    }
    let tar =
        Tar::default().entry(&file("both/own")).entry(&file(".wh..wh..opq")).entry(&file("after")).finish();
    f.apply(tar, &layers.mounts).await.unwrap();
    assert_eq!(layers.seen(), ["after", "both", "both/own"]);
}

#[tokio::test]
async fn a_tree_whose_parents_come_later_is_filled_as_on_them() {
    let Ok(()) = need::root() else { return };
    let f = Fixture::new();
    let layers = Layers::new(&f);
    write(&layers.lower.join("dir/old"));
    write(&layers.lower.join("gone"));
    let tar = || {
        let dir = Entry::new(Kind::Folder, "dir/");
        let marks = [file("dir/.wh..wh..opq"), file(".wh.gone"), file("dir/new")];
        marks.into_iter().fold(Tar::default().entry(&dir), |tar, entry| tar.entry(&entry)).finish()
    };
    let upper = format!("upperdir={}", layers.upper.display());
    let apart = mount("overlay", "overlay", &[&upper, "x-berth.apart"]);
    f.apply(tar(), &apart).await.unwrap();
    assert_eq!(layers.seen(), ["dir", "dir/new"]);
}

#[tokio::test]
async fn a_layer_that_needs_its_parents_is_refused_without_them_or_guessed_as_in_containerd() {
    let Ok(()) = need::root() else { return };
    let f = Fixture::new();
    for (number, name) in ["dir/file", ".wh..wh..opq"].into_iter().enumerate() {
        let upper = f.folder(&format!("apart-{number}"));
        let option = format!("upperdir={}", upper.display());
        let tar = || Tar::default().entry(&file(name)).finish();
        let error =
            f.apply(tar(), &mount("overlay", "overlay", &[&option, "x-berth.apart"])).await.unwrap_err();
        assert_eq!(error.kind(), berth_types::ErrorKind::FailedPrecondition, "{name}: {error:?}");
        f.apply(tar(), &mount("overlay", "overlay", &[&option])).await.unwrap();
    }
}
