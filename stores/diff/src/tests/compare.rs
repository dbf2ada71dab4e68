//! Taking layers off trees, and putting them back.

use std::fs;
use std::os::unix::fs::{PermissionsExt, chown, symlink};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use berth_archive::{Hasher, Kind, Reader};
use berth_core::{CompareRequest, ContentStore, Differ};
use berth_oci::image::media;
use berth_types::filter::Filters;
use berth_types::{Descriptor, ErrorKind, Labels, Mount};
use proptest::prelude::*;
use rustix::fs::{CWD, FileType, Mode, XattrFlags, makedev};
use testkit::need;
use testkit::tree::Tree;

use super::{Fixture, bind, mount};

async fn compare(f: &Fixture, lower: &[Mount], upper: &[Mount]) -> Descriptor {
    let request = CompareRequest {
        lower: lower.to_vec(),
        upper: upper.to_vec(),
        media_type: media::OCI_LAYER.into(),
        ..CompareRequest::default()
    };
    f.differ.compare(request).await.unwrap()
}

/// The members of a layer, with what they link to.
fn members(f: &Fixture, layer: &Descriptor) -> Vec<String> {
    let bytes = f.blobs.bytes(&layer.digest);
    let mut reader = Reader::new(&bytes[..]);
    let mut names = Vec::new();
    while let Some(entry) = reader.next_entry().unwrap() {
        let path = String::from_utf8_lossy(&entry.path).into_owned();
        names.push(match entry.kind {
            Kind::HardLink(target) => format!("{path} = {}", String::from_utf8_lossy(&target)),
            Kind::Symlink(target) => format!("{path} -> {}", String::from_utf8_lossy(&target)),
            _ => path,
        });
    }
    names
}

fn write(path: &Path, text: &str) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, text).unwrap();
}

/// A copy with everything, by GNU cp.
fn copy(from: &Path, to: &Path) {
    testkit::Invocation::new("cp").args(["-a", "-T"]).arg(from).arg(to).ok();
}

/// Whole seconds everywhere, so that only contents decide what changed.
fn age(root: &Path) {
    let time = rustix::fs::Timespec { tv_sec: 1_500_000_000, tv_nsec: 0 };
    let times = rustix::fs::Timestamps { last_access: time, last_modification: time };
    for path in Tree::read(root).0.keys() {
        rustix::fs::utimensat(CWD, root.join(path), &times, rustix::fs::AtFlags::SYMLINK_NOFOLLOW).unwrap();
    }
}

#[tokio::test]
async fn only_what_changed_is_in_the_layer_in_the_order_of_names() {
    let f = Fixture::new();
    let (lower, upper) = (f.folder("lower"), f.folder("upper"));
    for path in ["same", "changed", "gone", "dir/gone", "dir/same", "gone-dir/x", "was-dir/x", "z/deep/same"]
    {
        write(&lower.join(path), "1");
    }
    age(&lower);
    fs::remove_dir(&upper).unwrap();
    copy(&lower, &upper);
    fs::write(upper.join("changed"), "2").unwrap();
    fs::remove_file(upper.join("gone")).unwrap();
    fs::remove_file(upper.join("dir/gone")).unwrap();
    fs::remove_dir_all(upper.join("gone-dir")).unwrap();
    fs::remove_dir_all(upper.join("was-dir")).unwrap();
    fs::write(upper.join("was-dir"), "file now").unwrap();
    write(&upper.join("z/deep/new"), "3");
    write(&upper.join("z-new"), "3");
    fs::set_permissions(upper.join("same"), fs::Permissions::from_mode(0o600)).unwrap();
    age(&upper);
    let layer = compare(&f, &bind(&lower), &bind(&upper)).await;
    assert_eq!(
        members(&f, &layer),
        [
            "changed",
            "dir/",
            "dir/.wh.gone",
            ".wh.gone",
            ".wh.gone-dir",
            "same",
            "was-dir",
            "z/",
            "z/deep/",
            "z/deep/new",
            "z-new"
        ]
    );
    let again = compare(&f, &bind(&lower), &bind(&upper)).await;
    assert_eq!(layer, again, "the same trees give the same bytes");
    let nothing = compare(&f, &bind(&lower), &bind(&lower)).await;
    assert!(members(&f, &nothing).is_empty());
    assert!(f.blobs.ingests(&Filters::default()).await.unwrap().is_empty());
}

#[tokio::test]
async fn every_form_is_stored_with_the_label_of_its_diff_id() {
    let f = Fixture::new();
    let tree = f.folder("tree");
    write(&tree.join("a/file"), &"text".repeat(200_000));
    let plain = compare(&f, &[], &bind(&tree)).await;
    for media_type in ["", media::OCI_LAYER_GZIP, media::OCI_LAYER_ZSTD, media::OCI_LAYER] {
        let request = CompareRequest {
            upper: bind(&tree),
            media_type: media_type.into(),
            reference: Some("mine".parse().unwrap()),
            labels: Labels::from([("x".to_owned(), "y".to_owned())]),
            ..CompareRequest::default()
        };
        let layer = f.differ.compare(request.clone()).await.unwrap();
        let expected = if media_type.is_empty() { media::OCI_LAYER_GZIP } else { media_type };
        let info = f.blobs.info(&layer.digest).await.unwrap();
        assert_eq!((&*layer.media_type, layer.size), (expected, info.size));
        assert_eq!(info.labels["containerd.io/uncompressed"], plain.digest.to_string(), "{media_type}");
        assert_eq!(layer.digest, Hasher::digest(&f.blobs.bytes(&layer.digest)));
        assert_eq!(f.differ.compare(request).await.unwrap(), layer, "again, though it is there already");
        let folder = f.folder(&format!("out-{}", layer.digest.short()));
        let applied = f.apply_layer(layer, &bind(&folder)).await.unwrap();
        assert_eq!(applied.digest, plain.digest);
    }
    let request = CompareRequest {
        upper: bind(&tree),
        media_type: media::DOCKER_LAYER.into(),
        ..CompareRequest::default()
    };
    assert_eq!(f.differ.compare(request).await.unwrap_err().kind(), ErrorKind::NotImplemented);
    let gone = CompareRequest { upper: bind(Path::new("/nonexistent")), ..CompareRequest::default() };
    assert_eq!(f.differ.compare(gone).await.unwrap_err().kind(), ErrorKind::NotFound);
    assert!(f.blobs.ingests(&Filters::default()).await.unwrap().is_empty(), "a failure leaves no ingest");
}

#[tokio::test]
async fn times_are_held_back_to_the_source_date_epoch() {
    let f = Fixture::new();
    let tree = f.folder("tree");
    write(&tree.join("new"), "1");
    write(&tree.join("old"), "1");
    age(&tree);
    fs::write(tree.join("new"), "2").unwrap();
    let epoch = 1_600_000_000;
    let request = CompareRequest {
        upper: bind(&tree),
        media_type: media::OCI_LAYER.into(),
        source_date_epoch: Some(SystemTime::UNIX_EPOCH + Duration::from_secs(epoch)),
        ..CompareRequest::default()
    };
    let layer = f.differ.compare(request).await.unwrap();
    let bytes = f.blobs.bytes(&layer.digest);
    let mut reader = Reader::new(&bytes[..]);
    let mut times = Vec::new();
    while let Some(entry) = reader.next_entry().unwrap() {
        times.push((String::from_utf8(entry.path).unwrap(), entry.mtime.seconds));
    }
    assert_eq!(times, [("new".to_owned(), epoch.cast_signed()), ("old".to_owned(), 1_500_000_000)]);
}

#[tokio::test]
async fn links_stay_links_also_to_names_that_did_not_change() {
    let f = Fixture::new();
    let (lower, upper) = (f.folder("lower"), f.folder("upper"));
    write(&lower.join("b"), "1");
    fs::hard_link(lower.join("b"), lower.join("c")).unwrap();
    write(&lower.join("solo-1"), "1");
    fs::hard_link(lower.join("solo-1"), lower.join("solo-2")).unwrap();
    age(&lower);
    fs::remove_dir(&upper).unwrap();
    copy(&lower, &upper);
    fs::hard_link(upper.join("b"), upper.join("d")).unwrap();
    age(&upper);
    let layer = compare(&f, &bind(&lower), &bind(&upper)).await;
    // The new name is the one with the bytes; the others are linked to it, or the three would part.
    assert_eq!(members(&f, &layer), ["d", "b = d", "c = d"]);
    f.apply_layer(layer, &bind(&lower)).await.unwrap();
    let expected = Tree::read(&upper).without_directory_times();
    Tree::read(&lower).without_directory_times().assert_same(&expected, "applied to the lower tree");
}

#[tokio::test]
async fn everything_that_a_tree_can_hold_comes_back() {
    let Ok(()) = need::root() else { return };
    let f = Fixture::new();
    let (tree, out) = (f.folder("tree"), f.folder("out"));
    write(&tree.join("dir/file"), "1");
    chown(tree.join("dir/file"), Some(70_000), Some(3_000_000)).unwrap();
    fs::set_permissions(tree.join("dir/file"), fs::Permissions::from_mode(0o6755)).unwrap();
    symlink("x".repeat(300), tree.join("link")).unwrap();
    write(&tree.join("n".repeat(200)), "long");
    let mode = Mode::from_raw_mode(0o640);
    rustix::fs::mknodat(CWD, tree.join("fifo"), FileType::Fifo, mode, 0).unwrap();
    rustix::fs::mknodat(CWD, tree.join("char"), FileType::CharacterDevice, mode, makedev(1, 5)).unwrap();
    rustix::fs::mknodat(CWD, tree.join("block"), FileType::BlockDevice, mode, makedev(259, 70_000)).unwrap();
    let _socket = std::os::unix::net::UnixListener::bind(tree.join("socket")).unwrap();
    let capability = [1, 0, 0, 2, 0, 32, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    for (path, name, value) in
        [("n", "security.capability", &capability[..]), ("dir", "user.a", b"b"), ("dir/file", "user.b", b"")]
    {
        let path = if path == "n" { tree.join("n".repeat(200)) } else { tree.join(path) };
        rustix::fs::lsetxattr(path, name, value, XattrFlags::empty()).unwrap();
    }
    age(&tree);
    let layer = compare(&f, &[], &bind(&tree)).await;
    f.apply_layer(layer, &bind(&out)).await.unwrap();
    fs::remove_file(tree.join("socket")).unwrap();
    age(&tree);
    Tree::read(&out).without_root().assert_same(&Tree::read(&tree).without_root(), "there and back");
}

/// An overlay of folders that are made for it.
struct Overlay {
    lower: Vec<Mount>,
    upper: Vec<Mount>,
    point: PathBuf,
    folder: PathBuf,
}

impl Overlay {
    fn new(f: &Fixture, lower: &Path) -> Self {
        let [folder, work, point] = ["u", "w", "point"].map(|name| f.folder(name));
        let options = [
            format!("workdir={}", work.display()),
            format!("upperdir={}", folder.display()),
            format!("lowerdir={}", lower.display()),
            "index=off".to_owned(),
        ];
        let upper = mount("overlay", "overlay", &options.each_ref().map(String::as_str));
        let lower = mount("bind", &lower.display().to_string(), &["ro", "rbind"]);
        Self { lower, upper, point, folder }
    }

    fn change(&self, work: impl FnOnce(&Path)) {
        berth_sys::mount::mount_all(&self.upper, &self.point).unwrap();
        work(&self.point);
        berth_sys::mount::unmount_all(&self.point).unwrap();
    }
}

#[tokio::test]
async fn an_upper_folder_tells_the_same_as_both_trees() {
    let Ok(()) = need::root() else { return };
    let f = Fixture::new();
    let lower = f.folder("lower");
    for path in
        ["same", "changed", "gone", "dir/gone", "dir/same", "gone-dir/x", "anew/x", "renamed/x", "z/y/x"]
    {
        write(&lower.join(path), "1");
    }
    age(&lower);
    let overlay = Overlay::new(&f, &lower);
    overlay.change(|point| {
        fs::write(point.join("changed"), "2").unwrap();
        fs::remove_file(point.join("gone")).unwrap();
        fs::remove_file(point.join("dir/gone")).unwrap();
        fs::remove_dir_all(point.join("gone-dir")).unwrap();
        fs::remove_dir_all(point.join("anew")).unwrap();
        write(&point.join("anew/new"), "3");
        write(&point.join("z/y/new"), "3");
    });
    let direct = compare(&f, &overlay.lower, &overlay.upper).await;
    assert_eq!(
        members(&f, &direct),
        [
            "anew/",
            "anew/.wh..wh..opq",
            "anew/new",
            "changed",
            "dir/",
            "dir/.wh.gone",
            ".wh.gone",
            ".wh.gone-dir",
            "z/",
            "z/y/",
            "z/y/new"
        ]
    );
    // The same trees in a form that no shortcut knows.
    let mut plain = overlay.lower.clone();
    plain[0].options.push("nodev".into());
    let walked = compare(&f, &plain, &overlay.upper).await;
    assert_eq!(
        members(&f, &walked),
        [
            "anew/",
            "anew/new",
            "anew/.wh.x",
            "changed",
            "dir/",
            "dir/.wh.gone",
            ".wh.gone",
            ".wh.gone-dir",
            "z/",
            "z/y/",
            "z/y/new"
        ]
    );
    for (name, layer) in [("direct", direct), ("walked", walked)] {
        let out = f.scratch.path(name);
        copy(&lower, &out);
        f.apply_layer(layer, &bind(&out)).await.unwrap();
        overlay.change(|point| {
            let expected = Tree::read(point).without_root().in_whole_seconds().without_directory_times();
            let found = Tree::read(&out).without_root().in_whole_seconds().without_directory_times();
            found.assert_same(&expected, name);
        });
    }
}

#[tokio::test]
async fn an_upper_folder_that_refers_to_lower_ones_is_left_to_the_kernel() {
    let Ok(()) = need::root() else { return };
    let f = Fixture::new();
    let lower = f.folder("lower");
    write(&lower.join("before/x"), "1");
    age(&lower);
    let mut overlay = Overlay::new(&f, &lower);
    overlay.upper[0].options.push("redirect_dir=on".into());
    overlay.change(|point| fs::rename(point.join("before"), point.join("after")).unwrap());
    assert!(fs::read_dir(overlay.folder.join("after")).unwrap().next().is_none(), "only a reference");
    let layer = compare(&f, &overlay.lower, &overlay.upper).await;
    assert_eq!(members(&f, &layer), ["after/", "after/x", ".wh.before"]);
}

/// A tree over few names, from a list of steps.
pub(super) fn build(root: &Path, steps: &[(u8, u8, u8)]) {
    const NAMES: [&str; 6] = ["a", "b", "a/c", "a/d", "b/e", "a/c/f"];
    for (what, which, with) in steps {
        let path = root.join(NAMES[usize::from(*which) % NAMES.len()]);
        let other = root.join(NAMES[usize::from(*with) % NAMES.len()]);
        // Many steps have nothing to work on; what happens is what is compared.
        let _ = match what % 8 {
            0 | 1 => fs::create_dir(&path),
            2 => fs::write(&path, [*with; 3]),
            3 => symlink(format!("to-{with}"), &path),
            4 => fs::remove_file(&path).or_else(|_| fs::remove_dir_all(&path)),
            5 => fs::symlink_metadata(&path).and_then(|found| {
                if found.is_symlink() {
                    Ok(())
                } else {
                    fs::set_permissions(&path, fs::Permissions::from_mode(0o700 + u32::from(*with % 64)))
                }
            }),
            6 => fs::hard_link(&other, &path),
            _ => fs::rename(&other, &path),
        };
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, ..ProptestConfig::default() })]

    #[test]
    fn applying_what_was_compared_gives_the_second_tree(
        first in proptest::collection::vec(any::<(u8, u8, u8)>(), 0..25),
        second in proptest::collection::vec(any::<(u8, u8, u8)>(), 0..25),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let f = Fixture::new();
        let (before, after) = (f.folder("before"), f.scratch.path("after"));
        build(&before, &first);
        copy(&before, &after);
        build(&after, &second);
        age(&before);
        age(&after);
        runtime.block_on(async {
            let layer = compare(&f, &bind(&before), &bind(&after)).await;
            f.apply_layer(layer, &bind(&before)).await.unwrap();
        });
        let expected = Tree::read(&after).without_root().without_directory_times();
        Tree::read(&before).without_root().without_directory_times().assert_same(&expected, "after both");
    }
}
