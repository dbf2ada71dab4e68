//! The index of a layer as bytes.
//!
//! ```text
//!   a line of JSON     what it is of, and how long the rest is
//!   points             24 bytes each, little endian: plain u64, taken u64, bits u32, bytes of the window u32
//!   windows            frames of zstd, one behind the other
//!   table              a frame of zstd: the JSON of an eStargz table, its offsets counted in the tar
//! ```

use std::io::{self, Read};

use berth_archive::{Compression, Hasher};
use berth_types::{Algorithm, Digest};
use serde::{Deserialize, Serialize};

use super::points::{POINTS, Point, Points};
use crate::read::{self, DOCUMENT_LIMIT};
use crate::{Layer, StargzError};

const VERSION: u32 = 1;
/// Bytes of the first line at most.
const LINE: usize = 4096;
/// Bytes of a point.
const POINT: usize = 24;

/// Why an index is of no use. The layer can still be fetched whole.
#[derive(Debug, thiserror::Error)]
pub enum IndexError {
    /// It is not what an index begins with.
    #[error("it does not begin as an index of version {VERSION} does")]
    Header,
    /// It is of another layer.
    #[error("it is an index of layer {0}")]
    Other(Digest),
    /// It is cut off or damaged.
    #[error("the index is damaged")]
    Damaged,
    /// Its points cannot be those of any blob.
    #[error("the index says that decoding can begin where it cannot")]
    Points,
    /// Its table is refused.
    #[error("the index's table is refused")]
    Table(#[from] StargzError),
    /// It cannot be compressed.
    #[error("cannot write the index")]
    Write(#[source] io::Error),
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Header {
    version: u32,
    layer: Digest,
    size: u64,
    diff_id: Digest,
    plain: u64,
    compression: String,
    points: usize,
    windows: usize,
    table: usize,
    /// Of all that follows.
    body: Digest,
}

/// The index of a layer, read.
#[derive(Debug)]
pub struct Index {
    /// The layer's files.
    pub layer: Layer,
    /// Bytes of its blob.
    pub size: u64,
    /// The digest of the tar in it.
    pub diff_id: Digest,
}

impl Index {
    /// Reads an index, which has to be one of this layer.
    pub fn read(bytes: &[u8], layer: &Digest) -> Result<Self, IndexError> {
        let line = bytes.iter().take(LINE).position(|byte| *byte == b'\n').ok_or(IndexError::Header)?;
        let header: Header = serde_json::from_slice(&bytes[..line]).map_err(|_| IndexError::Header)?;
        if header.version != VERSION {
            return Err(IndexError::Header);
        }
        if header.layer != *layer {
            return Err(IndexError::Other(header.layer));
        }
        let body = &bytes[line + 1..];
        if header.body.algorithm() != Algorithm::Sha256 || Hasher::digest(body) != header.body {
            return Err(IndexError::Damaged);
        }
        let (points, table) = header.points(body)?;
        let decoder = zstd::stream::read::Decoder::with_buffer(table).map_err(|_| IndexError::Damaged)?;
        let table = io::BufReader::new(decoder.take(DOCUMENT_LIMIT));
        let layer = read::entries(table)?.finish_points(points)?;
        Ok(Self { layer, size: header.size, diff_id: header.diff_id })
    }
}

impl Header {
    /// The points, and the table's bytes.
    fn points<'b>(&self, body: &'b [u8]) -> Result<(Points, &'b [u8]), IndexError> {
        if self.points > POINTS {
            return Err(IndexError::Points);
        }
        let split = |bytes: &'b [u8], at| bytes.split_at_checked(at).ok_or(IndexError::Damaged);
        let (rows, rest) = split(body, self.points * POINT)?;
        let (mut windows, table) = split(rest, self.windows)?;
        if table.len() != self.table {
            return Err(IndexError::Damaged);
        }
        let mut points = Vec::with_capacity(self.points);
        for row in rows.chunks_exact(POINT) {
            let number = |at: usize| row[at..].first_chunk().map_or(0, |bytes| u64::from_le_bytes(*bytes));
            let last = number(16);
            let (window, rest) = split(windows, (last >> 32) as usize)?;
            windows = rest;
            let bits = u8::try_from(last & 0xffff_ffff).map_err(|_| IndexError::Points)?;
            points.push(Point { plain: number(0), taken: number(8), bits, window: window.to_vec() });
        }
        let compression = match self.compression.as_str() {
            "none" => Compression::Plain,
            "gzip" => Compression::Gzip,
            "zstd" => Compression::Zstd,
            _ => return Err(IndexError::Header),
        };
        let points = Points::new(compression, points, self.size, self.plain).ok_or(IndexError::Points)?;
        Ok((points, table))
    }
}

/// Writes an index of a layer of `size` bytes, whose tar has `plain` ones.
pub(super) fn write(
    points: &Points,
    layer: &Digest,
    (size, plain): (u64, u64),
    diff_id: &Digest,
    table: &[u8],
) -> Result<Vec<u8>, IndexError> {
    let (mut rows, mut windows) = (Vec::new(), Vec::new());
    for Point { plain, taken, bits, window } in points.all() {
        rows.extend(plain.to_le_bytes());
        rows.extend(taken.to_le_bytes());
        rows.extend(u32::from(*bits).to_le_bytes());
        rows.extend((window.len() as u32).to_le_bytes());
        windows.extend_from_slice(window);
    }
    let table = zstd::stream::encode_all(table, 3).map_err(IndexError::Write)?;
    let body = [&rows[..], &windows, &table].concat();
    let compression = match points.compression() {
        Compression::Plain => "none",
        Compression::Gzip => "gzip",
        Compression::Zstd => "zstd",
    };
    let header = Header {
        version: VERSION,
        layer: layer.clone(),
        size,
        diff_id: diff_id.clone(),
        plain,
        compression: compression.to_owned(),
        points: points.all().len(),
        windows: windows.len(),
        table: table.len(),
        body: Hasher::digest(&body),
    };
    let mut bytes = serde_json::to_vec(&header).map_err(|error| IndexError::Write(error.into()))?;
    bytes.push(b'\n');
    bytes.extend(body);
    Ok(bytes)
}
