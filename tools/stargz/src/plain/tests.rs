use std::collections::HashMap;
use std::io::{BufReader, Write as _};

use berth_archive::{Compression, Encoder, Hasher};
use berth_types::Digest;
use testkit::image::{EntryKind, Layer as Archive, tar::Entry};

use super::*;
use crate::{Kind, Layer, Node, ROOT};

/// Bytes with some order in them, others for each number.
fn bytes(number: u32, length: u32) -> Vec<u8> {
    (0..length / 4)
        .flat_map(|at| ((at / 3) ^ number << 20).wrapping_mul(2_654_435_761).to_le_bytes())
        .collect()
}

fn archive() -> Vec<u8> {
    let mut layer = Archive::new()
        .dir("bin", 0o755)
        .file("bin/tool", b"a tool", 0o4755)
        .hardlink("bin/again", "bin/tool")
        .symlink("bin/link", "tool")
        .whiteout("bin", "gone");
    for number in 0..200 {
        layer = layer.file(&format!("small/{number}"), &bytes(number, 5000), 0o644);
    }
    for number in 0..4 {
        layer = layer.file(&format!("large/{number}"), &bytes(1000 + number, 3_000_000), 0o644);
    }
    let pax = [
        ("GNU.sparse.major", "0"),
        ("GNU.sparse.minor", "1"),
        ("GNU.sparse.name", "sparse"),
        ("GNU.sparse.size", "90000"),
        ("GNU.sparse.map", "4096,3,8998,2"),
    ];
    let pax = pax.map(|(key, value)| (key.to_owned(), value.as_bytes().to_vec())).to_vec();
    let sparse = Entry { pax, bytes: b"abcde".to_vec(), ..Entry::new(EntryKind::File, "GNUSparseFile.0/s") };
    layer.entry(&sparse).tar()
}

fn packed(compression: Compression, part: &[u8]) -> Vec<u8> {
    let mut encoder = Encoder::new(Vec::new(), compression).unwrap();
    encoder.write_all(part).unwrap();
    encoder.finish().unwrap()
}

/// A blob of each kind that there is.
fn blobs(tar: &[u8]) -> Vec<Vec<u8>> {
    let pieces = |compression, length: usize| -> Vec<u8> {
        tar.chunks(length).flat_map(|part| packed(compression, part)).collect()
    };
    let mut named = flate2::GzBuilder::new()
        .filename("layer.tar")
        .comment("a comment")
        .extra(vec![1, 2, 3])
        .write(Vec::new(), flate2::Compression::best());
    named.write_all(tar).unwrap();
    vec![
        tar.to_vec(),
        packed(Compression::Gzip, tar),
        pieces(Compression::Gzip, 700_001),
        named.finish().unwrap(),
        packed(Compression::Zstd, tar),
        pieces(Compression::Zstd, 700_001),
    ]
}

fn recorded(blob: &[u8]) -> (Recorded, HashMap<Digest, Vec<u8>>) {
    let mut kept = HashMap::new();
    let keep = |digest: &Digest, bytes: &[u8]| {
        kept.insert(digest.clone(), bytes.to_vec());
        Ok(())
    };
    let source = BufReader::with_capacity(10_000, blob);
    let recorded = record(source, &Hasher::digest(blob), blob.len() as u64, keep).unwrap();
    (recorded, kept)
}

fn find<'l>(layer: &'l Layer, path: &str) -> &'l Node {
    let id = path.split('/').fold(ROOT, |at, name| {
        layer.child(layer.node(at).unwrap(), name.as_bytes()).unwrap_or_else(|| panic!("{path} is not there"))
    });
    layer.node(id).unwrap()
}

/// A file's bytes out of the ranges of the blob that are said to be enough.
fn contents(layer: &Layer, blob: &[u8], path: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    for chunk in layer.chunks(find(layer, path)) {
        match &chunk.stored {
            None => bytes.resize(chunk.end() as usize, 0),
            Some(stored) => {
                let part = &blob[stored.range.start as usize..stored.range.end as usize];
                bytes.extend(layer.decompress(chunk.size, stored, part).unwrap());
            }
        }
    }
    bytes
}

#[test]
fn a_layer_without_a_table_is_read_in_parts_by_its_index() {
    let tar = archive();
    for blob in blobs(&tar) {
        let (Recorded { index, file }, kept) = recorded(&blob);
        assert_eq!(index.diff_id, Hasher::digest(&tar));
        assert_eq!(index.size, blob.len() as u64);
        let read = Index::read(&file, &Hasher::digest(&blob)).unwrap();
        assert_eq!(read.layer, index.layer);
        let layer = &read.layer;
        for number in 0..4 {
            assert!(contents(layer, &blob, &format!("large/{number}")) == bytes(1000 + number, 3_000_000));
        }
        for number in [0, 100, 199] {
            assert!(contents(layer, &blob, &format!("small/{number}")) == bytes(number, 5000));
        }
        let sparse = contents(layer, &blob, "sparse");
        assert_eq!(
            (sparse.len(), &sparse[4096..4099], &sparse[8998..9000]),
            (90_000, &b"abc"[..], &b"de"[..])
        );
        assert_eq!(find(layer, "bin/again"), find(layer, "bin/tool"));
        assert_eq!(find(layer, "bin/gone").kind, Kind::CharDevice { major: 0, minor: 0 });
        let stored = layer.all_chunks().iter().filter_map(|chunk| chunk.stored.as_ref());
        assert!(stored.clone().all(|stored| kept.contains_key(&stored.digest)), "every chunk was given out");
        assert!(kept.iter().all(|(digest, bytes)| Hasher::digest(bytes) == *digest));
    }
}

#[test]
fn what_has_places_to_begin_at_needs_no_more_than_what_lies_between_them() {
    let tar = archive();
    let kinds = blobs(&tar);
    // One frame of zstd has none.
    for blob in kinds.iter().enumerate().filter(|(kind, _)| *kind != 4).map(|(_, blob)| blob) {
        let layer = recorded(blob).0.index.layer;
        for chunk in layer.all_chunks() {
            let Some(stored) = &chunk.stored else { continue };
            let length = stored.range.end - stored.range.start;
            assert!(length < blob.len() as u64 / 2, "{length} of {}", blob.len());
        }
    }
}

#[test]
fn chunks_that_share_a_stream_are_made_one_after_the_other() {
    let tar = archive();
    let blob = packed(Compression::Gzip, &tar);
    let layer = recorded(&blob).0.index.layer;
    let mut unpacker = layer.unpacker(&blob, 0);
    // Backwards too: then it begins anew.
    for number in (0..200).chain([3, 2]) {
        let chunk = &layer.chunks(find(&layer, &format!("small/{number}")))[0];
        let made = unpacker.chunk(chunk.size, chunk.stored.as_ref().unwrap()).unwrap();
        assert!(made == bytes(number, 5000));
    }
}

#[test]
fn what_can_only_be_decoded_from_its_beginning_gets_no_index() {
    let tar = Archive::new().file("zeros", &vec![0; 70 << 20], 0o644).tar();
    let blob = packed(Compression::Zstd, &tar);
    let refused = record(&blob[..], &Hasher::digest(&blob), blob.len() as u64, |_, _| Ok(())).unwrap_err();
    assert!(matches!(refused, RecordError::Whole), "{refused:?}");
}

#[test]
fn what_is_the_same_all_over_and_what_cannot_be_compressed_has_places_too() {
    let noise: Vec<u8> =
        (0..4_000_000_u32).flat_map(|at| at.wrapping_mul(2_654_435_761).to_le_bytes()).collect();
    // Nothing but zeros would be refused, for it inflates beyond measure.
    let mut zeros = vec![0; 24 << 20];
    zeros.chunks_mut(1024).zip(noise.chunks(12)).for_each(|(part, noise)| part[..12].copy_from_slice(noise));
    for (name, contents) in [("zeros", zeros), ("noise", noise)] {
        let tar = Archive::new().file(name, &contents, 0o644).tar();
        // At the first level all of it is one block.
        for level in [6, 9] {
            let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::new(level));
            encoder.write_all(&tar).unwrap();
            let blob = encoder.finish().unwrap();
            let layer = recorded(&blob).0.index.layer;
            let chunks = layer.chunks(find(&layer, name));
            for chunk in [chunks.first(), chunks.get(chunks.len() / 2), chunks.last()].into_iter().flatten() {
                let stored = chunk.stored.as_ref().unwrap();
                let length = stored.range.end - stored.range.start;
                assert!(length < blob.len() as u64 / 2, "{name}, {level}: {length} of {}", blob.len());
                let part = &blob[stored.range.start as usize..stored.range.end as usize];
                let made = layer.decompress(chunk.size, stored, part).unwrap();
                assert!(made == contents[chunk.offset as usize..chunk.end() as usize]);
            }
        }
    }
}

#[test]
fn damage_is_told_wherever_it_is() {
    let blob = packed(Compression::Gzip, &Archive::new().file("a", &bytes(1, 300_000), 0o644).tar());
    let digest = Hasher::digest(&blob);
    let fails = |blob: &[u8]| record(blob, &digest, blob.len() as u64, |_, _| Ok(())).is_err();
    for cut in [5, 100, blob.len() / 2, blob.len() - 1] {
        assert!(fails(&blob[..cut]), "cut at {cut}");
    }
    let mut other = blob.clone();
    let at = other.len() - 6;
    other[at] ^= 1;
    assert!(fails(&other), "the checksum");
    assert!(fails(&[&blob[..], b"more"].concat()), "something behind it");
}

#[test]
fn an_index_that_is_damaged_or_of_another_layer_is_refused() {
    let blob = packed(Compression::Gzip, &archive());
    let digest = Hasher::digest(&blob);
    let file = recorded(&blob).0.file;
    let other = Hasher::digest(b"other");
    assert!(matches!(Index::read(&file, &other), Err(IndexError::Other(_))));
    for at in [0, 20, file.len() / 2, file.len() - 1] {
        let mut damaged = file.clone();
        damaged[at] ^= 1;
        assert!(Index::read(&damaged, &digest).is_err(), "byte {at}");
    }
    for length in [0, 10, file.len() / 2, file.len() - 1] {
        assert!(Index::read(&file[..length], &digest).is_err(), "cut at {length}");
    }
}

#[test]
fn an_index_is_small_beside_its_layer() {
    let tar = Archive::new().file("big", &bytes(7, 16_000_000), 0o644).tar();
    let blob = packed(Compression::Gzip, &tar);
    let file = recorded(&blob).0.file;
    assert!(file.len() < tar.len() / 50, "{} bytes for {} in {}", file.len(), tar.len(), blob.len());
}
