//! Applying to plain folders, with GNU tar as the oracle.

use std::fs;
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt, chown, symlink};
use std::path::Path;

use berth_archive::{Compression, Hasher};
use berth_oci::image::media;
use berth_types::ErrorKind;
use rustix::fs::{CWD, FileType, Mode, XattrFlags, makedev};
use testkit::image::tar::{Entry, Kind, Tar};
use testkit::tree::Tree;
use testkit::{Invocation, need};

use super::{Fixture, bind, compress, mount};

/// A tree with one of everything.
pub(super) fn menagerie(at: &Path) {
    fs::create_dir_all(at.join("dir/deep/deeper")).unwrap();
    fs::write(at.join("dir/file"), "hello").unwrap();
    fs::write(at.join("empty"), "").unwrap();
    fs::write(at.join("big"), vec![7; 3_000_001]).unwrap();
    fs::write(at.join("dir/setuid"), "#!").unwrap();
    chown(at.join("dir/setuid"), Some(1234), Some(70_000)).unwrap();
    fs::set_permissions(at.join("dir/setuid"), fs::Permissions::from_mode(0o6755)).unwrap();
    // What is made in this folder belongs to its group until it is told otherwise, as this file of root's is.
    fs::write(at.join("dir/deep/of-root"), "root's").unwrap();
    chown(at.join("dir/deep"), None, Some(50)).unwrap();
    fs::set_permissions(at.join("dir/deep"), fs::Permissions::from_mode(0o3777)).unwrap();
    fs::set_permissions(at.join("empty"), fs::Permissions::from_mode(0o000)).unwrap();
    fs::hard_link(at.join("dir/file"), at.join("dir/zz-hard")).unwrap();
    symlink("../../etc/passwd", at.join("dir/link")).unwrap();
    fs::hard_link(at.join("dir/link"), at.join("dir/zz-link-again")).unwrap();
    symlink("t".repeat(200), at.join("long-link")).unwrap();
    fs::write(at.join("n".repeat(180)), "long name").unwrap();
    fs::write(at.join("odd \n\u{fc}"), "odd").unwrap();
    let holes = fs::File::create(at.join("holes")).unwrap();
    holes.write_all_at(b"start", 0).unwrap();
    holes.write_all_at(b"middle", 5 << 20).unwrap();
    holes.set_len(9 << 20).unwrap();
    let mode = Mode::from_raw_mode(0o640);
    rustix::fs::mknodat(CWD, at.join("fifo"), FileType::Fifo, mode, 0).unwrap();
    rustix::fs::mknodat(CWD, at.join("null"), FileType::CharacterDevice, mode, makedev(1, 3)).unwrap();
    rustix::fs::mknodat(CWD, at.join("loop"), FileType::BlockDevice, mode, makedev(7, 300)).unwrap();
    let set = |path: &str, name: &str, value: &[u8]| {
        rustix::fs::lsetxattr(at.join(path), name, value, XattrFlags::empty()).unwrap();
    };
    set("dir/file", "user.note", b"a\0b");
    set("dir/deep", "user.on-dir", b"");
    // CAP_NET_RAW, permitted and effective.
    let capability = [1, 0, 0, 2, 0, 32, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    set("big", "security.capability", &capability);
    let old = rustix::fs::Timespec { tv_sec: 1_000_000_000, tv_nsec: 0 };
    let times = rustix::fs::Timestamps { last_access: old, last_modification: old };
    for path in ["dir/deep/deeper", "dir/link", "dir/file", "dir/deep", "dir"] {
        rustix::fs::utimensat(CWD, at.join(path), &times, rustix::fs::AtFlags::SYMLINK_NOFOLLOW).unwrap();
    }
}

pub(super) fn pack(at: &Path, to: &Path, options: &[&str]) -> Vec<u8> {
    Invocation::new("tar")
        .args(["--xattrs", "--xattrs-include=*", "--format=posix", "--numeric-owner"])
        .args(options)
        .arg("-cf")
        .arg(to)
        .arg("-C")
        .arg(at)
        .arg(".")
        .ok();
    fs::read(to).unwrap()
}

fn unpack(tar: &Path, to: &Path) {
    Invocation::new("tar")
        .args(["--xattrs", "--xattrs-include=*", "--numeric-owner", "-xpf"])
        .arg(tar)
        .arg("-C")
        .arg(to)
        .ok();
}

#[tokio::test]
async fn everything_a_tree_can_hold_comes_out_as_gnu_tar_makes_it() {
    let Ok(()) = need::root() else { return };
    let f = Fixture::new();
    let (from, theirs, file) = (f.folder("from"), f.folder("theirs"), f.scratch.path("a.tar"));
    menagerie(&from);
    for (number, options) in
        [&[][..], &["--sparse"], &["--sparse", "--sparse-version=0.0"]].iter().enumerate()
    {
        let tar = pack(&from, &file, options);
        let ours = f.folder(&format!("ours-{number}"));
        let done = f.apply(tar.clone(), &bind(&ours)).await.unwrap();
        assert_eq!((done.digest, done.size), (Hasher::digest(&tar), tar.len() as u64));
        assert_eq!(done.media_type, media::OCI_LAYER);
        let theirs = theirs.join(number.to_string());
        fs::create_dir(&theirs).unwrap();
        unpack(&file, &theirs);
        let ours_tree = Tree::read(&ours).without_root();
        ours_tree.assert_same(&Tree::read(&theirs).without_root(), "ours and GNU tar's");
        ours_tree.assert_same(&Tree::read(&from).without_root(), "ours and the original");
    }
    let holes = fs::metadata(f.scratch.path("ours-1/holes")).unwrap();
    assert!(holes.blocks() * 512 < 1 << 20, "holes stay holes: {}", holes.blocks());
}

#[tokio::test]
async fn real_trees_come_out_as_gnu_tar_makes_them() {
    let Ok(()) = need::root() else { return };
    let f = Fixture::new();
    let file = f.scratch.path("a.tar");
    for (number, source) in ["/etc", "/usr/sbin", "/usr/share/perl5", "/var/lib/dpkg"].iter().enumerate() {
        if !Path::new(source).exists() {
            continue;
        }
        let tar = pack(Path::new(source), &file, &[]);
        let (ours, theirs) = (f.folder(&format!("ours-{number}")), f.folder(&format!("theirs-{number}")));
        f.apply(tar, &bind(&ours)).await.unwrap();
        unpack(&file, &theirs);
        let (ours, theirs) = (Tree::read(&ours).without_root(), Tree::read(&theirs).without_root());
        ours.assert_same(&theirs, source);
    }
}

#[tokio::test]
async fn compression_is_told_by_the_bytes() {
    let f = Fixture::new();
    let mut file = Entry::new(Kind::File, "file");
    file.bytes = vec![5; 700_000];
    let tar = Tar::default().entry(&file).finish();
    for (number, compression) in [Compression::Plain, Compression::Gzip, Compression::Zstd].iter().enumerate()
    {
        for media_type in [media::OCI_LAYER_GZIP, media::DOCKER_LAYER, media::DOCKER_LAYER_GZIP] {
            let layer = f.blobs.add(media_type, compress(&tar, *compression));
            let folder = f.folder(&format!("{number}-{}", media_type.len()));
            let done = f.apply_layer(layer, &bind(&folder)).await.unwrap();
            assert_eq!(done.digest, Hasher::digest(&tar));
            assert_eq!(fs::read(folder.join("file")).unwrap(), file.bytes);
        }
    }
    let unknown = f.blobs.add("application/octet-stream", tar);
    let error = f.apply_layer(unknown, &bind(&f.folder("x"))).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotImplemented);
}

#[tokio::test]
async fn later_members_replace_earlier_ones_and_directories_merge() {
    let f = Fixture::new();
    let root = f.folder("root");
    fs::create_dir_all(root.join("dir/old")).unwrap();
    fs::write(root.join("was-file"), "x").unwrap();
    symlink("dir", root.join("was-link")).unwrap();
    let mut first = Entry::new(Kind::File, "twice");
    first.bytes = b"first".to_vec();
    let mut second = first.clone();
    second.bytes = b"second".to_vec();
    let mut dir = Entry::new(Kind::Folder, "dir/");
    dir.mode = 0o750;
    let tar = Tar::default()
        .entry(&first)
        .entry(&second)
        .entry(&dir)
        .entry(&Entry::new(Kind::Folder, "was-file/"))
        .entry(&Entry::new(Kind::Folder, "was-link/"))
        .entry(&Entry::new(Kind::File, "was-link/inside"))
        .entry(&Entry::new(Kind::File, "dir/old"))
        .finish();
    f.apply(tar, &bind(&root)).await.unwrap();
    assert_eq!(fs::read_to_string(root.join("twice")).unwrap(), "second");
    assert!(root.join("was-file").is_dir() && !root.join("was-link").is_symlink());
    assert!(root.join("was-link/inside").exists() && !root.join("dir/inside").exists());
    assert!(root.join("dir/old").is_file());
    let dir = fs::metadata(root.join("dir")).unwrap();
    assert_eq!((dir.mode() & 0o7777, dir.mtime()), (0o750, 1_600_000_000));
}

#[tokio::test]
async fn whiteouts_are_about_lower_layers_only() {
    let f = Fixture::new();
    let root = f.folder("root");
    for folder in ["opaque/sub", "merged", "gone", "anew"] {
        fs::create_dir_all(root.join(folder)).unwrap();
        fs::write(root.join(folder).join("lower"), "x").unwrap();
    }
    for file in ["removed", "replaced", "kept"] {
        fs::write(root.join(file), "lower").unwrap();
    }
    let mut replaced = Entry::new(Kind::File, "replaced");
    replaced.bytes = b"upper".to_vec();
    let tar = Tar::default()
        .entry(&Entry::new(Kind::File, "opaque/sub/before"))
        .entry(&Entry::new(Kind::File, "opaque/.wh..wh..opq"))
        .entry(&Entry::new(Kind::File, "opaque/after"))
        .entry(&Entry::new(Kind::File, ".wh.removed"))
        .entry(&Entry::new(Kind::File, ".wh.gone"))
        .entry(&Entry::new(Kind::File, ".wh.never-there"))
        .entry(&replaced)
        .entry(&Entry::new(Kind::File, ".wh.replaced"))
        .entry(&Entry::new(Kind::File, ".wh..wh.plnk"))
        .entry(&Entry::new(Kind::File, "anew/own"))
        .entry(&Entry::new(Kind::File, ".wh.anew"))
        .finish();
    f.apply(tar, &bind(&root)).await.unwrap();
    let left: Vec<String> = Tree::read(&root)
        .0
        .keys()
        .map(|path| path.display().to_string())
        .filter(|path| !path.is_empty())
        .collect();
    assert_eq!(
        left,
        [
            "anew",
            "anew/own",
            "kept",
            "merged",
            "merged/lower",
            "opaque",
            "opaque/after",
            "opaque/sub",
            "opaque/sub/before",
            "replaced"
        ]
    );
    assert_eq!(fs::read_to_string(root.join("replaced")).unwrap(), "upper");
}

#[tokio::test]
async fn a_list_that_needs_mounting_is_mounted_where_nobody_sees_it() {
    let Ok(()) = need::root() else { return };
    let f = Fixture::new();
    let (lower, upper, work) = (f.folder("lower"), f.folder("upper"), f.folder("work"));
    fs::write(lower.join("below"), "x").unwrap();
    fs::write(lower.join("removed"), "x").unwrap();
    let tar = Tar::default()
        .entry(&Entry::new(Kind::File, "new"))
        .entry(&Entry::new(Kind::File, ".wh.removed"))
        .finish();
    // A bind over an overlay: two mounts, which no shortcut takes.
    let mut mounts = mount(
        "overlay",
        "overlay",
        &[
            &format!("lowerdir={}", lower.display()),
            &format!("upperdir={}", upper.display()),
            &format!("workdir={}", work.display()),
        ],
    );
    let inner = f.folder("inner");
    fs::create_dir(lower.join("sub")).unwrap();
    let mut bound = bind(&inner);
    bound[0].target = "/sub".into();
    mounts.extend(bound);
    let before = fs::read_to_string("/proc/self/mountinfo").unwrap();
    let tar_inner = Tar::default().entry(&Entry::new(Kind::File, "sub/inside")).finish();
    f.apply(tar, &mounts).await.unwrap();
    f.apply(tar_inner, &mounts).await.unwrap();
    let ours = |table: &str| table.lines().filter(|line| line.contains(f.scratch.tag())).count();
    assert_eq!(ours(&fs::read_to_string("/proc/self/mountinfo").unwrap()), ours(&before));
    assert!(upper.join("new").exists() && inner.join("inside").exists());
    assert!(fs::symlink_metadata(upper.join("removed")).unwrap().mode() & 0o170_000 == 0o020_000);
}

#[tokio::test]
async fn what_cannot_be_written_is_told() {
    let f = Fixture::new();
    let tar = Tar::default().entry(&Entry::new(Kind::File, "a")).finish();
    let error = f.apply(tar.clone(), &[]).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidArgument);
    let error = f.apply(tar.clone(), &mount("bind", "/nonexistent", &["rw", "rbind"])).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
    let view = mount("bind", &f.folder("view").display().to_string(), &["ro", "rbind"]);
    assert_eq!(f.apply(tar.clone(), &view).await.unwrap_err().kind(), ErrorKind::FailedPrecondition);
    let Ok(()) = need::root() else { return };
    let small = f.folder("small");
    berth_sys::mount::mount_all(&mount("tmpfs", "tmpfs", &["size=64k"]), &small).unwrap();
    let mut big = Entry::new(Kind::File, "big");
    big.bytes = vec![1; 1 << 20];
    let error = f.apply(Tar::default().entry(&big).finish(), &bind(&small)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ResourceExhausted);
    assert!(error.chain().contains("big"), "{}", error.chain());
    berth_sys::mount::unmount_all(&small).unwrap();
}

#[tokio::test]
async fn a_caller_that_goes_away_stops_the_work() {
    let f = Fixture::new();
    let root = f.folder("root");
    let entries = (0..30_000).map(|number| Entry::new(Kind::File, &format!("file-{number}")));
    let tar = entries.fold(Tar::default(), |tar, entry| tar.entry(&entry)).finish();
    let layer = f.blobs.add(media::OCI_LAYER, tar);
    let mounts = bind(&root);
    {
        let apply = f.apply_layer(layer, &mounts);
        let begun = async {
            while !root.join("file-0").exists() {
                tokio::task::yield_now().await;
            }
        };
        tokio::select! {
            _ = apply => panic!("the layer was applied before the first file could be seen"),
            () = begun => {}
        }
    }
    // No more files come once the thread has noticed: the count stays for many looks.
    let (mut before, mut looks) = (0, 0);
    testkit::wait::soon("the work stops", || {
        let now = fs::read_dir(&root).unwrap().count();
        looks = if std::mem::replace(&mut before, now) == now { looks + 1 } else { 0 };
        looks == 30
    });
    assert!(before < 30_000);
}
