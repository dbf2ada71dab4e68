//! Layers that mean harm. A canary beside the tree must look the same afterwards.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use berth_archive::Compression;
use berth_oci::image::media;
use berth_types::ErrorKind;
use proptest::prelude::*;
use testkit::image::tar::{Entry, Kind, Tar};
use testkit::need;
use testkit::tree::Tree;

use super::{Fixture, bind, compress, mount};

/// A tree to write into, and one beside it that nobody may touch.
struct Trap {
    f: Fixture,
    root: PathBuf,
    canary: PathBuf,
    before: Tree,
}

impl Trap {
    fn new() -> Self {
        let f = Fixture::new();
        let (root, canary) = (f.folder("root"), f.folder("canary"));
        fs::create_dir(canary.join("dir")).unwrap();
        fs::write(canary.join("file"), "untouched").unwrap();
        fs::set_permissions(canary.join("file"), fs::Permissions::from_mode(0o600)).unwrap();
        let before = Tree::read(&canary);
        Self { f, root, canary, before }
    }

    fn canary(&self, below: &str) -> String {
        self.canary.join(below).display().to_string()
    }

    /// Applies, whether it works or not, and looks at the canary.
    async fn spring(&self, what: &str, tar: Vec<u8>) -> berth_types::Result<()> {
        let done = self.f.apply(tar, &bind(&self.root)).await;
        Tree::read(&self.canary).assert_same(&self.before, what);
        done.map(|_| ())
    }
}

fn file(path: &str) -> Entry {
    let mut entry = Entry::new(Kind::File, path);
    entry.bytes = b"evil".to_vec();
    entry.mode = 0o4777;
    entry
}

fn link(kind: Kind, path: &str, target: &str) -> Entry {
    let mut entry = Entry::new(kind, path);
    entry.link = target.to_owned();
    entry.mode = 0o4777;
    entry
}

fn folder(path: &str) -> Entry {
    Entry::new(Kind::Folder, path)
}

#[tokio::test]
async fn nothing_is_written_outside_the_root() {
    let trap = Trap::new();
    let (canary, canary_file) = (trap.canary(""), trap.canary("file"));
    let up = format!("{}{}", "../".repeat(20), canary_file.trim_start_matches('/'));
    let symlink = |path: &str, target: &str| link(Kind::Symlink, path, target);
    let hardlink = |path: &str, target: &str| link(Kind::Hardlink, path, target);
    let cases: Vec<(&str, Vec<Entry>)> = vec![
        ("absolute name", vec![file(&canary_file)]),
        ("dots in a name", vec![file(&up)]),
        ("through an absolute link", vec![symlink("l", &canary), file("l/file"), file("l/new")]),
        ("through a link with dots", vec![symlink("l", &"../".repeat(30)), file(&format!("l{canary_file}"))]),
        ("through a relative link", vec![symlink("l", "../canary"), file("l/file"), folder("l/dir")]),
        ("over a link", vec![symlink("l", &canary_file), file("l")]),
        ("mode through a link", vec![symlink("l", &canary_file), hardlink("h", "l"), file("h")]),
        ("hard link to an absolute name", vec![hardlink("h", &canary_file), file("h")]),
        ("hard link with dots", vec![hardlink("h", &up), file("h")]),
        ("hard link through a link", vec![symlink("l", &canary), hardlink("h", "l/file"), file("h")]),
        (
            "a folder that becomes a link",
            vec![folder("d"), symlink("d", &canary), file("d/file"), folder("d")],
        ),
        ("times of a folder that becomes a link", vec![folder("d"), folder("d/dir"), symlink("d", &canary)]),
        ("whiteout through a link", vec![symlink("l", &canary), file("l/.wh.file"), file("l/.wh..wh..opq")]),
        ("whiteout with dots", vec![file("../canary/.wh.file"), file("d/.wh..wh..opq/../../canary/x")]),
        ("links in a ring", vec![symlink("a", "b"), symlink("b", "a"), file("a/x")]),
        ("a link to itself", vec![hardlink("a", "a"), hardlink(".", "."), symlink("", "x")]),
        ("a magic link", vec![symlink("l", "/proc/self/root"), file(&format!("l{canary_file}"))]),
        ("the root itself", vec![file("."), file("/"), file(".."), hardlink("/", &canary_file)]),
        ("a node below a link", vec![symlink("l", &canary), Entry::new(Kind::Fifo, "l/fifo")]),
    ];
    for (what, entries) in cases {
        // Each entry alone may fail; what it would have opened for the next one is tried as well.
        let whole = entries.iter().fold(Tar::default(), Tar::entry).finish();
        let _ = trap.spring(what, whole).await;
        for entry in &entries {
            let _ = trap.spring(what, Tar::default().entry(entry).finish()).await;
        }
    }
}

#[tokio::test]
async fn whiteouts_of_no_name_are_refused() {
    let trap = Trap::new();
    for name in [".wh.", ".wh..", ".wh...", "d/.wh..", "d/.wh..."] {
        let error = trap.spring(name, Tar::default().entry(&folder("d")).entry(&file(name)).finish()).await;
        assert_eq!(error.unwrap_err().kind(), ErrorKind::InvalidArgument, "{name}");
    }
    assert!(trap.root.exists());
}

#[test]
fn a_racing_thread_that_swaps_a_folder_for_a_link_gains_nothing() {
    let trap = Trap::new();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let entries = (0..2000).fold(Tar::default(), |tar, number| {
        tar.entry(&folder("swapped/in")).entry(&file(&format!("swapped/in/file-{number}")))
    });
    let tar = entries.finish();
    let (swapped, aside) = (trap.root.join("swapped"), trap.root.join("aside"));
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                if fs::rename(&swapped, &aside).is_ok() {
                    let _ = symlink(&trap.canary, &swapped);
                    let _ = fs::remove_file(&swapped);
                    let _ = fs::rename(&aside, &swapped);
                }
            }
        });
        for _ in 0..5 {
            let _ = runtime.block_on(trap.spring("a race", tar.clone()));
        }
        stop.store(true, Ordering::Relaxed);
    });
    Tree::read(&trap.canary).assert_same(&trap.before, "after the race");
}

/// CVE-2026-95838: markers must not walk the tree again and again.
#[tokio::test]
async fn a_hundred_thousand_opaque_markers_take_linear_time() {
    let Ok(()) = need::root() else { return };
    let trap = Trap::new();
    berth_sys::mount::mount_all(&mount("tmpfs", "tmpfs", &[]), &trap.root).unwrap();
    fs::create_dir_all(trap.root.join("d")).unwrap();
    fs::write(trap.root.join("d/lower"), "x").unwrap();
    let few = |count: usize| {
        let mut tar = Tar::default();
        for number in 0..count {
            tar = tar.entry(&file(&format!("d/{number}"))).entry(&file("d/.wh..wh..opq"));
        }
        for number in 0..count / 10 {
            let dir = format!("d/{}", "n/".repeat(number % 100));
            tar = tar.entry(&file(&format!("{dir}.wh..wh..opq")));
        }
        tar.finish()
    };
    let start = Instant::now();
    trap.spring("many markers", few(20_000)).await.unwrap();
    assert!(start.elapsed() < Duration::from_mins(1), "{:?}", start.elapsed());
    assert!(!trap.root.join("d/lower").exists() && trap.root.join("d/19999").exists());
    berth_sys::mount::unmount_all(&trap.root).unwrap();
}

#[tokio::test]
async fn streams_that_end_early_or_lie_are_errors_at_once() {
    let trap = Trap::new();
    let mut big = file("big");
    big.bytes = (0..400_000_u32).flat_map(|number| (number ^ (number >> 5)).to_le_bytes()).collect();
    let tar = Tar::default().entry(&big).finish();
    let mut lying = file("lying");
    lying.claimed_size = Some(1 << 40);
    let mut cases = vec![
        ("cut tar", tar[..tar.len() / 2].to_vec(), media::OCI_LAYER),
        ("a size of a tebibyte", Tar::default().entry(&lying).finish(), media::OCI_LAYER),
        ("no tar", vec![b'x'; 4096], media::OCI_LAYER),
    ];
    for compression in [Compression::Gzip, Compression::Zstd] {
        let packed = compress(&tar, compression);
        cases.push(("cut stream", packed[..packed.len() / 2].to_vec(), media::OCI_LAYER_GZIP));
        cases.push(("cut tail", packed[..packed.len() - 3].to_vec(), media::OCI_LAYER_GZIP));
        let mut damaged = packed.clone();
        let at = damaged.len() / 2;
        damaged[at] ^= 0xff;
        cases.push(("damage", damaged, media::OCI_LAYER_GZIP));
    }
    for (what, bytes, media_type) in cases {
        let start = Instant::now();
        let layer = trap.f.blobs.add(media_type, bytes);
        let error = trap.f.apply_layer(layer, &bind(&trap.root)).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidArgument, "{what}: {error:?}");
        assert!(start.elapsed() < Duration::from_secs(20), "{what}");
    }
}

#[tokio::test]
async fn a_bomb_is_stopped_by_its_ratio_and_a_sparse_one_costs_nothing() {
    let trap = Trap::new();
    let mut zeros = file("zeros");
    zeros.bytes = vec![0; 400 << 20];
    let layer = trap
        .f
        .blobs
        .add(media::OCI_LAYER_ZSTD, compress(&Tar::default().entry(&zeros).finish(), Compression::Zstd));
    drop(zeros);
    let error = trap.f.apply_layer(layer, &bind(&trap.root)).await.unwrap_err();
    assert!(error.chain().contains("inflates"), "{}", error.chain());
    let mut sparse = Entry::new(Kind::File, "sparse");
    sparse.pax =
        [("GNU.sparse.map", "0,0"), ("GNU.sparse.size", "1099511627776"), ("GNU.sparse.name", "holes")]
            .map(|(key, value)| (key.to_owned(), value.as_bytes().to_vec()))
            .to_vec();
    trap.spring("a tebibyte of holes", Tar::default().entry(&sparse).finish()).await.unwrap();
    let holes = fs::metadata(trap.root.join("holes")).unwrap();
    assert_eq!((holes.len(), holes.blocks()), (1 << 40, 0));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    /// Any sequence of members over few names: it ends, and the canary is as it was.
    #[test]
    fn no_sequence_of_members_escapes(
        members in proptest::collection::vec(
            (0_usize..6, "[ab./]{1,8}", prop_oneof!["[ab./]{1,8}", Just("CANARY".to_owned()), Just("CANARY/file".to_owned())]),
            1..25,
        ),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let trap = Trap::new();
        let mut tar = Tar::default();
        for (kind, path, target) in members {
            let target = target.replace("CANARY", &trap.canary(""));
            let entry = match kind {
                0 => file(&path),
                1 => folder(&path),
                2 => link(Kind::Symlink, &path, &target),
                3 => link(Kind::Hardlink, &path, &target),
                4 => file(&format!("{path}/.wh.a")),
                _ => file(&format!("{path}/.wh..wh..opq")),
            };
            // A folder of data is refused by the reader, and nothing would be tried.
            let mut entry = entry;
            if entry.kind == Kind::File && entry.path.ends_with('/') {
                entry.bytes.clear();
            }
            tar = tar.entry(&entry);
        }
        let _ = runtime.block_on(trap.spring("any sequence", tar.finish()));
    }
}
