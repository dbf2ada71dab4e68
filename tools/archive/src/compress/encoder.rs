//! Streaming compression, the same bytes for the same input every time.

use std::io::{self, Write};

use super::Compression;

/// zstd's own default: better than gzip -9 at many times its speed.
const ZSTD_LEVEL: i32 = 3;

/// Compresses what is written to it. [`Encoder::finish`] must be called; dropping loses the tail.
pub struct Encoder<W: Write>(Stream<W>);

enum Stream<W: Write> {
    Plain(W),
    Gzip(Box<flate2::write::GzEncoder<W>>),
    Zstd(Box<zstd::stream::write::Encoder<'static, W>>),
}

impl<W: Write> Encoder<W> {
    /// Starts a stream on `inner`. The gzip header names neither time nor host.
    pub fn new(inner: W, compression: Compression) -> io::Result<Self> {
        Ok(Self(match compression {
            Compression::Plain => Stream::Plain(inner),
            Compression::Gzip => {
                let level = flate2::Compression::default();
                Stream::Gzip(Box::new(flate2::write::GzEncoder::new(inner, level)))
            }
            Compression::Zstd => {
                let mut encoder = zstd::stream::write::Encoder::new(inner, ZSTD_LEVEL)?;
                encoder.include_checksum(true)?;
                Stream::Zstd(Box::new(encoder))
            }
        }))
    }

    /// Writes the end of the stream and gives the inner writer back.
    pub fn finish(self) -> io::Result<W> {
        match self.0 {
            Stream::Plain(mut inner) => {
                inner.flush()?;
                Ok(inner)
            }
            Stream::Gzip(encoder) => encoder.finish(),
            Stream::Zstd(encoder) => encoder.finish(),
        }
    }
}

impl<W: Write> Write for Encoder<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match &mut self.0 {
            Stream::Plain(inner) => inner.write(bytes),
            Stream::Gzip(encoder) => encoder.write(bytes),
            Stream::Zstd(encoder) => encoder.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match &mut self.0 {
            Stream::Plain(inner) => inner.flush(),
            Stream::Gzip(encoder) => encoder.flush(),
            Stream::Zstd(encoder) => encoder.flush(),
        }
    }
}

impl<W: Write> std::fmt::Debug for Encoder<W> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Encoder")
    }
}
