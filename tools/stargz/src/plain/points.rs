//! Where decoding can begin.

use std::io::{self, Read};
use std::ops::Range;

use berth_archive::Compression;

use super::inflate::{Inflate, WINDOW};
use crate::chunk::{CHUNK_LIMIT, zstd_decoder};

/// Plain bytes between two points, if the stream has places where they can be. Each costs up to 32 KiB of the index.
const SPACING: u64 = 2 << 20;

/// Compressed bytes between two points at most: they are fetched and kept in memory at once.
const GAP: u64 = 32 << 20;

/// Points of one layer.
pub(super) const POINTS: usize = 1 << 20;

/// A place in a blob where decoding can begin.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Point {
    /// Plain bytes before it.
    pub(crate) plain: u64,
    /// Bytes of the blob before it, that one included of which bits are read first.
    pub(crate) taken: u64,
    /// How many bits of the last of them belong to what follows.
    pub(crate) bits: u8,
    /// What is looked back at, of gzip, as a frame of zstd; empty where there is nothing.
    pub(crate) window: Vec<u8>,
}

impl Point {
    /// The first byte of the blob that is needed.
    pub(crate) fn start(&self) -> u64 {
        self.taken - u64::from(self.bits > 0)
    }
}

/// Points as they are come to.
#[derive(Debug)]
pub(crate) struct Notes {
    pub(super) points: Vec<Point>,
    /// Plain bytes between two of them at least.
    spacing: u64,
}

impl Default for Notes {
    fn default() -> Self {
        Self::apart(SPACING)
    }
}

impl Notes {
    /// Those that are at least so many plain bytes apart.
    pub(crate) fn apart(spacing: u64) -> Self {
        Self { points: Vec::new(), spacing }
    }

    /// What was noted.
    pub(crate) fn into_points(self) -> Vec<Point> {
        self.points
    }

    /// Notes a point, if the last one is far enough away.
    pub(super) fn note(&mut self, plain: u64, taken: u64, bits: u8, window: &[u8]) -> io::Result<()> {
        if !self.wants(plain) {
            return Ok(());
        }
        self.check(plain, taken)?;
        let window = if window.is_empty() { Vec::new() } else { zstd::bulk::compress(window, 1)? };
        self.points.push(Point { plain, taken, bits, window });
        Ok(())
    }

    /// Whether a point at this place would be noted.
    pub(super) fn wants(&self, plain: u64) -> bool {
        self.points.last().is_none_or(|last| plain - last.plain >= self.spacing)
    }

    /// Refuses a stream that has had no place to begin at for too long.
    pub(super) fn check(&self, plain: u64, taken: u64) -> io::Result<()> {
        let Some(last) = self.points.last() else { return Ok(()) };
        if is_close(last, plain, taken) { Ok(()) } else { Err(io::ErrorKind::Unsupported.into()) }
    }
}

fn is_close(last: &Point, plain: u64, taken: u64) -> bool {
    taken.saturating_sub(last.taken) <= GAP && plain.saturating_sub(last.plain) <= CHUNK_LIMIT
}

/// All points of a blob.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Points {
    compression: Compression,
    points: Vec<Point>,
    blob: u64,
    plain: u64,
}

impl Points {
    /// None where they cannot be what they are said to be.
    pub(crate) fn new(compression: Compression, points: Vec<Point>, blob: u64, plain: u64) -> Option<Self> {
        let all = Self { compression, points, blob, plain };
        if compression == Compression::Plain {
            return (all.points.is_empty() && blob == plain).then_some(all);
        }
        let (first, last) = (all.points.first()?, all.points.last()?);
        let fits = first.plain == 0
            && is_close(last, plain, blob)
            && last.plain <= plain
            && last.taken <= blob
            && all.points.iter().all(|point| point.bits < 8 && point.taken >= u64::from(point.bits > 0))
            && all.points.windows(2).all(|pair| {
                pair[0].plain < pair[1].plain
                    && pair[0].start() < pair[1].start()
                    && is_close(&pair[0], pair[1].plain, pair[1].taken)
            });
        fits.then_some(all)
    }

    pub(super) fn compression(&self) -> Compression {
        self.compression
    }

    pub(crate) fn all(&self) -> &[Point] {
        &self.points
    }

    /// The range of the blob that makes a range of the tar, and how many plain bytes come before that in it.
    pub(crate) fn locate(&self, wanted: Range<u64>) -> Option<(Range<u64>, u64)> {
        if wanted.start >= wanted.end || wanted.end > self.plain {
            return None;
        }
        if self.compression == Compression::Plain {
            return Some((wanted, 0));
        }
        let at = self.points.partition_point(|point| point.plain <= wanted.start).checked_sub(1)?;
        let behind = self.points.partition_point(|point| point.plain < wanted.end);
        let end = self.points.get(behind).map_or(self.blob, |point| point.taken);
        let point = &self.points[at];
        Some((point.start()..end, wanted.start - point.plain))
    }

    /// A decoder of a range of the blob that begins where [`Points::locate`] says.
    pub(crate) fn decoder<'b>(&self, start: u64, blob: &'b [u8]) -> io::Result<Box<dyn Read + 'b>> {
        if self.compression == Compression::Plain {
            return Ok(Box::new(blob));
        }
        let at = self.points.binary_search_by_key(&start, Point::start);
        let point = &self.points[at.map_err(|_| io::ErrorKind::InvalidInput)?];
        if self.compression == Compression::Zstd {
            return Ok(Box::new(zstd_decoder(blob)?));
        }
        let window = match &point.window[..] {
            [] => Vec::new(),
            packed => zstd::bulk::decompress(packed, WINDOW)?,
        };
        Ok(Box::new(Inflate::resume(blob, &window, point.bits)?))
    }
}
