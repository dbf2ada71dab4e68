//! The table of a layer that is being made, and what follows its files.

use std::collections::BTreeMap;
use std::io;
use std::ops::Range;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use berth_archive::{Entry, Hasher, Kind, Time};
use berth_types::Digest;
use serde::Serialize;

use super::MakeError;

/// The name of an eStargz table in its tar.
pub(super) const NAME: &[u8] = b"stargz.index.json";

const SKIPPABLE: [u8; 4] = [0x50, 0x2a, 0x4d, 0x18];
const ZSTD_MAGIC: &[u8; 8] = b"GnUlInUx";
const ZSTD_TABLE: u64 = 1;

/// Entries, in the order of the tar.
#[derive(Default)]
pub(crate) struct Table {
    entries: Vec<Row>,
    /// The row of the file whose chunks come.
    open: usize,
}

#[derive(Serialize)]
struct Document<'t> {
    version: u32,
    entries: &'t [Row],
}

#[derive(Default, Serialize)]
#[serde(rename_all = "camelCase")]
struct Row {
    name: String,
    #[serde(rename = "type")]
    kind: &'static str,
    #[serde(skip_serializing_if = "is_zero")]
    size: u64,
    #[serde(skip_serializing_if = "String::is_empty")]
    modtime: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    link_name: String,
    #[serde(skip_serializing_if = "is_nobody")]
    mode: u32,
    #[serde(skip_serializing_if = "is_nobody")]
    uid: u32,
    #[serde(skip_serializing_if = "is_nobody")]
    gid: u32,
    #[serde(skip_serializing_if = "is_nobody")]
    dev_major: u32,
    #[serde(skip_serializing_if = "is_nobody")]
    dev_minor: u32,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    xattrs: BTreeMap<String, String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    digest: Option<Digest>,
    #[serde(skip_serializing_if = "is_zero")]
    offset: u64,
    #[serde(skip_serializing_if = "is_zero")]
    inner_offset: u64,
    #[serde(skip_serializing_if = "is_zero")]
    chunk_offset: u64,
    #[serde(skip_serializing_if = "is_zero")]
    chunk_size: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    chunk_digest: Option<Digest>,
    #[serde(skip_serializing_if = "str::is_empty")]
    chunk_type: &'static str,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde wants it so")]
fn is_zero(number: &u64) -> bool {
    *number == 0
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde wants it so")]
fn is_nobody(number: &u32) -> bool {
    *number == 0
}

impl Table {
    pub(crate) fn add(&mut self, entry: &Entry) -> Result<(), MakeError> {
        let mut row = Row {
            name: text(&entry.path)?,
            modtime: time(entry.mtime),
            mode: entry.mode,
            uid: entry.uid,
            gid: entry.gid,
            size: entry.size,
            ..Row::default()
        };
        row.kind = match &entry.kind {
            Kind::File => "reg",
            Kind::Directory => {
                // As the tar that is written has it.
                if !row.name.ends_with('/') {
                    row.name.push('/');
                }
                "dir"
            }
            Kind::Fifo => "fifo",
            Kind::HardLink(target) => {
                row.link_name = text(target)?;
                "hardlink"
            }
            Kind::Symlink(target) => {
                row.link_name = text(target)?;
                "symlink"
            }
            Kind::CharDevice { major, minor } => {
                (row.dev_major, row.dev_minor) = (*major, *minor);
                "char"
            }
            Kind::BlockDevice { major, minor } => {
                (row.dev_major, row.dev_minor) = (*major, *minor);
                "block"
            }
        };
        for (name, value) in &entry.xattrs {
            row.xattrs.insert(text(name)?, STANDARD.encode(value));
        }
        if matches!(entry.kind, Kind::File) && entry.size == 0 {
            row.digest = Some(Hasher::digest(b""));
        }
        self.open = self.entries.len();
        self.entries.push(row);
        Ok(())
    }

    /// A chunk of the file that was added last; one without a digest is a hole.
    pub(crate) fn chunk(
        &mut self,
        (offset, inner_offset): (u64, u64),
        bytes: Range<u64>,
        digest: Option<Digest>,
    ) {
        if bytes.start > 0 {
            let name = self.entries[self.open].name.clone();
            self.entries.push(Row { name, kind: "chunk", ..Row::default() });
        }
        let whole = self.entries[self.open].size == bytes.end - bytes.start;
        let Some(row) = self.entries.last_mut() else { return };
        (row.offset, row.inner_offset, row.chunk_offset) = (offset, inner_offset, bytes.start);
        // Where it is not said, it is what is left of the file.
        row.chunk_size = if whole { 0 } else { bytes.end - bytes.start };
        row.chunk_type = if digest.is_some() { "" } else { "zeros" };
        row.chunk_digest = digest;
    }

    /// The file is whole.
    pub(super) fn close(&mut self, digest: Digest) {
        self.entries[self.open].digest = Some(digest);
    }

    pub(crate) fn json(&self) -> Result<Vec<u8>, MakeError> {
        let document = Document { version: 1, entries: &self.entries };
        serde_json::to_vec(&document).map_err(|error| MakeError::Io(error.into()))
    }
}

fn text(bytes: &[u8]) -> Result<String, MakeError> {
    let wrong = |_| MakeError::Name(String::from_utf8_lossy(bytes).into_owned());
    String::from_utf8(bytes.to_vec()).map_err(wrong)
}

/// RFC 3339; what no calendar has is left out, which means the epoch.
pub(crate) fn time(Time { seconds, nanos }: Time) -> String {
    let at = jiff::Timestamp::new(seconds, 0)
        .and_then(|at| at.checked_add(jiff::SignedDuration::new(0, nanos as i32)));
    at.map(|at| at.to_string()).unwrap_or_default()
}

/// The end of an eStargz blob: an empty gzip member that says where the table's member begins.
pub(super) fn gzip_footer(table: u64) -> Vec<u8> {
    let mut footer = b"\x1f\x8b\x08\x04\0\0\0\0\0\xff\x1a\0SG\x16\0".to_vec();
    footer.extend_from_slice(format!("{table:016x}STARGZ").as_bytes());
    // A stored block without bytes, and their checksum and number.
    footer.extend_from_slice(b"\x01\0\0\xff\xff\0\0\0\0\0\0\0\0");
    footer
}

/// What follows the files of zstd:chunked.
pub(super) struct Trailer {
    pub(super) bytes: Vec<u8>,
    pub(super) position: String,
    pub(super) checksum: String,
}

/// The table and the footer of zstd:chunked, each in a frame that decoders skip, from byte `at` of the blob on.
pub(super) fn zstd(json: &[u8], at: u64) -> io::Result<Trailer> {
    let packed = zstd::stream::encode_all(json, 3)?;
    let (begin, length, plain) = (at + 8, packed.len() as u64, json.len() as u64);
    let footer: Vec<u8> =
        [begin, length, plain, ZSTD_TABLE].iter().flat_map(|number| number.to_le_bytes()).collect();
    let mut bytes = frame(&packed);
    bytes.extend(frame(&[&footer[..], ZSTD_MAGIC].concat()));
    let position = format!("{begin}:{length}:{plain}:{ZSTD_TABLE}");
    Ok(Trailer { bytes, position, checksum: Hasher::digest(&packed).to_string() })
}

fn frame(payload: &[u8]) -> Vec<u8> {
    [&SKIPPABLE[..], &(payload.len() as u32).to_le_bytes(), payload].concat()
}
