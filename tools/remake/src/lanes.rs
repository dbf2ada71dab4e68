//! A recipe as bytes: two streams of zstd, in parts that take turns.
//!
//! ```text
//!   magic ─ form ─ { lane, length, bytes } …
//! ```
//! What the archive needs and what the compressed stream needs are written at the same time, but read at a different pace.
//! So each is a lane of its own, and a recipe is opened once for each: a reader skips what is the other's.

use std::cell::RefCell;
use std::io::{self, BufReader, Read, Write};
use std::rc::Rc;

use crate::error::{RemakeError, recipe};

/// What every recipe begins with; the last byte is the version.
const MAGIC: [u8; 8] = *b"\x89remake\x01";

/// Bytes of a part.
const PART: usize = 64 << 10;

/// How hard zstd tries.
const LEVEL: i32 = 7;

/// The window of a recipe's streams: it decides how much memory they take.
const WINDOW_LOG: u32 = 19;

/// How the plain bytes were compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Form {
    /// Not at all.
    Plain,
    /// As gzip.
    Gzip,
    /// By zstd's library.
    Zstd,
}

/// What a lane is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Lane {
    /// The archive.
    Archive = 0,
    /// The compression.
    Compression = 1,
}

/// What both lanes are written to.
pub(crate) struct Lanes<W> {
    output: W,
    left: u64,
    limit: u64,
}

impl<W: Write> Lanes<W> {
    /// Writes the beginning of a recipe of at most `limit` bytes.
    pub(crate) fn new(output: W, form: Form, limit: u64) -> io::Result<Rc<RefCell<Self>>> {
        let mut lanes = Self { output, left: limit, limit };
        let form = match form {
            Form::Plain => 0,
            Form::Gzip => 1,
            Form::Zstd => 2,
        };
        lanes.put(&MAGIC)?;
        lanes.put(&[form])?;
        Ok(Rc::new(RefCell::new(lanes)))
    }

    fn put(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.left =
            self.left.checked_sub(bytes.len() as u64).ok_or(RemakeError::TooLarge { limit: self.limit })?;
        self.output.write_all(bytes)
    }

    /// Writes everything out; answers the recipe's length.
    pub(crate) fn finish(&mut self) -> io::Result<u64> {
        self.output.flush()?;
        Ok(self.limit - self.left)
    }
}

/// One lane that is written.
pub(crate) struct LaneWriter<W: Write> {
    encoder: zstd::stream::write::Encoder<'static, Parts<W>>,
}

impl<W: Write> LaneWriter<W> {
    pub(crate) fn new(lanes: &Rc<RefCell<Lanes<W>>>, lane: Lane) -> io::Result<Self> {
        let parts = Parts { lanes: Rc::clone(lanes), lane, part: Vec::with_capacity(PART) };
        let mut encoder = zstd::stream::write::Encoder::new(parts, LEVEL)?;
        encoder.window_log(WINDOW_LOG)?;
        Ok(Self { encoder })
    }

    /// Writes everything out.
    pub(crate) fn finish(self) -> io::Result<()> {
        self.encoder.finish()?.send()
    }
}

impl<W: Write> Write for LaneWriter<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.encoder.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

struct Parts<W> {
    lanes: Rc<RefCell<Lanes<W>>>,
    lane: Lane,
    part: Vec<u8>,
}

impl<W: Write> Parts<W> {
    fn send(&mut self) -> io::Result<()> {
        if self.part.is_empty() {
            return Ok(());
        }
        let mut lanes = self.lanes.borrow_mut();
        lanes.put(&[self.lane as u8])?;
        lanes.put(&(self.part.len() as u32).to_le_bytes())?;
        lanes.put(&self.part)?;
        self.part.clear();
        Ok(())
    }
}

impl<W: Write> Write for Parts<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let some = bytes.len().min(PART - self.part.len());
        self.part.extend_from_slice(&bytes[..some]);
        if self.part.len() == PART {
            self.send()?;
        }
        Ok(some)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// One lane that is read.
pub(crate) type LaneReader<R> = zstd::stream::read::Decoder<'static, BufReader<Chosen<R>>>;

/// Reads a recipe's beginning, and then one of its lanes.
pub(crate) fn open<R: Read>(mut from: R, lane: Lane) -> io::Result<(Form, LaneReader<R>)> {
    let mut start = [0; 9];
    from.read_exact(&mut start)?;
    let form = match start {
        [magic @ .., form] if magic == MAGIC => match form {
            0 => Form::Plain,
            1 => Form::Gzip,
            2 => Form::Zstd,
            _ => return Err(recipe("an unknown form")),
        },
        _ => return Err(recipe("it does not begin as one")),
    };
    let chosen = Chosen { inner: from, lane, left: 0 };
    let mut decoder = zstd::stream::read::Decoder::new(chosen)?;
    decoder.window_log_max(WINDOW_LOG)?;
    Ok((form, decoder))
}

/// The parts of one lane.
pub(crate) struct Chosen<R> {
    inner: R,
    lane: Lane,
    left: u64,
}

impl<R: Read> Chosen<R> {
    /// Goes to the next part of the lane; false at the end.
    fn next(&mut self) -> io::Result<bool> {
        loop {
            let mut start = [0; 5];
            if self.inner.read(&mut start[..1])? == 0 {
                return Ok(false);
            }
            self.inner.read_exact(&mut start[1..])?;
            let [lane, length @ ..] = start;
            let length = u64::from(u32::from_le_bytes(length));
            if lane > 1 || length == 0 || length > PART as u64 {
                return Err(recipe("a part that cannot be"));
            }
            if lane == self.lane as u8 {
                self.left = length;
                return Ok(true);
            }
            if io::copy(&mut (&mut self.inner).take(length), &mut io::sink())? < length {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
    }
}

impl<R: Read> Read for Chosen<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.left == 0 && !self.next()? {
            return Ok(0);
        }
        let some = usize::try_from(self.left).unwrap_or(usize::MAX).min(buffer.len());
        let read = self.inner.read(&mut buffer[..some])?;
        if read == 0 && some > 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.left -= read as u64;
        Ok(read)
    }
}
