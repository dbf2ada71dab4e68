//! A blob as its plain bytes, and where it can be decoded from.

use std::io::{self, BufRead, Read};

use berth_archive::{Compression, Counted, Limits};

use super::frames::Frames;
use super::inflate::Inflate;
use super::points::{Notes, Point};

/// Decodes a blob and notes points.
pub(super) struct Tracked<R: BufRead> {
    stream: Stream<R>,
    plain: u64,
    limits: Limits,
}

enum Stream<R: BufRead> {
    Plain(R),
    Gzip(Box<Inflate<R>>),
    Zstd(Box<Frames<R>>),
}

impl<R: BufRead> Tracked<R> {
    /// Looks at the first bytes, of which the source has to show at least four at once, if it has as many.
    pub(super) fn new(mut source: R, limits: Limits) -> io::Result<Self> {
        let stream = match Compression::detect(source.fill_buf()?) {
            Compression::Plain => Stream::Plain(source),
            Compression::Gzip => Stream::Gzip(Box::new(Inflate::new(source, Some(Notes::default())))),
            Compression::Zstd => Stream::Zstd(Box::new(Frames::new(Counted::new(source))?)),
        };
        Ok(Self { stream, plain: 0, limits })
    }

    pub(super) fn compression(&self) -> Compression {
        match self.stream {
            Stream::Plain(_) => Compression::Plain,
            Stream::Gzip(_) => Compression::Gzip,
            Stream::Zstd(_) => Compression::Zstd,
        }
    }

    /// The points, once all is read.
    pub(super) fn points(self) -> Vec<Point> {
        match self.stream {
            Stream::Plain(_) => Vec::new(),
            Stream::Gzip(mut inflate) => inflate.notes().unwrap_or_default().points,
            Stream::Zstd(mut frames) => frames.notes().points,
        }
    }

    /// Refuses what inflates beyond measure, as when a layer is unpacked.
    fn check_ratio(&self) -> io::Result<()> {
        let taken = match &self.stream {
            Stream::Plain(_) => return Ok(()),
            Stream::Gzip(inflate) => inflate.taken(),
            Stream::Zstd(frames) => frames.taken(),
        };
        if self.plain > self.limits.ratio_grace && self.plain / self.limits.ratio.max(1) > taken {
            let text = format!("stream inflates to more than {} times its size", self.limits.ratio);
            return Err(io::Error::new(io::ErrorKind::InvalidData, text));
        }
        Ok(())
    }
}

impl<R: BufRead> Read for Tracked<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let length = match &mut self.stream {
            Stream::Plain(source) => source.read(buffer)?,
            Stream::Gzip(inflate) => inflate.read(buffer)?,
            Stream::Zstd(frames) => frames.read(buffer)?,
        };
        self.plain += length as u64;
        if length > 0 {
            self.check_ratio()?;
        }
        Ok(length)
    }
}
