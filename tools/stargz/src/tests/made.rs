//! Layers made here, read here, by stargz-snapshotter's own package, and as the plain archives that they are too.

use std::collections::BTreeSet;
use std::io::{Cursor, Read as _};

use berth_archive::{Decoder, Hasher, Limits, Reader};

use super::*;

fn ours(making: &Making) -> (Made, Vec<Vec<u8>>) {
    let (blob, made) = crate::make(Cursor::new(archive()), Vec::new(), making).unwrap();
    assert_eq!(made.diff_id, Hasher::digest(&plain(&blob)), "what it says that it holds");
    let size = plain(&blob).len().to_string();
    assert_eq!(made.annotations[annotation::UNCOMPRESSED_SIZE], size);
    let crate::Made { annotations, first, .. } = made;
    (Made { blob, annotations, _scratch: Scratch::new() }, first)
}

/// What a decoder that knows of no table makes of it.
fn plain(blob: &[u8]) -> Vec<u8> {
    let mut plain = Vec::new();
    Decoder::new(blob, Limits::default()).unwrap().read_to_end(&mut plain).unwrap();
    plain
}

fn makings() -> Vec<Making> {
    let mut all = Vec::new();
    for format in [Format::Gzip, Format::Zstd] {
        let usual = Making::new(format);
        all.push(Making { chunk_size: 30_000, ..usual.clone() });
        all.push(Making { chunk_size: 30_000, min_chunk_size: 60_000, level: Some(1), ..usual.clone() });
        all.push(usual);
    }
    all
}

#[test]
fn layers_made_here_are_read_here() {
    for making in makings() {
        let (made, _) = ours(&making);
        let layer = made.read();
        check(&layer, &made.blob);
        assert_eq!(layer.prefetch(), Prefetch::Nothing);
        let chunks = layer.chunks(find(&layer, "data/big")).len();
        assert_eq!(chunks > 10, making.chunk_size > 0, "{chunks} chunks");
    }
}

#[test]
fn layers_made_here_are_read_by_stargz_snapshotters_package() {
    let Ok(tool) = need::program("stargz-tool") else { return };
    let scratch = Scratch::new();
    // That package refuses to verify streams that chunks share, its own ones too.
    for making in makings().into_iter().filter(|making| making.min_chunk_size == 0) {
        let (made, _) = ours(&making);
        let layer = scratch.file("layer", &made.blob);
        let cat = |name: &str| {
            let cat = Invocation::new(&tool).arg("cat").arg(&layer).arg(made.toc_digest().as_str()).arg(name);
            let outcome = cat.outcome();
            assert!(outcome.status.success(), "{making:?}: {}", outcome.stderr_text());
            outcome.stdout
        };
        assert_eq!(cat("bin/tool"), b"#!/bin/sh\necho tool\n");
        assert_eq!(cat("bin/again"), b"#!/bin/sh\necho tool\n");
        assert!(cat("data/big") == big(), "{making:?}");
        assert_eq!(cat("deep/er/still"), b"deep");
    }
}

#[test]
fn a_layer_made_here_unpacks_to_the_same_files() {
    let paths = |tar: &[u8]| {
        let mut reader = Reader::new(tar);
        let mut paths = BTreeSet::new();
        while let Some(entry) = reader.next_entry().unwrap() {
            let mut data = Vec::new();
            reader.data().read_to_end(&mut data).unwrap();
            paths.insert((berth_archive::clean(&entry.path), entry.mode, entry.mtime, Hasher::digest(&data)));
        }
        paths
    };
    let expected = paths(&archive());
    for making in makings() {
        let made = paths(&plain(&ours(&making).0.blob));
        assert!(made.is_superset(&expected));
        let added = if making.format == Format::Gzip { 2 } else { 1 };
        assert_eq!(made.len(), expected.len() + added, "a landmark, and in eStargz the table");
    }
}

#[test]
fn files_that_are_wanted_first_come_before_the_landmark() {
    for format in [Format::Gzip, Format::Zstd] {
        let first =
            ["/data/big", "nothing/like/that", "bin/again"].map(|path| path.as_bytes().to_vec()).to_vec();
        let (made, found) = ours(&Making { first, ..Making::new(format) });
        assert_eq!(found, [&b"data/big"[..], b"bin/tool"], "a link brings its file along");
        let layer = made.read();
        check(&layer, &made.blob);
        let Prefetch::UpTo(end) = layer.prefetch() else { panic!("{:?}", layer.prefetch()) };
        let begin = |path| layer.chunks(find(&layer, path))[0].stored.as_ref().unwrap().range.start;
        assert!(begin("data/big") < begin("bin/tool") && begin("bin/tool") < end);
        assert!(begin("deep/er/still") > end);
    }
}

#[test]
fn a_layer_that_has_a_table_already_gets_another_one() {
    let (made, _) = ours(&Making::new(Format::Gzip));
    let (blob, again) =
        crate::make(Cursor::new(plain(&made.blob)), Vec::new(), &Making::new(Format::Gzip)).unwrap();
    assert!(blob == made.blob);
    assert_eq!(again.annotations, made.annotations);
}

#[test]
fn holes_are_written_out() {
    let pax = [
        ("GNU.sparse.major", "0"),
        ("GNU.sparse.minor", "1"),
        ("GNU.sparse.name", "s"),
        ("GNU.sparse.size", "9000"),
        ("GNU.sparse.map", "4096,3,8998,2"),
    ];
    let pax = pax.map(|(key, value)| (key.to_owned(), value.as_bytes().to_vec())).to_vec();
    let entry = Entry { pax, bytes: b"abcde".to_vec(), ..Entry::new(EntryKind::File, "GNUSparseFile.0/s") };
    let tar = Archive::new().entry(&entry).tar();
    let (blob, made) = crate::make(Cursor::new(tar), Vec::new(), &Making::new(Format::Gzip)).unwrap();
    let made = Made { blob, annotations: made.annotations, _scratch: Scratch::new() };
    let mut expected = vec![0; 9000];
    expected[4096..4099].copy_from_slice(b"abc");
    expected[8998..].copy_from_slice(b"de");
    assert!(contents(&made.read(), &made.blob, "s") == expected);
}

#[test]
fn what_no_table_can_hold_is_refused_by_name() {
    let tar = |name: &[u8]| {
        let mut writer = berth_archive::Writer::new(Vec::new());
        writer.append(&berth_archive::Entry::new(name, berth_archive::Kind::Fifo, 0o600)).unwrap();
        Cursor::new(writer.finish().unwrap())
    };
    let refused = crate::make(tar(b"caf\xe9"), Vec::new(), &Making::new(Format::Gzip)).unwrap_err();
    assert!(refused.to_string().contains("caf"), "{refused}");
    let large = Making { chunk_size: CHUNK_LIMIT + 1, ..Making::new(Format::Gzip) };
    assert!(matches!(crate::make(tar(b"a"), Vec::new(), &large), Err(MakeError::Chunk(_))));
}
