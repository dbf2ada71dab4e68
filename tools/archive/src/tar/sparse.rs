//! Maps of files with holes.

use super::block::Header;
use super::{BLOCK, Segment, pax};

/// Checks a map against the file's size and the bytes that are stored; empty runs are dropped.
pub(super) fn validate(segments: Vec<Segment>, size: u64, stored: u64) -> Option<Vec<Segment>> {
    let (mut end, mut sum) = (0_u64, 0_u64);
    for segment in &segments {
        if segment.offset < end {
            return None;
        }
        end = segment.offset.checked_add(segment.length)?;
        sum = sum.checked_add(segment.length)?;
    }
    if end > size || sum != stored || size > i64::MAX as u64 {
        return None;
    }
    Some(segments.into_iter().filter(|segment| segment.length > 0).collect())
}

/// Reads the pairs of an old GNU header or of one of its continuations; answers whether more follow.
pub(super) fn old_gnu(
    header: &Header,
    start: usize,
    count: usize,
    segments: &mut Vec<Segment>,
) -> Option<bool> {
    for at in (start..start + count * 24).step_by(24) {
        if header.bytes[at] == 0 {
            break;
        }
        let offset = header.count(at, 12, "sparse offset").ok()?;
        let length = header.count(at + 12, 12, "sparse length").ok()?;
        segments.push(Segment { offset, length });
    }
    Some(header.bytes[start + count * 24] != 0)
}

/// The decimal lines that version 1.0 puts before the data, fed block by block.
#[derive(Default)]
pub(super) struct Lines {
    digits: Vec<u8>,
    numbers: Vec<u64>,
    expected: Option<usize>,
}

/// What a block added to a leading map.
pub(super) enum Fed {
    /// More blocks must follow.
    More,
    /// The map is complete.
    Done(Vec<Segment>),
    /// No map, or one with too many segments.
    Malformed,
}

impl Lines {
    /// Takes one block.
    pub(super) fn feed(&mut self, block: &[u8; BLOCK], limit: usize) -> Fed {
        for byte in block {
            if *byte != b'\n' {
                self.digits.push(*byte);
                if self.digits.len() > 20 {
                    return Fed::Malformed;
                }
                continue;
            }
            let Some(number) = pax::number(&self.digits) else { return Fed::Malformed };
            self.digits.clear();
            match self.expected {
                None => match usize::try_from(number) {
                    Ok(count) if count <= limit => self.expected = Some(count * 2),
                    _ => return Fed::Malformed,
                },
                Some(_) => self.numbers.push(number),
            }
            if self.expected == Some(self.numbers.len()) {
                let pairs = self.numbers.chunks_exact(2);
                return Fed::Done(pairs.map(|pair| Segment { offset: pair[0], length: pair[1] }).collect());
            }
        }
        Fed::More
    }
}
