//! Digests of the spans of a gzip blob, as it passes.
//!
//! Where a span ends is known only when what follows it has been read, so the compressed bytes of one are kept until then.

use std::cell::RefCell;
use std::io::{self, BufRead, Read};
use std::rc::Rc;

use berth_archive::Hasher;
use berth_types::Digest;

use crate::plain::{Inflate, Notes, Point};

/// Bytes of a blob that are read at once.
const ROOM: usize = 256 << 10;
/// Bytes that a span has at most: more than decoders are given at once.
const LONGEST: usize = 40 << 20;

/// The plain bytes of a blob.
pub(super) struct Passing<R> {
    inflate: Inflate<Kept<R>>,
    kept: Rc<RefCell<Span>>,
    /// Places that were come to.
    noted: usize,
    digests: Vec<Digest>,
}

/// What has been taken of the span that passes.
#[derive(Default)]
struct Span {
    bytes: Vec<u8>,
    /// Where they begin in the blob.
    from: u64,
}

/// A blob whose bytes are kept as they are taken.
struct Kept<R> {
    source: R,
    buffer: Vec<u8>,
    at: usize,
    span: Rc<RefCell<Span>>,
}

impl<R: Read> Passing<R> {
    /// Of a blob, with more than `span` plain bytes between two places.
    pub(super) fn new(source: R, span: u64) -> Self {
        let kept = Rc::new(RefCell::new(Span::default()));
        let source = Kept { source, buffer: Vec::new(), at: 0, span: Rc::clone(&kept) };
        let inflate = Inflate::exact(source, Notes::apart(span + 1));
        Self { inflate, kept, noted: 0, digests: Vec::new() }
    }

    /// The places where decoding can begin, the digests of what lies between them, and the bytes of the blob, once all of
    /// it has passed.
    pub(super) fn finish(mut self) -> (Vec<Point>, Vec<Digest>, u64) {
        self.digests.push(Hasher::digest(&self.kept.borrow().bytes));
        let taken = self.inflate.taken();
        (self.inflate.notes().unwrap_or_default().into_points(), self.digests, taken)
    }

    /// Ends the spans that are whole.
    fn cut(&mut self) {
        let mut span = self.kept.borrow_mut();
        for point in self.inflate.noted().iter().skip(self.noted) {
            let within = |at: u64| span.bytes.len().min((at - span.from) as usize);
            if self.noted > 0 {
                self.digests.push(Hasher::digest(&span.bytes[..within(point.taken)]));
            }
            let begin = within(point.start());
            span.bytes.drain(..begin);
            span.from = point.start();
            self.noted += 1;
        }
    }
}

impl<R: Read> Read for Passing<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let length = self.inflate.read(buffer)?;
        self.cut();
        Ok(length)
    }
}

impl<R: Read> BufRead for Kept<R> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        if self.span.borrow().bytes.len() > LONGEST {
            return Err(io::ErrorKind::Unsupported.into());
        }
        if self.at == self.buffer.len() {
            self.buffer.clear();
            self.at = 0;
            (&mut self.source).take(ROOM as u64).read_to_end(&mut self.buffer)?;
        }
        Ok(&self.buffer[self.at..])
    }

    fn consume(&mut self, amount: usize) {
        let end = self.buffer.len().min(self.at + amount);
        self.span.borrow_mut().bytes.extend_from_slice(&self.buffer[self.at..end]);
        self.at = end;
    }
}

impl<R: Read> Read for Kept<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        berth_archive::read_shown(self, buffer)
    }
}
