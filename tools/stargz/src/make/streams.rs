//! Compressed streams one behind the other, and where each begins.

use std::io::{self, Write};

use berth_archive::Hasher;
use berth_types::Digest;

use crate::Format;

const GZIP_LEVEL: u32 = 9;
const ZSTD_LEVEL: u32 = 3;

/// Compresses what is written to it, in streams that end where its owner says so.
pub(super) struct Streams<W: Write> {
    format: Format,
    level: u32,
    state: State<W>,
    /// Where the open stream begins, and how much has gone into it.
    begin: u64,
    within: u64,
    plain: u64,
    hasher: Hasher,
}

enum State<W: Write> {
    Between(Counted<W>),
    Gzip(flate2::write::GzEncoder<Counted<W>>),
    Zstd(zstd::stream::write::Encoder<'static, Counted<W>>),
    /// After an error of which somebody was told.
    Broken,
}

struct Counted<W> {
    inner: W,
    count: u64,
}

impl<W: Write> Write for Counted<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let length = self.inner.write(bytes)?;
        self.count += length as u64;
        Ok(length)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

impl<W: Write> Streams<W> {
    pub(super) fn new(out: W, format: Format, level: Option<u32>) -> Self {
        let level = match format {
            Format::Gzip => level.unwrap_or(GZIP_LEVEL).min(9),
            Format::Zstd => level.unwrap_or(ZSTD_LEVEL).clamp(1, 22),
        };
        let state = State::Between(Counted { inner: out, count: 0 });
        Self { format, level, state, begin: 0, within: 0, plain: 0, hasher: Hasher::default() }
    }

    /// Where data that comes now will be: the stream, and its place in what that decompresses to. A stream that holds
    /// `together` bytes already is ended before.
    pub(super) fn place(&mut self, together: u64) -> io::Result<(u64, u64)> {
        if self.within >= together {
            self.cut()?;
        }
        Ok(self.here())
    }

    /// The stream that is open or comes next, and how much has gone into it.
    pub(super) fn here(&self) -> (u64, u64) {
        (self.begin, self.within)
    }

    /// Ends the open stream.
    pub(super) fn cut(&mut self) -> io::Result<()> {
        let counted = match std::mem::replace(&mut self.state, State::Broken) {
            State::Between(counted) => counted,
            State::Gzip(encoder) => encoder.finish()?,
            State::Zstd(encoder) => encoder.finish()?,
            State::Broken => return Err(broken()),
        };
        (self.begin, self.within) = (counted.count, 0);
        self.state = State::Between(counted);
        Ok(())
    }

    /// Bytes of all streams that have ended.
    pub(super) fn written(&self) -> u64 {
        self.begin
    }

    /// Writes bytes that are no stream of the layer's.
    pub(super) fn raw(&mut self, bytes: &[u8]) -> io::Result<()> {
        match &mut self.state {
            State::Between(counted) => counted.write_all(bytes),
            _ => Err(broken()),
        }
    }

    /// What was written to, and the digest and size of what the streams decompress to.
    pub(super) fn finish(mut self) -> io::Result<(W, Digest, u64)> {
        self.cut()?;
        match self.state {
            State::Between(counted) => Ok((counted.inner, self.hasher.finish(), self.plain)),
            _ => Err(broken()),
        }
    }

    fn open(&mut self) -> io::Result<()> {
        let State::Between(_) = self.state else { return Ok(()) };
        let State::Between(counted) = std::mem::replace(&mut self.state, State::Broken) else {
            return Err(broken());
        };
        self.state = match self.format {
            Format::Gzip => {
                State::Gzip(flate2::write::GzEncoder::new(counted, flate2::Compression::new(self.level)))
            }
            Format::Zstd => State::Zstd(zstd::stream::write::Encoder::new(counted, self.level as i32)?),
        };
        Ok(())
    }
}

fn broken() -> io::Error {
    io::Error::other("an earlier write failed")
}

impl<W: Write> Write for Streams<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if bytes.is_empty() {
            return Ok(0);
        }
        self.open()?;
        let length = match &mut self.state {
            State::Gzip(encoder) => encoder.write(bytes)?,
            State::Zstd(encoder) => encoder.write(bytes)?,
            State::Between(_) | State::Broken => return Err(broken()),
        };
        self.hasher.update(&bytes[..length]);
        (self.within, self.plain) = (self.within + length as u64, self.plain + length as u64);
        Ok(length)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
