//! Streaming decompression.

use std::io::{self, BufRead, Chain, Cursor, Read};

use super::Compression;
use crate::{Counted, Limits};

/// The largest window a zstd frame may ask for: 2^27 bytes, what every decoder must be ready to give.
const ZSTD_WINDOW_LOG: u32 = 27;

type Source<R> = Counted<Chain<Cursor<Vec<u8>>, R>>;

/// Reads the plain bytes of a stream that is plain, gzip or zstd.
///
/// A stream that ends early is `UnexpectedEof`; one that inflates beyond the ratio of its [`Limits`] or
/// goes on with garbage is `InvalidData`.
pub struct Decoder<R: BufRead> {
    stream: Stream<R>,
    limits: Limits,
    output: u64,
}

enum Stream<R: BufRead> {
    Plain(Source<R>),
    Gzip(Box<flate2::bufread::MultiGzDecoder<Source<R>>>),
    Zstd(Box<zstd::stream::read::Decoder<'static, Source<R>>>),
}

impl<R: BufRead> Decoder<R> {
    /// Looks at the first bytes of `inner` and decodes accordingly. Blocks on `inner`.
    pub fn new(mut inner: R, limits: Limits) -> io::Result<Self> {
        let mut start = Vec::with_capacity(Compression::MAGIC_LENGTH);
        while start.len() < Compression::MAGIC_LENGTH {
            let available = inner.fill_buf()?;
            if available.is_empty() {
                break;
            }
            let take = available.len().min(Compression::MAGIC_LENGTH - start.len());
            start.extend_from_slice(&available[..take]);
            inner.consume(take);
        }
        let compression = Compression::detect(&start);
        let source = Counted::new(Cursor::new(start).chain(inner));
        let stream = match compression {
            Compression::Plain => Stream::Plain(source),
            Compression::Gzip => Stream::Gzip(Box::new(flate2::bufread::MultiGzDecoder::new(source))),
            Compression::Zstd => {
                let mut decoder = zstd::stream::read::Decoder::with_buffer(source)?;
                decoder.window_log_max(ZSTD_WINDOW_LOG)?;
                Stream::Zstd(Box::new(decoder))
            }
        };
        Ok(Self { stream, limits, output: 0 })
    }

    /// Which compression the stream has.
    pub fn compression(&self) -> Compression {
        match self.stream {
            Stream::Plain(_) => Compression::Plain,
            Stream::Gzip(_) => Compression::Gzip,
            Stream::Zstd(_) => Compression::Zstd,
        }
    }

    /// Compressed bytes taken from the source so far.
    pub fn input(&self) -> u64 {
        match &self.stream {
            Stream::Plain(source) => source.count,
            Stream::Gzip(decoder) => decoder.get_ref().count,
            Stream::Zstd(decoder) => decoder.get_ref().count,
        }
    }

    fn check_ratio(&self) -> io::Result<()> {
        let excessive =
            self.output > self.limits.ratio_grace && self.output / self.limits.ratio.max(1) > self.input();
        if excessive && self.compression() != Compression::Plain {
            let text = format!("stream inflates to more than {} times its size", self.limits.ratio);
            return Err(io::Error::new(io::ErrorKind::InvalidData, text));
        }
        Ok(())
    }
}

impl<R: BufRead> Read for Decoder<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let length = match &mut self.stream {
            Stream::Plain(source) => source.read(buffer)?,
            Stream::Gzip(decoder) => decoder.read(buffer)?,
            Stream::Zstd(decoder) => decoder.read(buffer)?,
        };
        self.output += length as u64;
        self.check_ratio()?;
        Ok(length)
    }
}

impl<R: BufRead> std::fmt::Debug for Decoder<R> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Decoder").field("compression", &self.compression()).finish_non_exhaustive()
    }
}
