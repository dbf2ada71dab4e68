//! Archives that no honest program writes, read by us and by GNU tar: what we accept, GNU tar reads as the
//! same members, or refuses. Programs that read different members from the same bytes are how files get
//! past scanners (CVE-2025-62518 and its relatives).

#![expect(clippy::unwrap_used, reason = "a test that cannot run its oracle has failed")]

use std::io::{Read, Write};
use std::process::{Command, Stdio};

use berth_archive::{Kind, Reader};
use proptest::prelude::*;

/// One block or more, as it will stand in the archive.
#[derive(Clone, Debug)]
enum Piece {
    Header(Fields),
    /// An extended header with these records.
    Pax(u8, Vec<(&'static str, String)>),
    /// A GNU long name or link.
    Long(u8, String),
    Data(u8),
    /// Data that looks like a member.
    Inner(Fields),
    Zeros(usize),
}

#[derive(Clone, Debug)]
struct Fields {
    name: String,
    kind: u8,
    size: String,
    magic: &'static [u8],
    prefix: String,
    link: String,
}

fn fields() -> impl Strategy<Value = Fields> {
    let size = prop_oneof![
        4 => (0_u64..4).prop_map(|blocks| format!("{:011o}", blocks * 512)),
        2 => (0_u64..1600).prop_map(|bytes| format!("{bytes:011o}")),
        1 => (0_u64..1600).prop_map(|bytes| format!(" {bytes:o} ")),
        1 => (0_u64..1600).prop_map(|bytes| format!("{bytes:o}")),
        1 => (0_u64..1600).prop_map(|bytes| format!("{bytes:012o}")),
        1 => Just(String::new()),
        1 => Just("0000008".to_owned()),
        1 => Just("-1".to_owned()),
        1 => Just("77777777777".to_owned()),
    ];
    let kind = prop_oneof![
        6 => Just(b'0'), 1 => Just(0), 1 => Just(b'7'), 2 => Just(b'5'), 2 => Just(b'1'), 2 => Just(b'2'),
        1 => Just(b'3'), 1 => Just(b'6'), 1 => Just(b'S'), 1 => Just(b'D'), 1 => Just(b'V'), 1 => Just(b'A'),
    ];
    let magic: Vec<&'static [u8]> =
        vec![b"ustar\x0000", b"ustar  \0", b"\0\0\0\0\0\0\0\0", b"ustar\0  ", b"xustar00"];
    let magic = prop_oneof![4 => Just(magic[0]), 2 => Just(magic[1]), 1 => proptest::sample::select(magic)];
    let name = prop_oneof![4 => "[a-c]{1,3}", 1 => "[a-c]{1,3}/", 1 => "[a-c]/[a-c]", 1 => "a{100}"];
    let prefix = prop_oneof![3 => Just(String::new()), 1 => "[x-z]{1,3}"];
    (name, kind, size, magic, prefix, "[a-c]{1,3}").prop_map(|(name, kind, size, magic, prefix, link)| {
        // Go once wrote prefixes into GNU's headers; GNU tar doesn't see them, Go and we do.
        let prefix = if magic.starts_with(b"ustar  ") { String::new() } else { prefix };
        Fields { name, kind, size, magic, prefix, link }
    })
}

fn piece() -> impl Strategy<Value = Piece> {
    let record = prop_oneof![
        (0_u64..1600).prop_map(|size| ("size", size.to_string())),
        "[p-s]{1,5}".prop_map(|path| ("path", path)),
        "[p-s]{1,5}".prop_map(|path| ("linkpath", path)),
        Just(("size", String::new())),
        Just(("path", String::new())),
        Just(("comment", "x".to_owned())),
    ];
    let kind = prop_oneof![4 => Just(b'x'), 1 => Just(b'g'), 1 => Just(b'X')];
    prop_oneof![
        6 => fields().prop_map(Piece::Header),
        2 => (kind, proptest::collection::vec(record, 1..3)).prop_map(|(kind, records)| Piece::Pax(kind, records)),
        1 => (prop_oneof![Just(b'L'), Just(b'K')], "[l-n]{1,120}").prop_map(|(kind, name)| Piece::Long(kind, name)),
        3 => any::<u8>().prop_map(Piece::Data),
        2 => fields().prop_map(Piece::Inner),
        1 => (1_usize..3).prop_map(Piece::Zeros),
    ]
}

fn header(fields: &Fields) -> [u8; 512] {
    let mut bytes = [0; 512];
    let mut put = |at: usize, text: &[u8]| bytes[at..at + text.len()].copy_from_slice(text);
    put(0, fields.name.as_bytes());
    put(100, b"0000644\0");
    put(108, b"0000000\0");
    put(116, b"0000000\0");
    put(124, &fields.size.as_bytes()[..fields.size.len().min(12)]);
    put(136, b"00000000001\0");
    put(148, b"        ");
    put(156, &[fields.kind]);
    put(157, fields.link.as_bytes());
    put(257, fields.magic);
    put(329, b"0000001\x000000003\0");
    put(345, fields.prefix.as_bytes());
    let sum: u32 = bytes.iter().map(|byte| u32::from(*byte)).sum();
    bytes[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    bytes
}

fn with_payload(kind: u8, payload: &[u8]) -> Vec<u8> {
    let fields = Fields {
        name: "extended".into(),
        kind,
        size: format!("{:011o}", payload.len()),
        magic: b"ustar\x0000",
        prefix: String::new(),
        link: String::new(),
    };
    let mut bytes = header(&fields).to_vec();
    bytes.extend_from_slice(payload);
    bytes.resize(bytes.len().next_multiple_of(512), 0);
    bytes
}

fn record(key: &str, value: &str) -> String {
    let body = key.len() + value.len() + 3;
    let mut length = body + 1;
    while body + length.to_string().len() != length {
        length = body + length.to_string().len();
    }
    format!("{length} {key}={value}\n")
}

fn assemble(pieces: &[Piece]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for piece in pieces {
        match piece {
            Piece::Header(fields) | Piece::Inner(fields) => bytes.extend_from_slice(&header(fields)),
            Piece::Pax(kind, records) => {
                let records: String = records.iter().map(|(key, value)| record(key, value)).collect();
                bytes.extend(with_payload(*kind, records.as_bytes()));
            }
            Piece::Long(kind, name) => bytes.extend(with_payload(*kind, format!("{name}\0").as_bytes())),
            Piece::Data(byte) => bytes.extend_from_slice(&[*byte; 512]),
            Piece::Zeros(blocks) => bytes.resize(bytes.len() + blocks * 512, 0),
        }
    }
    bytes.resize(bytes.len() + 1024, 0);
    bytes
}

/// Kind, size and name of each member, as `tar -tv` writes them.
fn ours(archive: &[u8]) -> Option<Vec<String>> {
    let mut reader = Reader::new(archive);
    let mut lines = Vec::new();
    while let Some(entry) = reader.next_entry().ok()? {
        let path = String::from_utf8_lossy(&entry.path).into_owned();
        let (letter, rest) = match &entry.kind {
            Kind::File => ('-', String::new()),
            Kind::Directory => ('d', String::new()),
            Kind::HardLink(target) => ('h', format!(" link to {}", String::from_utf8_lossy(target))),
            Kind::Symlink(target) => ('l', format!(" -> {}", String::from_utf8_lossy(target))),
            Kind::CharDevice { .. } => ('c', String::new()),
            Kind::BlockDevice { .. } => ('b', String::new()),
            Kind::Fifo => ('p', String::new()),
        };
        let size = if entry.kind == Kind::File { entry.size.to_string() } else { "-".to_owned() };
        lines.push(format!("{letter} {size} {}", format!("{path}{rest}").trim_end_matches('/')));
        std::io::copy(&mut reader.data(), &mut std::io::sink()).ok()?;
    }
    reader.finish().ok()?;
    Some(lines)
}

/// The same of GNU tar; `None` when it complains.
fn theirs(archive: &[u8]) -> Option<Vec<String>> {
    let mut tar = Command::new("tar")
        .args(["--numeric-owner", "--full-time", "--quoting-style=literal", "-tvf", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .ok()?;
    let mut input = tar.stdin.take().unwrap();
    let archive = archive.to_vec();
    let writer = std::thread::spawn(move || drop(input.write_all(&archive)));
    let mut errors = String::new();
    tar.stderr.take().unwrap().read_to_string(&mut errors).unwrap();
    let output = tar.wait_with_output().unwrap();
    writer.join().unwrap();
    if !output.status.success() || !errors.is_empty() {
        return None;
    }
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    Some(text.lines().map(line).collect())
}

/// `-rw-r--r-- 0/0   12 1970-01-01 00:00:01 name`, from columns.
fn line(line: &str) -> String {
    let mut parts = line.splitn(2, ' ');
    // A contiguous file is a file.
    let letter = parts.next().unwrap().chars().next().unwrap();
    let letter = if letter == 'C' { '-' } else { letter };
    let rest = parts.next().unwrap_or_default().trim_start();
    let (_owner, rest) = rest.split_once(' ').unwrap_or_default();
    let (size, rest) = rest.trim_start().split_once(' ').unwrap_or_default();
    let name = rest.splitn(3, ' ').nth(2).unwrap_or_default();
    let size = if letter == '-' { size } else { "-" };
    format!("{letter} {size} {}", name.trim_end_matches('/'))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn what_is_accepted_is_what_gnu_tar_reads(pieces in proptest::collection::vec(piece(), 1..8)) {
        let archive = assemble(&pieces);
        if let (Some(ours), Some(theirs)) = (ours(&archive), theirs(&archive)) {
            prop_assert_eq!(ours, theirs);
        }
    }
}
