//! zTOCs made here and by soci-snapshotter's own packages, each read by both.

use std::io::Write as _;

use berth_archive::{Compression, Encoder, Hasher};
use serde_json::Value;
use testkit::image::{EntryKind, Layer as Archive, tar::Entry};
use testkit::{Invocation, Scratch, need};

use super::*;
use crate::{ChunkError, Kind, Layer, Node, Prefetch, ROOT};

/// Bytes of the tar between two places: small, so that files lie in several spans.
const SPAN: u64 = 300_000;

/// Bytes with hardly any order in them, others for each number: then blocks of gzip are short.
fn bytes(number: u32, length: u32) -> Vec<u8> {
    (0..length / 4).flat_map(|at| (at ^ number << 20).wrapping_mul(2_654_435_761).to_le_bytes()).collect()
}

fn archive() -> Vec<u8> {
    let special = |kind, path: &str| Entry { mode: 0o600, ..Entry::new(kind, path) };
    let pax = vec![("SCHILY.xattr.user.color".to_owned(), b"bl\xfe\xff\0ue".to_vec())];
    let colored = Entry { pax, bytes: b"colored".to_vec(), ..Entry::new(EntryKind::File, "bin/colored") };
    let mut layer = Archive::new()
        .dir("bin", 0o755)
        .file("bin/tool", b"a tool", 0o4755)
        .hardlink("bin/again", "bin/tool")
        .symlink("bin/link", "tool")
        .entry(&colored)
        .file("bin/empty", b"", 0o600)
        .entry(&special(EntryKind::Fifo, "bin/pipe"))
        .whiteout("bin", "gone")
        .dir("fresh", 0o755)
        .opaque("fresh")
        .file("fresh/.prefetch.landmark", b"not one, so deep", 0o644);
    for number in 0..50 {
        layer = layer.file(&format!("small/{number}"), &bytes(number, 5000), 0o644);
    }
    for number in 0..4 {
        layer = layer.file(&format!("large/{number}"), &bytes(1000 + number, 1_000_000), 0o644);
    }
    layer.tar()
}

fn packed(part: &[u8]) -> Vec<u8> {
    let mut encoder = Encoder::new(Vec::new(), Compression::Gzip).unwrap();
    encoder.write_all(part).unwrap();
    encoder.finish().unwrap()
}

/// Blobs of each kind that there is: gzip of one member, of many, with a header that says something, and plain.
fn blobs(tar: &[u8]) -> [Vec<u8>; 4] {
    let mut named =
        flate2::GzBuilder::new().filename("layer.tar").write(Vec::new(), flate2::Compression::best());
    named.write_all(tar).unwrap();
    [packed(tar), tar.chunks(700_001).flat_map(packed).collect(), named.finish().unwrap(), tar.to_vec()]
}

fn read(ztoc: &[u8]) -> Ztoc {
    Ztoc::read(ztoc, &Hasher::digest(ztoc)).unwrap()
}

fn find<'l>(layer: &'l Layer, path: &str) -> &'l Node {
    let id = path.split('/').fold(ROOT, |at, name| {
        layer.child(layer.node(at).unwrap(), name.as_bytes()).unwrap_or_else(|| panic!("{path} is not there"))
    });
    layer.node(id).unwrap()
}

/// A file's bytes out of the ranges of the blob that are said to be enough.
fn contents(layer: &Layer, blob: &[u8], path: &str) -> Result<Vec<u8>, ChunkError> {
    let mut bytes = Vec::new();
    for chunk in layer.chunks(find(layer, path)) {
        let stored = chunk.stored.as_ref().unwrap();
        let part = &blob[stored.range.start as usize..stored.range.end as usize];
        bytes.extend(layer.decompress(chunk.size, stored, part)?);
    }
    Ok(bytes)
}

fn check(layer: &Layer, blob: &[u8]) {
    assert!(layer.names_chunks() && layer.prefetch() == Prefetch::Unsaid);
    assert_eq!(find(layer, "bin/again"), find(layer, "bin/tool"));
    assert_eq!((find(layer, "bin/tool").mode, find(layer, "bin/tool").links), (0o4755, 2));
    assert_eq!(contents(layer, blob, "bin/again").unwrap(), b"a tool");
    assert_eq!(find(layer, "bin/link").kind, Kind::Symlink(b"tool"[..].into()));
    assert_eq!(find(layer, "bin/pipe").kind, Kind::Fifo);
    assert_eq!(find(layer, "bin/gone").kind, Kind::CharDevice { major: 0, minor: 0 });
    assert_eq!(find(layer, "bin/empty").kind, Kind::File { size: 0, chunks: chunks(layer, "bin/empty") });
    let colored = find(layer, "bin/colored");
    assert_eq!(colored.xattrs[&b"user.color"[..]][..], b"bl\xfe\xff\0ue"[..]);
    assert!(find(layer, "fresh").xattrs.contains_key(&b"trusted.overlay.opaque"[..]));
    for number in [0, 17, 49] {
        assert!(contents(layer, blob, &format!("small/{number}")).unwrap() == bytes(number, 5000));
    }
    for number in 0..4 {
        let path = format!("large/{number}");
        let parts = layer.chunks(find(layer, &path)).len();
        assert!(parts >= 3, "it lies in several spans and not in {parts}");
        assert!(contents(layer, blob, &path).unwrap() == bytes(1000 + number, 1_000_000));
    }
    let longest = layer.all_chunks().iter().filter_map(|chunk| chunk.stored.as_ref());
    let longest = longest.map(|stored| stored.range.end - stored.range.start).max().unwrap();
    assert!(longest < blob.len() as u64 / 4, "{longest} of {}", blob.len());
}

fn chunks(layer: &Layer, path: &str) -> std::ops::Range<u32> {
    let Kind::File { chunks, .. } = &find(layer, path).kind else { panic!("{path} is no file") };
    chunks.clone()
}

#[test]
fn layers_are_read_by_ztocs_that_were_made_here() {
    for blob in blobs(&archive()) {
        let ztoc = make(&blob[..], SPAN, "a test").unwrap();
        let Ztoc { layer, size } = read(&ztoc);
        assert_eq!(size, blob.len() as u64);
        check(&layer, &blob);
    }
}

#[test]
fn layers_are_read_by_ztocs_that_soci_snapshotters_packages_made() {
    let Ok(tool) = need::program("soci-tool") else { return };
    let scratch = Scratch::new();
    for (number, blob) in blobs(&archive()).iter().enumerate() {
        let (layer, to) = (scratch.file("layer", blob), scratch.path("ztoc"));
        let plain: &[&str] = if number == 3 { &["--plain"] } else { &[] };
        let span = SPAN.to_string();
        Invocation::new(&tool).args(["make", "--span", &span]).args(plain).arg(&layer).arg(&to).ok();
        let Ztoc { layer, size } = read(&std::fs::read(&to).unwrap());
        assert_eq!(size, blob.len() as u64);
        check(&layer, blob);
    }
}

#[test]
fn ztocs_that_were_made_here_are_what_soci_snapshotters_packages_make_and_read() {
    let Ok(tool) = need::program("soci-tool") else { return };
    let scratch = Scratch::new();
    for (number, blob) in blobs(&archive()).iter().enumerate() {
        let (layer, theirs) = (scratch.file("layer", blob), scratch.path("theirs"));
        let ours = scratch.file("ours", make(&blob[..], SPAN, "soci-tool").unwrap());
        let plain: &[&str] = if number == 3 { &["--plain"] } else { &[] };
        let span = SPAN.to_string();
        Invocation::new(&tool).args(["make", "--span", &span]).args(plain).arg(&layer).arg(&theirs).ok();
        let show = |ztoc| -> Value {
            serde_json::from_str(&Invocation::new(&tool).arg("show").arg(ztoc).ok()).unwrap()
        };
        let (mut shown, mut expected) = (show(&ours), show(&theirs));
        // Names of owners are not read here, and of pax' records only extended attributes.
        for one in [&mut shown, &mut expected] {
            for file in one["ztoc"]["FileMetadata"].as_array_mut().unwrap() {
                let records = file["PAXHeaders"].as_object_mut().unwrap();
                records.retain(|key, _| key.starts_with("SCHILY.xattr."));
                file["Uname"].take();
                file["Gname"].take();
            }
        }
        assert_eq!(shown, expected, "blob {number}");
        let cat = |file: &str| {
            let outcome = Invocation::new(&tool).arg("cat").arg(&layer).arg(&ours).arg(file).outcome();
            assert!(outcome.status.success(), "blob {number}: {}", outcome.stderr_text());
            outcome.stdout
        };
        assert_eq!(cat("bin/tool"), b"a tool");
        assert!(cat("small/49") == bytes(49, 5000));
        for number in 0..4 {
            assert!(cat(&format!("large/{number}")) == bytes(1000 + number, 1_000_000));
        }
    }
}

#[test]
fn bytes_of_a_span_that_lie_are_told_whatever_is_read_of_it() {
    for blob in blobs(&archive()) {
        let Ztoc { layer, .. } = read(&make(&blob[..], SPAN, "a test").unwrap());
        let small = layer.chunks(find(&layer, "small/3"))[0].stored.clone().unwrap();
        let mut other = blob.clone();
        // The last byte of the span; what is read of it comes long before.
        other[small.range.end as usize - 1] ^= 1;
        let error = contents(&layer, &other, "small/3").unwrap_err();
        assert!(matches!(error, ChunkError::Mismatch { .. }), "{error}");
        let mut unpacker = layer.unpacker(&other, 0);
        for path in ["small/3", "small/4", "small/3"] {
            let chunk = &layer.chunks(find(&layer, path))[0];
            let refused = unpacker.chunk(chunk.size, chunk.stored.as_ref().unwrap()).unwrap_err();
            assert!(matches!(refused, ChunkError::Mismatch { .. }), "{refused}");
        }
        let chunk = layer.chunks(find(&layer, "large/3")).last().unwrap();
        assert!(unpacker.chunk(chunk.size, chunk.stored.as_ref().unwrap()).is_ok(), "another span");
        let until_then = &blob[..small.range.end as usize];
        assert_eq!(contents(&layer, until_then, "small/3").unwrap(), bytes(3, 5000));
    }
}

#[test]
fn a_ztoc_that_is_damaged_or_another_one_is_refused() {
    let blob = packed(&archive());
    let ztoc = make(&blob[..], SPAN, "a test").unwrap();
    let other = Hasher::digest(b"other");
    assert!(matches!(Ztoc::read(&ztoc, &other), Err(ZtocError::Digest { .. })));
    let whole = |bytes: &[u8]| Ztoc::read(bytes, &Hasher::digest(bytes));
    for length in (0..ztoc.len() - 8).step_by(ztoc.len() / 50) {
        assert!(whole(&ztoc[..length]).is_err(), "cut at {length}");
    }
    for at in (0..ztoc.len()).step_by(ztoc.len() / 3000) {
        let mut changed = ztoc.clone();
        changed[at] ^= 0x41;
        drop(whole(&changed));
    }
}

#[test]
fn places_of_the_first_version_are_read_too() {
    let blob = packed(&archive());
    let ztoc = make(&blob[..], SPAN, "a test").unwrap();
    // The first place is left out: it is behind the header.
    let points = checkpoints_of(&ztoc);
    let old = [&points[..12], &points[12 + 17 + (32 << 10)..]].concat();
    let (new, old) = (checkpoints::read_gzip(&points).unwrap(), checkpoints::read_gzip(&old).unwrap());
    assert_eq!(new, old);
    assert!(new.len() > 10);
    assert!(checkpoints::read_gzip(&points[..points.len() - 1]).is_err());
    assert!(checkpoints::read_gzip(&[0xff; 12]).is_err());
}

fn checkpoints_of(ztoc: &[u8]) -> Vec<u8> {
    let buffer = flat::Buffer::new(ztoc);
    buffer.root().unwrap().table(5).unwrap().unwrap().bytes(3).unwrap().to_vec()
}

#[test]
fn what_can_have_no_ztoc_says_why() {
    let make = |blob: &[u8]| make(blob, SPAN, "a test").unwrap_err();
    let mut zstd = Encoder::new(Vec::new(), Compression::Zstd).unwrap();
    zstd.write_all(&archive()).unwrap();
    assert!(matches!(make(&zstd.finish().unwrap()), ZtocError::Zstd));
    let pax = [
        ("GNU.sparse.major", "0"),
        ("GNU.sparse.minor", "1"),
        ("GNU.sparse.name", "s"),
        ("GNU.sparse.size", "9000"),
        ("GNU.sparse.map", "4096,3,8998,2"),
    ];
    let pax = pax.map(|(key, value)| (key.to_owned(), value.as_bytes().to_vec())).to_vec();
    let sparse = Entry { pax, bytes: b"abcde".to_vec(), ..Entry::new(EntryKind::File, "GNUSparseFile.0/s") };
    let refused = make(&packed(&Archive::new().entry(&sparse).tar()));
    assert!(matches!(&refused, ZtocError::Sparse(name) if name == "s"), "{refused}");
    let blob = packed(&archive());
    for cut in [5, 100, blob.len() / 2, blob.len() - 1] {
        assert!(matches!(make(&blob[..cut]), ZtocError::Read(_) | ZtocError::Archive(_)), "cut at {cut}");
    }
    assert!(matches!(make(b""), ZtocError::Spans(_)));
    assert!(matches!(super::make(&blob[..], 0, ""), Err(ZtocError::Spans(_))));
}
