use std::ffi::OsStr;
use std::io::{Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::process::Command;

use proptest::prelude::*;

use super::*;
use crate::Limits;

fn write(entries: &[(Entry, Vec<u8>)]) -> Vec<u8> {
    let mut writer = Writer::new(Vec::new());
    for (entry, data) in entries {
        writer.append(entry).unwrap();
        writer.write_all(data).unwrap();
    }
    writer.finish().unwrap()
}

fn read(archive: &[u8]) -> Result<Vec<(Entry, Vec<u8>)>, TarError> {
    let mut reader = Reader::new(archive);
    let mut entries = Vec::new();
    while let Some(entry) = reader.next_entry()? {
        let mut data = Vec::new();
        reader.data().read_to_end(&mut data).map_err(|source| TarError::Read { offset: 0, source })?;
        entries.push((entry, data));
    }
    reader.finish()?;
    Ok(entries)
}

fn file(path: &str, data: &[u8]) -> (Entry, Vec<u8>) {
    let mut entry = Entry::new(path, Kind::File, 0o644);
    entry.size = data.len() as u64;
    (entry, data.to_vec())
}

/// A raw header with a right checksum.
fn raw(change: impl FnOnce(&mut [u8; BLOCK])) -> Vec<u8> {
    let mut bytes = [0; BLOCK];
    bytes[..4].copy_from_slice(b"name");
    bytes[100..107].copy_from_slice(b"0000644");
    bytes[156] = b'0';
    bytes[257..265].copy_from_slice(b"ustar\x0000");
    change(&mut bytes);
    bytes[148..156].fill(b' ');
    let sum: u32 = bytes.iter().map(|byte| u32::from(*byte)).sum();
    bytes[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    bytes.to_vec()
}

fn extended(kind: u8, payload: &[u8]) -> Vec<u8> {
    let mut bytes = raw(|header| {
        header[156] = kind;
        header[124..135].copy_from_slice(format!("{:011o}", payload.len()).as_bytes());
    });
    bytes.extend_from_slice(payload);
    bytes.resize(bytes.len().next_multiple_of(BLOCK), 0);
    bytes
}

fn record(key: &str, value: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    pax::append(&mut bytes, key.as_bytes(), value.as_bytes());
    bytes
}

fn gnu_tar(arguments: &[&str], folder: &Path) -> Option<Vec<u8>> {
    let output = Command::new("tar").args(arguments).current_dir(folder).output().ok()?;
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Some(output.stdout)
}

#[test]
fn an_empty_archive_is_two_blocks_of_zeros_and_nothing_is_one_too() {
    assert_eq!(write(&[]), [0; 2 * BLOCK]);
    assert!(read(&[]).unwrap().is_empty());
    assert!(read(&[0; BLOCK]).unwrap().is_empty());
    assert!(read(&[0; 20 * BLOCK]).unwrap().is_empty());
}

#[test]
fn data_that_nobody_read_is_skipped() {
    let archive = write(&[file("a", &[1; 3000]), file("b", b"x")]);
    let mut reader = Reader::new(&archive[..]);
    assert_eq!(reader.next_entry().unwrap().unwrap().path, b"a");
    reader.data().read_exact(&mut [0; 10]).unwrap();
    assert_eq!(reader.next_entry().unwrap().unwrap().path, b"b");
    assert!(reader.next_entry().unwrap().is_none());
}

#[test]
fn an_archive_cut_anywhere_inside_an_entry_is_an_error() {
    let mut long = file(&"d/".repeat(200), b"");
    long.0.kind = Kind::Directory;
    let archive = write(&[file("a", &[1; 700]), long]);
    let whole = archive.len() - 2 * BLOCK;
    let boundaries = [0, 3 * BLOCK];
    for length in (0..whole).filter(|length| !boundaries.contains(length)) {
        assert!(read(&archive[..length]).is_err(), "cut at {length} of {whole}");
    }
}

#[test]
fn the_writer_refuses_what_would_not_be_read_back() {
    let mut writer = Writer::new(Vec::new());
    assert!(writer.append(&Entry::new("", Kind::Fifo, 0)).is_err());
    assert!(writer.append(&Entry::new("a\0b", Kind::Fifo, 0)).is_err());
    let (entry, _) = file("a", b"four");
    writer.append(&entry).unwrap();
    assert!(writer.write_all(b"fives").is_err());
    writer.write_all(b"fo").unwrap();
    assert_eq!(writer.remaining(), 2);
    assert!(writer.append(&entry).is_err());
}

#[test]
fn headers_that_readers_disagree_about_are_refused() {
    let entry = raw(|_| {});
    let directory_with_data = raw(|header| {
        header[..5].copy_from_slice(b"name/");
        header[156] = 0;
        header[124..135].copy_from_slice(b"00000001000");
    });
    let cases: &[(&str, Vec<u8>)] = &[
        ("wrong checksum", [&[b'x'; 1][..], &entry[1..]].concat()),
        ("zeros in between", [entry.clone(), vec![0; BLOCK], entry.clone(), vec![0; 1024]].concat()),
        ("negative size", raw(|header| header[124..136].fill(0xff))),
        ("size that is no number", raw(|header| header[124..130].copy_from_slice(b"0x1000"))),
        ("chown's no change", [extended(b'x', &record("uid", "4294967295")), entry.clone()].concat()),
        ("uid too large", [extended(b'x', &record("uid", "4294967296")), entry.clone()].concat()),
        ("directory with data", directory_with_data),
        ("unknown type", raw(|header| header[156] = b'Z')),
        ("global size", [extended(b'g', &record("size", "7")), entry.clone()].concat()),
        ("global path", [extended(b'g', &record("path", "x")), entry.clone()].concat()),
        (
            "two names",
            [extended(b'L', b"one\0"), extended(b'x', &record("path", "two")), entry.clone()].concat(),
        ),
        ("two records' headers", [extended(b'x', b""), extended(b'x', b""), entry.clone()].concat()),
        (
            "a name, then a global header",
            [extended(b'L', b"one\0"), extended(b'g', b""), entry.clone()].concat(),
        ),
        ("Solaris' records", [extended(b'X', &record("path", "x")), entry.clone()].concat()),
        ("extension without entry", [extended(b'L', b"one\0"), vec![0; 1024]].concat()),
        ("a record twice", {
            let records = [record("path", "one"), record("path", "")].concat();
            [extended(b'x', &records), entry.clone()].concat()
        }),
        (
            "a symlink with data",
            raw(|header| {
                header[156] = b'2';
                header[124..135].copy_from_slice(b"00000001000");
            }),
        ),
        ("a file with a directory's name", raw(|header| header[..5].copy_from_slice(b"name/"))),
        ("NUL in a record", [extended(b'x', &record("path", "a\0b")), entry.clone()].concat()),
        ("a size of more than is there", raw(|header| header[124..135].copy_from_slice(b"77777777777"))),
    ];
    for (what, bytes) in cases {
        assert!(read(bytes).is_err(), "{what}");
    }
    assert_eq!(read(&entry).unwrap().len(), 1, "the plain one is fine");
    assert_eq!(read(&[extended(b'g', &record("comment", "x")), entry].concat()).unwrap().len(), 1);
}

/// CVE-2025-62518: a reader that believes the header's size where pax says another sees the entries of
/// an inner archive.
#[test]
fn the_size_of_a_pax_record_outranks_the_headers() {
    let inner = write(&[file("smuggled", b"evil")]);
    let header = raw(|_| {});
    let mut archive = extended(b'x', &record("size", &inner.len().to_string()));
    archive.extend_from_slice(&header);
    archive.extend_from_slice(&inner);
    archive.extend_from_slice(&[0; 2 * BLOCK]);
    let entries = read(&archive).unwrap();
    assert_eq!(entries.len(), 1);
    assert_eq!(entries[0].1, inner);
}

#[test]
fn limits_stop_what_is_too_much() {
    let limits = Limits { path: 300, extension: 600, entries: 3, segments: 10, ..Limits::default() };
    let read = |archive: &[u8]| {
        let mut reader = Reader::with_limits(archive, limits);
        loop {
            match reader.next_entry() {
                Ok(Some(_)) => {}
                Ok(None) => return Ok(()),
                Err(error) => return Err(error),
            }
        }
    };
    let limited = |archive: &[u8]| matches!(read(archive), Err(TarError::Limit { .. }));
    read(&write(&[file("a", b""), file("b", b""), file("c", b"")])).unwrap();
    assert!(limited(&write(&[file("a", b""), file("b", b""), file("c", b""), file("d", b"")])));
    assert!(limited(&write(&[file(&"x".repeat(400), b"")])));
    assert!(limited(&extended(b'L', &[b'x'; 700])));
    let map: Vec<String> = (0..11).map(|n| format!("{},0", n * 2)).collect();
    let sparse = [record("GNU.sparse.map", &map.join(",")), record("GNU.sparse.size", "100")].concat();
    assert!(limited(&[extended(b'x', &sparse), raw(|_| {})].concat()));
}

#[test]
fn a_sparse_map_that_lies_is_refused() {
    let bomb = |map: &str, size: &str, stored: usize| {
        let records = [
            record("GNU.sparse.map", map),
            record("GNU.sparse.size", size),
            record("GNU.sparse.name", "holes"),
        ];
        let header = raw(|header| {
            header[124..135].copy_from_slice(format!("{stored:011o}").as_bytes());
        });
        [extended(b'x', &records.concat()), header, vec![7; stored.next_multiple_of(BLOCK)]].concat()
    };
    let good = read(&bomb("0,4,100,4", "200", 8)).unwrap();
    assert_eq!((good[0].0.size, good[0].0.stored(), &*good[0].0.path), (200, 8, &b"holes"[..]));
    for (map, size, stored) in [
        ("0,4,2,4", "200", 8),
        ("100,4,0,4", "200", 8),
        ("0,4,100,4", "103", 8),
        ("0,4,100,4", "200", 9),
        ("0,4,100", "200", 4),
        ("9223372036854775807,1", "9223372036854775807", 1),
        ("18446744073709551615,1", "200", 1),
    ] {
        assert!(read(&bomb(map, size, stored)).is_err(), "{map} of {size}");
    }
}

/// A map of 10^8 entries costs an error, not memory: each form stops at the limit while it reads.
#[test]
fn a_sparse_map_of_a_hundred_million_runs_is_stopped_early() {
    let records = [record("GNU.sparse.major", "1"), record("GNU.sparse.minor", "0")].concat();
    let header = raw(|header| header[124..135].copy_from_slice(b"77777777777"));
    let mut archive =
        [extended(b'x', &[records, record("GNU.sparse.realsize", "1")].concat()), header].concat();
    archive.extend_from_slice(b"100000000\n");
    archive.resize(archive.len().next_multiple_of(BLOCK) + 4 * BLOCK, b'1');
    assert!(read(&archive).is_err());
}

#[test]
fn gnu_tar_reads_what_is_written() {
    let folder = tempfile::tempdir().unwrap();
    let long = format!("{}/{}", "directory".repeat(15), "name".repeat(40));
    let mut odd = file("odd name\n\u{e9}", b"abc");
    odd.0.mtime = Time { seconds: -3, nanos: 250_000_000 };
    odd.0.uid = 3_000_000;
    let archive = write(&[
        file(&long, &[9; 1234]),
        odd,
        (Entry::new("link", Kind::Symlink("t".repeat(150).into_bytes()), 0o777), Vec::new()),
        (Entry::new("hard", Kind::HardLink(long.clone().into_bytes()), 0o644), Vec::new()),
    ]);
    std::fs::write(folder.path().join("a.tar"), archive).unwrap();
    let Some(_) = gnu_tar(&["-xf", "a.tar", "--no-same-owner"], folder.path()) else { return };
    assert_eq!(std::fs::read(folder.path().join(&long)).unwrap(), [9; 1234]);
    assert_eq!(std::fs::read(folder.path().join("hard")).unwrap(), [9; 1234]);
    assert_eq!(std::fs::read_link(folder.path().join("link")).unwrap().as_os_str().len(), 150);
    let metadata = std::fs::metadata(folder.path().join("odd name\n\u{e9}")).unwrap();
    use std::os::unix::fs::MetadataExt;
    assert_eq!((metadata.mtime(), metadata.mtime_nsec()), (-3, 250_000_000));
}

#[test]
fn every_format_of_gnu_tar_is_read_with_its_holes() {
    use std::os::unix::fs::FileExt;
    let folder = tempfile::tempdir().unwrap();
    let long = "long-name/".repeat(18);
    std::fs::create_dir_all(folder.path().join("t").join(&long)).unwrap();
    std::fs::write(folder.path().join("t").join(&long).join("f"), b"deep").unwrap();
    std::os::unix::fs::symlink("x".repeat(180), folder.path().join("t/link")).unwrap();
    let holes = std::fs::File::create(folder.path().join("t/holes")).unwrap();
    for number in 0..40_u64 {
        holes.write_all_at(&[number as u8 + 1; 700], number << 16).unwrap();
    }
    holes.set_len(64 << 16).unwrap();
    let expected = std::fs::read(folder.path().join("t/holes")).unwrap();
    for arguments in [
        &["--format=gnu"][..],
        &["--format=gnu", "-S"],
        &["--format=posix"],
        &["--format=posix", "-S", "--sparse-version=0.0"],
        &["--format=posix", "-S", "--sparse-version=0.1"],
        &["--format=posix", "-S", "--sparse-version=1.0"],
    ] {
        let all = [&["-c"], arguments, &["t"]].concat();
        let Some(archive) = gnu_tar(&all, folder.path()) else { return };
        let entries = read(&archive).unwrap();
        let find = |end: &[u8]| entries.iter().find(|(entry, _)| entry.path.ends_with(end)).unwrap();
        assert_eq!(find(b"/f").1, b"deep");
        assert_eq!(find(b"/f").0.path, format!("t/{long}f").as_bytes());
        assert_eq!(find(b"link").0.kind, Kind::Symlink("x".repeat(180).into_bytes()));
        let (entry, data) = find(b"t/holes");
        let mut content = vec![0; entry.size as usize];
        let whole = vec![Segment { offset: 0, length: entry.size }];
        let mut rest = &data[..];
        for run in entry.segments.as_ref().unwrap_or(&whole) {
            let (now, later) = rest.split_at(run.length as usize);
            content[run.offset as usize..][..now.len()].copy_from_slice(now);
            rest = later;
        }
        assert_eq!(entry.segments.is_some(), arguments.contains(&"-S"), "{arguments:?}");
        assert!(rest.is_empty() && content == expected, "{arguments:?}");
        assert!(!OsStr::from_bytes(&entry.path).is_empty());
    }
}

prop_compose! {
    fn an_entry()(
        path in proptest::collection::vec(1_u8..=255, 1..300),
        kind in 0_usize..7,
        mode in 0_u32..0o10000,
        uid in 0..u32::MAX,
        gid in 0..u32::MAX,
        seconds in -(1_i64 << 40)..1 << 40,
        nanos in prop_oneof![Just(0), 0_u32..1_000_000_000],
        data in proptest::collection::vec(any::<u8>(), 0..1500),
        target in proptest::collection::vec(1_u8..=255, 1..300),
        value in proptest::collection::vec(any::<u8>(), 0..100),
        numbers in (0_u32..4096, 0_u32..(1 << 20)),
    ) -> (Entry, Vec<u8>) {
        let (major, minor) = numbers;
        let kinds = [
            Kind::File, Kind::Directory, Kind::HardLink(target.clone()), Kind::Symlink(target),
            Kind::CharDevice { major, minor }, Kind::BlockDevice { major, minor }, Kind::Fifo,
        ];
        let kind = kinds[kind].clone();
        let mut entry = Entry::new(path, kind, mode);
        // The slash is how a directory is told from a file.
        while entry.path.last() == Some(&b'/') {
            entry.path.pop();
        }
        if entry.path.is_empty() {
            entry.path.push(b'r');
        }
        if entry.kind == Kind::Directory {
            entry.path.push(b'/');
        }
        (entry.uid, entry.gid, entry.mtime) = (uid, gid, Time { seconds, nanos });
        entry.xattrs = vec![(b"user.x y".to_vec(), value)];
        let data = if entry.kind == Kind::File { data } else { Vec::new() };
        entry.size = data.len() as u64;
        (entry, data)
    }
}

proptest! {
    #[test]
    fn what_is_written_is_read(entries in proptest::collection::vec(an_entry(), 0..6)) {
        let archive = write(&entries);
        prop_assert_eq!(read(&archive).unwrap(), entries);
    }

    #[test]
    fn damage_never_panics(
        entries in proptest::collection::vec(an_entry(), 1..3),
        damage in proptest::collection::vec((any::<proptest::sample::Index>(), any::<u8>()), 1..8),
    ) {
        let mut archive = write(&entries);
        for (at, byte) in damage {
            let at = at.index(archive.len());
            archive[at] = byte;
        }
        let _ = read(&archive);
    }
}

/// Go wrote such headers before 1.8, and images of that age are still pulled.
#[test]
fn a_prefix_where_gnu_has_times_is_read_as_go_reads_it() {
    let gnu = |prefix: &[u8]| {
        let bytes = raw(|header| {
            header[257..265].copy_from_slice(b"ustar  \0");
            header[345..345 + prefix.len()].copy_from_slice(prefix);
        });
        String::from_utf8(read(&bytes).unwrap()[0].0.path.clone()).unwrap()
    };
    assert_eq!(gnu(b"usr/share"), "usr/share/name");
    assert_eq!(gnu(b"14012345670\x0014012345670"), "name");
    assert_eq!(gnu(b""), "name");
}
