//! A file's bytes out of its tar, with its holes written out.

use std::collections::VecDeque;
use std::io::{self, Read};

use berth_archive::Entry;

/// Reads a file of which the data begins where the tar is now.
pub(super) struct Contents<R> {
    tar: R,
    parts: VecDeque<Part>,
}

/// So many bytes, of the tar or of nothing.
enum Part {
    Data(u64),
    Hole(u64),
}

impl<R: Read> Contents<R> {
    pub(super) fn new(tar: R, entry: &Entry) -> Self {
        let mut parts = VecDeque::new();
        match &entry.segments {
            None => parts.push_back(Part::Data(entry.size)),
            Some(segments) => {
                let mut end = 0;
                for segment in segments {
                    parts.push_back(Part::Hole(segment.offset - end));
                    parts.push_back(Part::Data(segment.length));
                    end = segment.offset + segment.length;
                }
                parts.push_back(Part::Hole(entry.size - end));
            }
        }
        Self { tar, parts }
    }
}

impl<R: Read> Read for Contents<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            let Some(part) = self.parts.front_mut() else { return Ok(0) };
            let (Part::Data(left) | Part::Hole(left)) = part;
            if *left == 0 {
                self.parts.pop_front();
                continue;
            }
            let length = buffer.len().min(usize::try_from(*left).unwrap_or(usize::MAX));
            let length = match part {
                Part::Data(_) => self.tar.read(&mut buffer[..length])?,
                Part::Hole(_) => {
                    buffer[..length].fill(0);
                    length
                }
            };
            let (Part::Data(left) | Part::Hole(left)) = part;
            *left -= length as u64;
            return Ok(length);
        }
    }
}
