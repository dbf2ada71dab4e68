//! What many compressors write is made again to the byte.

#![expect(clippy::unwrap_used, reason = "a test fails with what it did not expect")]

use std::collections::BTreeMap;
use std::io::{self, Cursor, Read, Write};

use berth_archive::{Compression, Decoder, Encoder, Entry, Kind, Limits, Writer};
use berth_remake::{RemakeError, Tree, make, remake};
use testkit::{Invocation, Scratch, need, programs};

/// A tree in memory.
#[derive(Clone, Default)]
struct Files(BTreeMap<Vec<u8>, Vec<u8>>);

impl Tree for Files {
    fn open(&mut self, path: &[u8]) -> io::Result<Option<Box<dyn Read>>> {
        Ok(self.0.get(path).map(|bytes| Box::new(Cursor::new(bytes.clone())) as Box<dyn Read>))
    }
}

/// A tree as layers have them: program text, sources, what cannot be compressed, and what is very much so; and its tar.
fn sample() -> (Files, Vec<u8>) {
    let mut files = Files::default();
    let program = std::fs::read(std::env::current_exe().unwrap()).unwrap();
    let middle = program.len() / 2;
    files.0.insert(b"bin/program".to_vec(), program[middle..middle + 300_000].to_vec());
    for name in ["src/lib.rs", "src/archive.rs", "src/deflate/matcher.rs", "Cargo.toml"] {
        let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join(name);
        files.0.insert(name.as_bytes().to_vec(), std::fs::read(path).unwrap());
    }
    files.0.insert(b"var/noise".to_vec(), noise(150_000));
    files.0.insert(b"var/zeros".to_vec(), vec![0; 400_000]);
    files.0.insert(b"var/empty".to_vec(), Vec::new());
    let mut writer = Writer::new(Vec::new());
    writer.append(&Entry::new("bin/", Kind::Directory, 0o755)).unwrap();
    for (path, bytes) in &files.0 {
        let entry = Entry { size: bytes.len() as u64, ..Entry::new(path.clone(), Kind::File, 0o644) };
        writer.append(&entry).unwrap();
        writer.write_all(bytes).unwrap();
    }
    writer.append(&Entry::new("bin/other", Kind::HardLink(b"bin/program".to_vec()), 0o755)).unwrap();
    writer.append(&Entry::new("bin/.wh.gone", Kind::File, 0o644)).unwrap();
    let tar = writer.finish().unwrap();
    (files, tar)
}

/// Bytes without an order, the same ones each time.
fn noise(length: usize) -> Vec<u8> {
    let mut state = 1_u32;
    let next = || {
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        state as u8
    };
    std::iter::repeat_with(next).take(length).collect()
}

fn recipe(blob: &[u8], files: &Files) -> Result<Vec<u8>, RemakeError> {
    let mut recipe = Vec::new();
    let length = make(blob, &mut files.clone(), &mut recipe, u64::MAX)?;
    assert_eq!(length, recipe.len() as u64);
    Ok(recipe)
}

/// Sees that a blob is made again; answers the length of its recipe.
#[track_caller]
fn exact(what: &str, blob: &[u8], files: &Files) -> usize {
    let recipe = recipe(blob, files).unwrap_or_else(|error| panic!("{what}: {error:?}"));
    let mut again = Vec::new();
    remake(|| Ok(&recipe[..]), &mut files.clone(), &mut again)
        .unwrap_or_else(|error| panic!("{what}: {error:?}"));
    assert!(again == blob, "{what} is not the same");
    eprintln!("{what}: {} of {}", recipe.len(), blob.len());
    recipe.len()
}

fn zlib(bytes: &[u8], level: u32) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::new(level));
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn plain(blob: &[u8]) -> Vec<u8> {
    let mut plain = Vec::new();
    Decoder::new(blob, Limits::default()).unwrap().read_to_end(&mut plain).unwrap();
    plain
}

#[test]
fn what_zlib_rs_writes_at_every_level() {
    let (files, tar) = sample();
    for level in 0..=9 {
        exact(&format!("level {level}"), &zlib(&tar, level), &files);
    }
}

#[test]
fn what_libdeflate_writes_at_every_level() {
    let (files, tar) = sample();
    for level in 1..=12 {
        let level = libdeflater::CompressionLvl::new(level).unwrap();
        let mut compressor = libdeflater::Compressor::new(level);
        let mut blob = vec![0; compressor.gzip_compress_bound(tar.len())];
        let length = compressor.gzip_compress(&tar, &mut blob).unwrap();
        exact(&format!("{level:?}"), &blob[..length], &files);
    }
}

#[test]
fn what_gzip_writes_has_a_small_recipe() {
    let Ok(gzip) = need::program("gzip") else { return };
    let (files, tar) = sample();
    for level in 1..=9 {
        let packed = Invocation::new(&gzip).args(["-nc", &format!("-{level}")]).input(tar.clone()).outcome();
        let blob = packed.stdout;
        assert_eq!(plain(&blob), tar);
        let length = exact(&format!("gzip -{level}"), &blob, &files);
        assert!(length < blob.len() / 40, "gzip -{level}: {length} of {}", blob.len());
    }
}

/// Reads a level and plain bytes, and writes what Go makes of them.
const PROGRAM: &str = r#"package main

import (
	"compress/gzip"
	"io"
	"os"
	"strconv"
)

func main() {
	level, _ := strconv.Atoi(os.Args[1])
	writer, err := gzip.NewWriterLevel(os.Stdout, level)
	if err != nil {
		panic(err)
	}
	if _, err := io.Copy(writer, os.Stdin); err != nil {
		panic(err)
	}
	writer.Close()
}
"#;

#[test]
fn what_go_writes_has_a_small_recipe() {
    let brought = programs::peers().join("go-wheel/bin/go");
    let go = if brought.is_file() { Ok(brought) } else { need::program("go") };
    let (Ok(go), scratch) = (go, Scratch::new()) else { return };
    let (source, program) = (scratch.path("main.go"), scratch.path("packs"));
    std::fs::write(&source, PROGRAM).unwrap();
    Invocation::new(go)
        .args(["build", "-o"])
        .arg(&program)
        .arg(&source)
        .env("GOCACHE", scratch.path("cache"))
        .env("GOFLAGS", "-mod=mod")
        .env("GO111MODULE", "off")
        .within(std::time::Duration::from_mins(5))
        .ok();
    let (files, tar) = sample();
    for level in ["-2", "-1", "0", "1", "2", "3", "4", "5", "6", "7", "8", "9"] {
        let blob = Invocation::new(&program).arg(level).input(tar.clone()).outcome().stdout;
        assert_eq!(plain(&blob), tar);
        let length = exact(&format!("Go at {level}"), &blob, &files);
        // Its first level searches in a way of its own.
        let part = if level == "1" { 4 } else { 40 };
        assert!(length < blob.len() / part, "Go at {level}: {length} of {}", blob.len());
    }
}

#[test]
fn what_zstd_writes_has_a_small_recipe_where_the_settings_are_known() {
    let (files, tar) = sample();
    for (level, checksum) in [(1, false), (3, true), (3, false), (6, true)] {
        let mut encoder = zstd::stream::write::Encoder::new(Vec::new(), level).unwrap();
        encoder.include_checksum(checksum).unwrap();
        encoder.write_all(&tar).unwrap();
        let blob = encoder.finish().unwrap();
        let length = exact(&format!("zstd {level}"), &blob, &files);
        assert!(length < blob.len() / 40);
    }
    let two = [zstd::bulk::compress(&tar[..512], 3).unwrap(), zstd::bulk::compress(&tar[512..], 3).unwrap()];
    assert!(matches!(recipe(&two.concat(), &files), Err(RemakeError::Unsupported(_))));
}

#[test]
fn archives_of_several_members_plain_ones_and_what_follows_the_last() {
    let (files, tar) = sample();
    exact("a plain archive", &tar, &files);
    let mut members: Vec<u8> = tar.chunks(70_000).flat_map(|part| zlib(part, 6)).collect();
    exact("members", &members, &files);
    members.extend_from_slice(&zlib(b"", 6));
    exact("an empty member", &members, &files);
    let mut header = vec![0x1f, 0x8b, 8, 4 | 8 | 16 | 2, 1, 2, 3, 4, 0, 3, 3, 0];
    header.extend_from_slice(b"abcname\0comment\0hc");
    header.extend_from_slice(&zlib(&tar, 9)[10..]);
    exact("a header with everything", &header, &files);
}

#[test]
fn flushed_streams() {
    let (files, tar) = sample();
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::new(6));
    for part in tar.chunks(50_000) {
        encoder.write_all(part).unwrap();
        encoder.flush().unwrap();
    }
    exact("flushes", &encoder.finish().unwrap(), &files);
}

#[test]
fn empty_archives() {
    let nothing = Files::default();
    for level in [0, 1, 6] {
        exact("an empty tar", &zlib(&[0; 1024], level), &nothing);
        exact("nothing at all", &zlib(b"", level), &nothing);
    }
}

/// The longest match in its other form, blocks with the format's own codes, and bits that mean nothing.
#[test]
fn streams_that_nobody_writes() {
    let mut packed = vec![0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 255];
    let mut bits: Vec<bool> = Vec::new();
    let put = |bits: &mut Vec<bool>, value: u32, count: u32| {
        bits.extend((0..count).map(|at| value >> at & 1 == 1));
    };
    let code = |bits: &mut Vec<bool>, value: u32, count: u32| {
        bits.extend((0..count).rev().map(|at| value >> at & 1 == 1));
    };
    // A stored block of nothing whose padding is set.
    put(&mut bits, 0, 3);
    put(&mut bits, 0b10110, 5);
    put(&mut bits, 0xffff_0000, 32);
    put(&mut bits, 1 | 1 << 1, 3);
    // A literal 0; 256 + 767 zeros: 284 with 31 thrice, then 249.
    code(&mut bits, 0x30, 8);
    for _ in 0..3 {
        code(&mut bits, 0b1100_0000 + 4, 8);
        put(&mut bits, 31, 5);
        code(&mut bits, 0, 5);
    }
    // 1024 - 1 - 3 * 258 = 249 is 284 (227 and up) with 22.
    code(&mut bits, 0b1100_0000 + 4, 8);
    put(&mut bits, 22, 5);
    code(&mut bits, 0, 5);
    code(&mut bits, 0, 7);
    while !bits.len().is_multiple_of(8) {
        bits.push(true);
    }
    packed
        .extend(bits.chunks(8).map(|byte| byte.iter().rev().fold(0, |byte, bit| byte << 1 | u8::from(*bit))));
    let mut crc = flate2::Crc::new();
    crc.update(&[0; 1024]);
    packed.extend_from_slice(&crc.sum().to_le_bytes());
    packed.extend_from_slice(&1024_u32.to_le_bytes());
    assert_eq!(plain(&packed), [0; 1024]);
    exact("odd", &packed, &Files::default());
}

#[test]
fn a_file_that_is_another_one_now_is_named() {
    let (files, tar) = sample();
    let blob = zlib(&tar, 6);
    let recipe = recipe(&blob, &files).unwrap();
    let again = |files: &Files| remake(|| Ok(&recipe[..]), &mut files.clone(), io::sink());
    let mut changed = files.clone();
    changed.0.get_mut(&b"bin/program"[..]).unwrap()[200_000] ^= 1;
    assert!(matches!(again(&changed), Err(RemakeError::Changed { path }) if path == "bin/program"));
    changed.0.get_mut(&b"bin/program"[..]).unwrap().truncate(1000);
    assert!(matches!(again(&changed), Err(RemakeError::Changed { path }) if path == "bin/program"));
    changed.0.remove(&b"bin/program"[..]);
    assert!(matches!(again(&changed), Err(RemakeError::Gone { path }) if path == "bin/program"));
}

#[test]
fn what_the_tree_does_not_have_is_in_the_recipe() {
    let (files, tar) = sample();
    let mut other = files.clone();
    other.0.get_mut(&b"bin/program"[..]).unwrap()[150_000] ^= 1;
    other.0.remove(&b"src/lib.rs"[..]);
    exact("another tree", &zlib(&tar, 6), &other);
}

#[test]
fn a_recipe_ends_at_its_limit_and_a_damaged_one_is_an_error() {
    let (files, tar) = sample();
    let mut encoder = Encoder::new(Vec::new(), Compression::Gzip).unwrap();
    encoder.write_all(&tar).unwrap();
    let blob = encoder.finish().unwrap();
    let short = make(&blob[..], &mut Files::default(), io::sink(), 1000);
    assert!(matches!(short, Err(RemakeError::TooLarge { limit: 1000 })), "{short:?}");
    let recipe = recipe(&blob, &files).unwrap();
    for end in [0, 8, 9, 12, recipe.len() / 2, recipe.len() - 1] {
        assert!(remake(|| Ok(&recipe[..end]), &mut files.clone(), io::sink()).is_err(), "{end}");
    }
    let cut = make(&blob[..blob.len() / 2], &mut files.clone(), io::sink(), u64::MAX);
    assert!(matches!(cut, Err(RemakeError::Io(_) | RemakeError::Archive(_))), "{cut:?}");
}
