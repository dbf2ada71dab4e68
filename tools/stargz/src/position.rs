//! Where the table of contents is: by the last bytes of the blob, or by the manifest.

use std::ops::Range;

use crate::StargzError;

/// So many bytes at the end of a blob tell where its table is.
pub const TAIL: u64 = 72;

/// The annotations of a layer's descriptor that say where its table is and what it hashes to.
pub mod annotation {
    /// eStargz: the digest of the table's JSON.
    pub const TOC_DIGEST: &str = "containerd.io/snapshot/stargz/toc.digest";
    /// Both: the bytes of the tar in the layer.
    pub const UNCOMPRESSED_SIZE: &str = "io.containers.estargz.uncompressed-size";
    /// zstd:chunked: `OFFSET:LENGTH:UNCOMPRESSED:KIND`, as Podman and stargz-snapshotter write it.
    pub const ZSTD_POSITION: [&str; 2] = [
        "io.github.containers.zstd-chunked.manifest-position",
        "io.containers.zstd-chunked.manifest-position",
    ];
    /// zstd:chunked: the digest of the compressed table.
    pub const ZSTD_CHECKSUM: [&str; 2] = [
        "io.github.containers.zstd-chunked.manifest-checksum",
        "io.containers.zstd-chunked.manifest-checksum",
    ];

    /// Whether an annotation is about a layer's table, and so not true of the same layer made anew.
    pub fn is_of_table(key: &str) -> bool {
        matches!(key, TOC_DIGEST | UNCOMPRESSED_SIZE)
            || key.starts_with("io.github.containers.zstd-chunked.")
            || key.starts_with("io.containers.zstd-chunked.")
    }
}

/// How a layer is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// gzip members; the table is a member of the tar.
    Gzip,
    /// Frames of zstd; the table is in a frame that decoders skip.
    Zstd,
}

/// Where a layer's table is, within its blob.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Position {
    /// How the layer is made.
    pub format: Format,
    /// The table as it is compressed.
    pub table: Range<u64>,
    /// Where the last data of a file ends at the latest.
    pub payload_end: u64,
}

/// The longest compressed table.
const TABLE_LIMIT: u64 = 64 << 20;

const GZIP: usize = 51;
const LEGACY_GZIP: usize = 47;
/// The payloads of the frames that zstd:chunked ends with: the older one, and the one that knows of a tar-split.
const ZSTD: [usize; 2] = [40, 64];
const SKIPPABLE: [u8; 4] = [0x50, 0x2a, 0x4d, 0x18];
const ZSTD_MAGICS: [&[u8; 8]; 2] = [b"GNUlInUx", b"GnUlInUx"];
/// The bytes of a skippable frame before its payload.
const FRAME: u64 = 8;
/// The only kind of table that zstd:chunked knows.
const ZSTD_TABLE: u64 = 1;

impl Position {
    /// Reads the footer out of the last [`TAIL`] bytes of a blob, or all of it if it is shorter.
    pub fn from_tail(tail: &[u8], blob_size: u64) -> Result<Self, StargzError> {
        let (format, table, payload_end) = if let Some(offset) = gzip(tail) {
            let footer = if is_legacy(tail) { LEGACY_GZIP } else { GZIP };
            let end = blob_size.saturating_sub(footer as u64);
            (Format::Gzip, offset..end, offset)
        } else if let Some((offset, length)) = zstd(tail) {
            let end = offset.checked_add(length).ok_or(StargzError::NoFooter)?;
            (Format::Zstd, offset..end, offset.saturating_sub(FRAME))
        } else {
            return Err(StargzError::NoFooter);
        };
        Self { format, table, payload_end }.within(blob_size)
    }

    /// Reads an annotation of zstd:chunked.
    pub fn from_annotation(text: &str, blob_size: u64) -> Result<Self, StargzError> {
        let wrong = || StargzError::Position(format!("{text:?} is not OFFSET:LENGTH:UNCOMPRESSED:1"));
        let numbers: Vec<u64> = text.split(':').map_while(|number| number.parse().ok()).collect();
        let [offset, length, _, ZSTD_TABLE] = numbers[..] else { return Err(wrong()) };
        let end = offset.checked_add(length).ok_or_else(wrong)?;
        let payload_end = offset.saturating_sub(FRAME);
        Self { format: Format::Zstd, table: offset..end, payload_end }.within(blob_size)
    }

    fn within(self, blob_size: u64) -> Result<Self, StargzError> {
        let Range { start, end } = self.table;
        if start >= end || end > blob_size {
            let text = format!("bytes {start} to {end} of a blob of {blob_size}");
            return Err(StargzError::Position(text));
        }
        if end - start > TABLE_LIMIT {
            return Err(StargzError::TooMany("bytes"));
        }
        Ok(self)
    }
}

/// The offset in an eStargz or stargz footer: an empty gzip member with it in its extra field (RFC 1952).
fn gzip(tail: &[u8]) -> Option<u64> {
    let member = |length: usize| tail.len().checked_sub(length).map(|at| &tail[at..]);
    let extra = match (member(GZIP), member(LEGACY_GZIP)) {
        (Some(footer), _) if starts(footer, &[26, 0, b'S', b'G', 22, 0]) => &footer[16..38],
        (_, Some(footer)) if starts(footer, &[22, 0]) => &footer[12..34],
        _ => return None,
    };
    let digits = extra.strip_suffix(b"STARGZ")?;
    let digits = digits.iter().all(u8::is_ascii_hexdigit).then_some(digits)?;
    u64::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()
}

fn is_legacy(tail: &[u8]) -> bool {
    tail.len().checked_sub(LEGACY_GZIP).is_some_and(|at| starts(&tail[at..], &[22, 0]))
}

/// A gzip member whose only flag is FEXTRA and whose extra field begins like this, its length first.
fn starts(member: &[u8], extra: &[u8]) -> bool {
    member.starts_with(&[0x1f, 0x8b, 8, 4]) && member[10..].starts_with(extra)
}

/// Offset and length in a zstd:chunked footer.
fn zstd(tail: &[u8]) -> Option<(u64, u64)> {
    ZSTD.iter().find_map(|&length| {
        let footer = &tail[tail.len().checked_sub(length + FRAME as usize)?..];
        let payload = footer.strip_prefix(&SKIPPABLE)?.strip_prefix(&(length as u32).to_le_bytes())?;
        let magic = payload.last_chunk::<8>()?;
        let number = |at: usize| Some(u64::from_le_bytes(*payload.get(at..)?.first_chunk()?));
        let known = ZSTD_MAGICS.contains(&magic) && number(24)? == ZSTD_TABLE;
        if known { Some((number(0)?, number(8)?)) } else { None }
    })
}
