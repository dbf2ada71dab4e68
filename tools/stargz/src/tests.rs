//! Layers made by stargz-snapshotter's own package, and tables that nobody should make.

use std::collections::BTreeMap;
use std::io::Write as _;

use berth_types::Digest;
use serde_json::{Value, json};
use testkit::image::{EntryKind, Layer as Archive, tar::Entry};
use testkit::{Invocation, Scratch, need};

use super::*;

mod made;

/// A layer that was made by somebody else: its blob and what its descriptor says.
struct Made {
    blob: Vec<u8>,
    annotations: BTreeMap<String, String>,
    _scratch: Scratch,
}

fn big() -> Vec<u8> {
    (0..100_000_u32).flat_map(|number| number.wrapping_mul(2_654_435_761).to_le_bytes()).collect()
}

fn archive() -> Vec<u8> {
    let special = |kind, path: &str| Entry { mode: 0o600, ..Entry::new(kind, path) };
    Archive::new()
        .dir("bin", 0o755)
        .file("bin/tool", b"#!/bin/sh\necho tool\n", 0o4755)
        .symlink("bin/link", "tool")
        .hardlink("bin/again", "bin/tool")
        .dir("data", 0o1777)
        .file("data/big", &big(), 0o640)
        .file("data/empty", b"", 0o600)
        .entry(&special(EntryKind::Fifo, "data/pipe"))
        .whiteout("data", "gone")
        .dir("fresh", 0o755)
        .opaque("fresh")
        .file("fresh/file", b"fresh", 0o644)
        .file("deep/er/still", b"deep", 0o644)
        .tar()
}

fn make(flags: &[&str]) -> Option<Made> {
    let tool = need::program("stargz-tool").ok()?;
    let scratch = Scratch::new();
    let (tar, out) = (scratch.file("layer.tar", archive()), scratch.path("layer"));
    let printed = Invocation::new(&tool).arg("make").args(flags).arg(&tar).arg(&out).ok();
    let annotations = serde_json::from_str(&printed).unwrap();
    Some(Made { blob: std::fs::read(out).unwrap(), annotations, _scratch: scratch })
}

impl Made {
    fn toc_digest(&self) -> Digest {
        self.annotations[annotation::TOC_DIGEST].parse().unwrap()
    }

    fn position(&self) -> Position {
        let tail = self.blob.len().saturating_sub(TAIL as usize);
        Position::from_tail(&self.blob[tail..], self.blob.len() as u64).unwrap()
    }

    fn table(&self, position: &Position) -> &[u8] {
        &self.blob[position.table.start as usize..position.table.end as usize]
    }

    fn read(&self) -> Layer {
        let position = self.position();
        Layer::read(&position, self.table(&position), &self.toc_digest()).unwrap()
    }
}

fn find<'l>(layer: &'l Layer, path: &str) -> &'l Node {
    let names = path.split('/').filter(|name| !name.is_empty());
    let id = names.fold(ROOT, |at, name| {
        let directory = layer.node(at).unwrap();
        layer.child(directory, name.as_bytes()).unwrap_or_else(|| panic!("{path} is not there"))
    });
    layer.node(id).unwrap()
}

fn contents(layer: &Layer, blob: &[u8], path: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    for chunk in layer.chunks(find(layer, path)) {
        assert_eq!(chunk.offset, bytes.len() as u64);
        match &chunk.stored {
            Some(stored) => {
                let range = stored.range.start as usize..stored.range.end as usize;
                bytes.extend(layer.decompress(chunk.size, stored, &blob[range]).unwrap());
            }
            None => bytes.resize(chunk.end() as usize, 0),
        }
    }
    bytes
}

/// What every form of the archive has to come out as.
fn check(layer: &Layer, blob: &[u8]) {
    let tool = find(layer, "bin/tool");
    assert_eq!((tool.mode, tool.links), (0o4755, 2));
    assert_eq!(find(layer, "bin/again"), tool);
    assert_eq!(contents(layer, blob, "bin/again"), b"#!/bin/sh\necho tool\n");
    assert_eq!(find(layer, "bin/link").kind, Kind::Symlink(b"tool".as_slice().into()));
    assert_eq!(contents(layer, blob, "data/big"), big());
    assert_eq!(
        find(layer, "data/empty").kind,
        Kind::File { size: 0, chunks: find_range(layer, "data/empty") }
    );
    assert_eq!(find(layer, "data/pipe").kind, Kind::Fifo);
    assert_eq!(find(layer, "data/gone").kind, Kind::CharDevice { major: 0, minor: 0 });
    assert_eq!(find(layer, "data").mode, 0o1777);
    let opaque = find(layer, "fresh").xattrs.get(&b"trusted.overlay.opaque"[..]);
    assert_eq!(opaque.map(AsRef::as_ref), Some(&b"y"[..]));
    assert_eq!(contents(layer, blob, "deep/er/still"), b"deep");
    let root = layer.node(ROOT).unwrap();
    let Kind::Directory { children, .. } = &root.kind else { panic!("the root is a directory") };
    let names: Vec<_> = children.iter().map(|(name, _)| String::from_utf8_lossy(name)).collect();
    assert_eq!(names, ["bin", "data", "deep", "fresh"], "landmarks and the table are not the image's");
    assert_eq!(root.links, 2 + 4);
}

fn find_range(layer: &Layer, path: &str) -> std::ops::Range<u32> {
    match &find(layer, path).kind {
        Kind::File { chunks, .. } => chunks.clone(),
        other => panic!("{other:?} is no file"),
    }
}

#[test]
fn layers_of_others_are_read_in_every_form() {
    for flags in [&[][..], &["--chunk", "30000"], &["--min-chunk", "60000", "--chunk", "30000"], &["--zstd"]]
    {
        let Some(made) = make(flags) else { return };
        check(&made.read(), &made.blob);
    }
}

#[test]
fn a_table_of_zstd_chunked_is_found_by_its_annotations_alone() {
    let Some(made) = make(&["--zstd", "--chunk", "50000"]) else { return };
    let value = |keys: [&str; 2]| keys.iter().find_map(|key| made.annotations.get(*key)).unwrap().clone();
    let position =
        Position::from_annotation(&value(annotation::ZSTD_POSITION), made.blob.len() as u64).unwrap();
    assert_eq!(position, made.position());
    let digest: Digest = value(annotation::ZSTD_CHECKSUM).parse().unwrap();
    let layer = Layer::read_compressed(&position, made.table(&position), &digest).unwrap();
    check(&layer, &made.blob);
    assert!(layer.chunks(find(&layer, "data/big")).len() > 7);
    let wrong = Layer::read_compressed(&position, made.table(&position), &made.toc_digest());
    assert!(matches!(wrong, Err(StargzError::Digest { .. })));
}

#[test]
fn what_was_made_to_come_first_is_known() {
    let Some(made) = make(&["--prioritized", "data/big"]) else { return };
    let layer = made.read();
    let Prefetch::UpTo(end) = layer.prefetch() else { panic!("{:?}", layer.prefetch()) };
    let last = layer.chunks(find(&layer, "data/big")).last().unwrap();
    let tool = &layer.chunks(find(&layer, "bin/tool"))[0];
    assert!(last.stored.as_ref().unwrap().range.start < end);
    assert!(tool.stored.as_ref().unwrap().range.start > end);
    check(&layer, &made.blob);
    let Some(made) = make(&[]) else { return };
    assert_eq!(made.read().prefetch(), Prefetch::Nothing);
}

#[test]
fn another_table_than_the_manifest_says_is_refused() {
    let Some(made) = make(&[]) else { return };
    let position = made.position();
    let other: Digest = format!("sha256:{}", "0".repeat(64)).parse().unwrap();
    let refused = Layer::read(&position, made.table(&position), &other).unwrap_err();
    assert!(matches!(refused, StargzError::Digest { .. }), "{refused}");
}

#[test]
fn bytes_that_lie_are_refused() {
    let Some(made) = make(&[]) else { return };
    let layer = made.read();
    let chunk = &layer.chunks(find(&layer, "data/big"))[0];
    let stored = chunk.stored.as_ref().unwrap();
    let mut part = made.blob[stored.range.start as usize..stored.range.end as usize].to_vec();
    assert!(layer.decompress(chunk.size, stored, &part).is_ok());
    // In the middle of what was stored as it is, since noise cannot be compressed.
    let middle = part.len() / 2;
    part[middle] ^= 1;
    let refused = layer.decompress(chunk.size, stored, &part).unwrap_err();
    assert!(matches!(refused, ChunkError::Mismatch { .. }), "{refused}");
    let short = layer.decompress(chunk.size, stored, &part[..100]).unwrap_err();
    assert!(matches!(short, ChunkError::Damaged { .. }), "{short}");
}

/// A table of these entries, as zstd:chunked has it.
fn table(entries: &Value) -> Result<Layer, StargzError> {
    let json = json!({ "version": 1, "entries": entries }).to_string();
    let packed = zstd::stream::encode_all(json.as_bytes(), 1).unwrap();
    let position = Position { format: Format::Zstd, table: 1000..2000, payload_end: 990 };
    Layer::read(&position, &packed, &berth_archive::Hasher::digest(json.as_bytes()))
}

const DIGEST: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

#[test]
fn tables_that_no_file_system_could_have_are_refused() {
    let file = |name: &str| json!({ "name": name, "type": "reg", "size": 5, "offset": 10, "digest": DIGEST });
    for (entries, part) in [
        (json!([{ "name": "a", "type": "door" }]), "its type is not known"),
        (json!([{ "name": "a", "type": "symlink" }]), "leads nowhere"),
        (json!([{ "name": "a\u{0}b", "type": "dir" }]), "a zero"),
        (json!([{ "name": "x".repeat(300), "type": "dir" }]), "too long"),
        (json!([{ "name": "a/".repeat(3000), "type": "dir" }]), "too long"),
        (json!([{ "name": "", "type": "reg" }]), "the root is no directory"),
        (json!([file("a"), file("a/b")]), "no directory"),
        (json!([{ "name": "a", "type": "hardlink", "linkName": "b" }]), "what is not there"),
        (json!([{ "name": "a", "type": "hardlink", "linkName": "a" }]), "what is not there"),
        (json!([{ "name": "a", "type": "hardlink", "linkName": "/" }]), "to a directory"),
        (json!([{ "name": "a", "type": "chunk" }]), "follows no file"),
        (json!([{ "name": "a", "type": "reg", "size": 5, "offset": 10 }]), "no digest"),
        (
            json!([{ "name": "a", "type": "reg", "size": 5, "chunkSize": 6, "chunkDigest": DIGEST }]),
            "do not follow",
        ),
        (
            json!([{ "name": "a", "type": "reg", "size": 5, "chunkSize": 2, "chunkDigest": DIGEST }]),
            "lacks chunks",
        ),
        (json!([{ "name": "a", "type": "reg", "size": u64::MAX, "digest": DIGEST }]), "too large"),
        (
            json!([{ "name": "a", "type": "reg", "size": 5, "offset": 995, "digest": DIGEST }]),
            "behind its end",
        ),
        (json!([{ "name": "a", "type": "dir", "xattrs": { "user.a": "?" } }]), "not in base64"),
        (json!([{ "name": "a/.wh..", "type": "reg" }]), "no whiteout"),
        (json!([{ "name": ".wh..wh..opq", "type": "reg" }]), "opaque root"),
        (json!({ "a": 1 }), "not what it should be"),
    ] {
        let refused = table(&entries).expect_err(part).to_string();
        assert!(refused.contains(part), "{refused} is not about {part}");
    }
}

#[test]
fn what_only_overlayfs_may_say_is_dropped() {
    let xattrs = json!({
        "trusted.overlay.redirect": "L2V0Yw==", "user.overlay.opaque": "eQ==", "user.mine": "MQ==",
        "security.capability": "AAAA",
    });
    let layer = table(&json!([
        { "name": "a", "type": "dir", "xattrs": xattrs },
        { "name": "l", "type": "symlink", "linkName": "a", "xattrs": xattrs },
    ]));
    let layer = layer.unwrap();
    let names = |path| {
        find(&layer, path)
            .xattrs
            .keys()
            .map(|key| String::from_utf8_lossy(key).into_owned())
            .collect::<Vec<_>>()
    };
    assert_eq!(names("a"), ["security.capability", "user.mine"]);
    assert_eq!(names("l"), ["security.capability"]);
}

#[test]
fn something_new_in_the_place_of_something_old_hides_it() {
    let layer = table(&json!([
        { "name": ".wh.d", "type": "reg" },
        { "name": "d/", "type": "dir", "mode": 0o700 },
        { "name": ".wh.f", "type": "reg" },
        { "name": "f", "type": "fifo" },
        { "name": ".wh..wh.plnk", "type": "dir" },
        { "name": "h", "type": "hardlink", "linkName": "i" },
        { "name": "i", "type": "hardlink", "linkName": "f" },
    ]));
    let layer = layer.unwrap();
    assert!(find(&layer, "d").xattrs.contains_key(&b"trusted.overlay.opaque"[..]));
    assert_eq!((&find(&layer, "h").kind, find(&layer, "f").links), (&Kind::Fifo, 3));
}

#[test]
fn holes_need_no_bytes_and_times_go_back_before_1970() {
    let layer = table(&json!([
        { "name": "s", "type": "reg", "size": 200_000_000, "offset": 5, "chunkSize": 5, "chunkDigest": DIGEST,
          "modtime": "1969-12-31T23:59:59.5Z" },
        { "name": "s", "type": "chunk", "chunkOffset": 5, "chunkSize": 199_999_990, "chunkType": "zeros" },
        { "name": "s", "type": "chunk", "chunkOffset": 199_999_995, "offset": 50, "chunkDigest": DIGEST },
    ]));
    let layer = layer.unwrap();
    let node = find(&layer, "s");
    assert_eq!((node.mtime.seconds, node.mtime.nanos), (-1, 500_000_000));
    let chunks = layer.chunks(node);
    let ranges: Vec<_> =
        chunks.iter().map(|chunk| chunk.stored.as_ref().map(|stored| stored.range.clone())).collect();
    assert_eq!(ranges, [Some(5..50), None, Some(50..990)]);
}

#[test]
fn footers_of_every_kind_are_known() {
    let mut gzip = b"\x1f\x8b\x08\x04\0\0\0\0\0\xff\x1a\0SG\x16\0".to_vec();
    gzip.extend_from_slice(b"00000000000000ffSTARGZ\x01\0\0\xff\xff\0\0\0\0\0\0\0\0");
    assert_eq!(gzip.len(), 51);
    let found = Position::from_tail(&gzip, 1000).unwrap();
    assert_eq!(found, Position { format: Format::Gzip, table: 255..949, payload_end: 255 });
    assert!(matches!(Position::from_tail(&gzip, 200), Err(StargzError::Position(_))), "it lies outside");
    let mut legacy = b"\x1f\x8b\x08\x04\0\0\0\0\0\xff\x16\0".to_vec();
    legacy.extend_from_slice(b"00000000000000ffSTARGZ\x01\0\0\xff\xff\0\0\0\0\0\0\0\0");
    assert_eq!(legacy.len(), 47);
    assert_eq!(Position::from_tail(&legacy, 1000).unwrap().table, 255..953);
    let numbers = |all: &[u64]| all.iter().flat_map(|number| number.to_le_bytes()).collect::<Vec<u8>>();
    for payload in [numbers(&[500, 100, 900, 1]), numbers(&[500, 100, 900, 1, 600, 20, 90])] {
        let mut zstd = vec![0x50, 0x2a, 0x4d, 0x18];
        zstd.write_all(&(payload.len() as u32 + 8).to_le_bytes()).unwrap();
        zstd.extend_from_slice(&payload);
        zstd.extend_from_slice(b"GNUlInUx");
        let found = Position::from_tail(&zstd, 1000).unwrap();
        assert_eq!(found, Position { format: Format::Zstd, table: 500..600, payload_end: 492 });
    }
    for nothing in [&b""[..], b"short", &[0; 72]] {
        assert!(matches!(Position::from_tail(nothing, 1000), Err(StargzError::NoFooter)));
    }
    for text in ["", "1:2:3", "1:2:3:2", "1:x:3:1", "900:101:3:1", "18446744073709551615:2:3:1", "5:0:3:1"] {
        assert!(Position::from_annotation(text, 1000).is_err(), "{text}");
    }
}
