//! Parts of a blob that are fetched and verified as one.

use std::io::{self, Read};
use std::ops::Range;

use berth_archive::{Compression, Hasher};
use berth_types::Digest;

use crate::chunk::CHUNK_LIMIT;
use crate::plain::{Point, Points};
use crate::soci::ZtocError;

/// The spans of a layer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Spans {
    points: Points,
    spans: Vec<Span>,
    /// Bytes of the tar.
    plain: u64,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Span {
    /// Where it begins in the tar.
    plain: u64,
    /// Where it is in the blob. It may share its first byte with the one before.
    range: Range<u64>,
    /// Of its bytes in the blob.
    digest: Digest,
}

impl Spans {
    /// Those between places in a gzip blob of `blob` bytes whose tar has `plain` ones.
    pub(super) fn gzip(
        points: Vec<Point>,
        digests: Vec<Digest>,
        (blob, plain): (u64, u64),
    ) -> Result<Self, ZtocError> {
        if points.len() != digests.len() {
            return Err(ZtocError::Spans("there is not one digest for each"));
        }
        // What a tar is filled up with is not counted, and may be long.
        let plain = points.last().map_or(plain, |last| last.plain.max(plain));
        let wrong = ZtocError::Spans("decoding cannot begin there");
        let points = Points::new(Compression::Gzip, points, blob, plain).ok_or(wrong)?;
        let all = points.all();
        let ends = all.iter().skip(1).map(|point| point.taken).chain([blob]);
        let spans = all.iter().zip(ends).zip(digests).map(|((point, end), digest)| Span {
            plain: point.plain,
            range: point.start()..end,
            digest,
        });
        let spans: Vec<Span> = spans.collect();
        if spans.iter().any(|span| span.range.is_empty()) {
            return Err(ZtocError::Spans("one of them is empty"));
        }
        Ok(Self { points, spans, plain })
    }

    /// Those of `span` bytes in a plain tar of `size`.
    pub(super) fn plain(span: u64, digests: Vec<Digest>, size: u64) -> Result<Self, ZtocError> {
        if span == 0 || span > CHUNK_LIMIT {
            return Err(ZtocError::Spans("they are too large or have no size"));
        }
        if size.div_ceil(span) != digests.len() as u64 {
            return Err(ZtocError::Spans("there is not one digest for each"));
        }
        let wrong = ZtocError::Spans("the tar has no bytes");
        let points = Points::new(Compression::Plain, Vec::new(), size, size).ok_or(wrong)?;
        let spans = digests.into_iter().enumerate().map(|(number, digest)| {
            let begin = number as u64 * span;
            Span { plain: begin, range: begin..size.min(begin + span), digest }
        });
        Ok(Self { points, spans: spans.collect(), plain: size })
    }

    /// Parts of a range of the tar that lie within one span each.
    pub(super) fn parts(&self, range: Range<u64>) -> impl Iterator<Item = Range<u64>> {
        let mut at = range.start;
        std::iter::from_fn(move || {
            let behind = self.spans.partition_point(|span| span.plain <= at);
            let end = self.spans.get(behind).map_or(u64::MAX, |span| span.plain).min(range.end);
            let part = at..end;
            at = end;
            (!part.is_empty()).then_some(part)
        })
    }

    /// The span in which a part of the tar is, and how many plain bytes come before that in it.
    pub(crate) fn locate(&self, part: Range<u64>) -> Option<(Range<u64>, u64)> {
        let behind = self.spans.partition_point(|span| span.plain <= part.start);
        let span = self.spans.get(behind.checked_sub(1)?)?;
        let end = self.spans.get(behind).map_or(self.plain, |span| span.plain);
        (part.start < part.end && part.end <= end).then(|| (span.range.clone(), part.start - span.plain))
    }

    /// Whether the bytes of the span that begins at byte `start` of the blob are what they should be; else what they
    /// should hash to, and what they do.
    pub(crate) fn verify(&self, start: u64, blob: &[u8]) -> io::Result<Result<(), (Digest, Digest)>> {
        let (span, bytes) = self.cut(start, blob)?;
        let mut hasher = Hasher::new(span.digest.algorithm());
        hasher.update(bytes);
        let actual = hasher.finish();
        Ok(if actual == span.digest { Ok(()) } else { Err((span.digest.clone(), actual)) })
    }

    /// A decoder of that span, and of nothing behind it.
    pub(crate) fn decoder<'b>(&self, start: u64, blob: &'b [u8]) -> io::Result<Box<dyn Read + 'b>> {
        self.points.decoder(start, self.cut(start, blob)?.1)
    }

    /// The span that begins at byte `start`, with which the bytes begin.
    fn cut<'b>(&self, start: u64, blob: &'b [u8]) -> io::Result<(&Span, &'b [u8])> {
        let at = self.spans.binary_search_by_key(&start, |span| span.range.start);
        let span = &self.spans[at.map_err(|_| io::ErrorKind::InvalidInput)?];
        let length = usize::try_from(span.range.end - span.range.start).unwrap_or(usize::MAX);
        Ok((span, blob.get(..length).ok_or(io::ErrorKind::UnexpectedEof)?))
    }
}
