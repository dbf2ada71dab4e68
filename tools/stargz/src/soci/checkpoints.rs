//! Places where decoding can begin, as a zTOC has them.
//!
//! ```text
//!   gzip       how many, i32 · plain bytes between two of them, i64
//!              of each: bytes of the blob before it, i64 · plain bytes before it, i64 · bits, u8 · window, 32 KiB
//!   plain tar  a flatbuffer: version, plain bytes between two of them, bytes of the tar
//! ```
//! All is little endian. In the first version the first place of gzip is left out: it is behind a header of 10 bytes.

use std::io;

use crate::plain::{Point, WINDOW};
use crate::soci::ZtocError;
use crate::soci::flat::{Buffer, Field, Writer};

const HEADER: usize = 4 + 8;
const PLACE: usize = 8 + 8 + 1 + WINDOW;
/// The header of gzip that says nothing (RFC 1952).
const GZIP_HEADER: u64 = 10;
/// Of a plain tar's.
const VERSION: u32 = 2;

/// Those of gzip.
pub(super) fn read_gzip(bytes: &[u8]) -> Result<Vec<Point>, ZtocError> {
    let (header, rest) = bytes.split_first_chunk::<HEADER>().ok_or(ZtocError::Malformed)?;
    let count = usize::try_from(i32::from_le_bytes([header[0], header[1], header[2], header[3]]));
    let count = count.map_err(|_| ZtocError::Malformed)?;
    let mut points = Vec::new();
    if count.checked_sub(1).and_then(|count| count.checked_mul(PLACE)) == Some(rest.len()) {
        points.push(Point { taken: GZIP_HEADER, ..Point::default() });
    } else if count.checked_mul(PLACE) != Some(rest.len()) {
        return Err(ZtocError::Malformed);
    }
    for place in rest.chunks_exact(PLACE) {
        let number = |at: usize| place[at..].first_chunk().map_or(0, |bytes| u64::from_le_bytes(*bytes));
        points.push(Point {
            taken: number(0),
            plain: number(8),
            bits: place[16],
            window: packed(&place[17..])?,
        });
    }
    Ok(points)
}

/// The windows stay in memory for as long as the layer is used.
fn packed(window: &[u8]) -> Result<Vec<u8>, ZtocError> {
    if window.iter().all(|byte| *byte == 0) {
        return Ok(Vec::new());
    }
    zstd::bulk::compress(window, 1).map_err(ZtocError::Read)
}

/// The same as bytes.
pub(super) fn write_gzip(points: &[Point], span: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::with_capacity(HEADER + points.len() * PLACE);
    bytes.extend((points.len() as u32).to_le_bytes());
    bytes.extend(span.to_le_bytes());
    for Point { plain, taken, bits, window } in points {
        bytes.extend(taken.to_le_bytes());
        bytes.extend(plain.to_le_bytes());
        bytes.push(*bits);
        let window = match &window[..] {
            [] => Vec::new(),
            packed => zstd::bulk::decompress(packed, WINDOW)?,
        };
        // What there is of it stands at its end.
        bytes.resize(bytes.len() + WINDOW - window.len(), 0);
        bytes.extend(window);
    }
    Ok(bytes)
}

/// Of a plain tar, the plain bytes between two places.
pub(super) fn read_plain(bytes: &[u8]) -> Result<u64, ZtocError> {
    let span = Buffer::new(bytes).root()?.long(1)?;
    u64::try_from(span).map_err(|_| ZtocError::Malformed)
}

/// The same as bytes.
pub(super) fn write_plain(span: u64, size: u64) -> Result<Vec<u8>, ZtocError> {
    let (mut writer, root) = Writer::new();
    writer.table(root, &[Field::Int(VERSION), Field::Long(span as i64), Field::Long(size as i64)]);
    writer.finish()
}
