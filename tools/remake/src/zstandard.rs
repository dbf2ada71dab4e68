//! Frames of zstd. Its library has no few choices that could be noted one by one; so its levels are tried, and a stream
//! is only taken if one of them makes exactly it.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::io::{self, BufRead, Read, Write};
use std::rc::Rc;

use zstd::stream::read::Decoder;
use zstd::stream::write::Encoder;

use crate::error::{RemakeError, recipe};
use crate::number::{read_number, write_number};

/// Plain bytes on which levels are tried.
const TRIED: usize = 2 << 20;

/// Plain bytes at a time.
const PART: usize = 128 << 10;

/// The levels that are tried, the usual first. Higher ones take more memory than this is worth.
const LEVELS: [i32; 9] = [3, 1, 2, 4, 5, 6, 7, 8, 9];

/// The largest window that a frame may ask for.
const WINDOW_LOG: u32 = 27;

/// How a frame was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Settings {
    level: i32,
    has_checksum: bool,
    /// The plain length, where the frame tells it.
    size: Option<u64>,
}

impl Settings {
    /// What a frame's header says (RFC 8878, 3.1.1.1).
    fn of(header: &[u8], level: i32) -> Option<Self> {
        let (&flags, rest) = header.get(4..)?.split_first()?;
        let is_single = flags & 0x20 != 0;
        // A dictionary is nothing that we have.
        let rest = rest.get(usize::from(!is_single)..).filter(|_| flags.trailing_zeros() >= 2)?;
        let number = |length: usize| {
            let bytes = rest.get(..length)?;
            Some(bytes.iter().rev().fold(0, |number, byte| number << 8 | u64::from(*byte)))
        };
        let size = match (flags >> 6, is_single) {
            (0, false) => None,
            (0, true) => Some(number(1)?),
            (1, _) => Some(number(2)? + 256),
            (2, _) => Some(number(4)?),
            _ => Some(number(8)?),
        };
        Some(Self { level, has_checksum: flags & 4 != 0, size })
    }

    fn encoder<W: Write>(self, output: W) -> io::Result<Encoder<'static, W>> {
        let mut encoder = Encoder::new(output, self.level)?;
        encoder.include_checksum(self.has_checksum)?;
        encoder.include_contentsize(self.size.is_some())?;
        encoder.set_pledged_src_size(self.size)?;
        Ok(encoder)
    }

    fn write(self, to: &mut impl Write) -> io::Result<()> {
        to.write_all(&[self.level as u8, u8::from(self.has_checksum)])?;
        write_number(to, self.size.map_or(0, |size| size.saturating_add(1)))
    }

    fn read(from: &mut impl Read) -> io::Result<Self> {
        let mut bytes = [0; 2];
        from.read_exact(&mut bytes)?;
        let level = i32::from(bytes[0]);
        if !LEVELS.contains(&level) {
            return Err(recipe("an unknown level"));
        }
        let size = read_number(from)?.checked_sub(1);
        Ok(Self { level, has_checksum: bytes[1] != 0, size })
    }
}

/// Bytes that came and that are to be made again.
type Came = Rc<RefCell<VecDeque<u8>>>;

/// Reads plain bytes, and sees that a level makes the same frame of them.
pub(crate) struct Guess<R: BufRead, W> {
    decoder: Decoder<'static, Recorded<R>>,
    came: Came,
    encoder: Option<Encoder<'static, Same>>,
    plain: Vec<u8>,
    given: usize,
    lane: W,
}

impl<R: BufRead, W: Write> Guess<R, W> {
    pub(crate) fn new(inner: R, lane: W) -> io::Result<Self> {
        let came = Came::default();
        let mut decoder = Decoder::with_buffer(Recorded { inner, came: Rc::clone(&came) })?;
        decoder.window_log_max(WINDOW_LOG)?;
        Ok(Self { decoder, came, encoder: None, plain: Vec::new(), given: 0, lane })
    }

    /// What the recipe was written to.
    pub(crate) fn into_lane(self) -> W {
        self.lane
    }

    fn more(&mut self) -> io::Result<()> {
        if self.given < self.plain.len() {
            return Ok(());
        }
        let want = if self.encoder.is_some() { PART } else { TRIED };
        self.plain.clear();
        self.given = 0;
        (&mut self.decoder).take(want as u64).read_to_end(&mut self.plain)?;
        let is_over = self.plain.len() < want;
        if self.encoder.is_none() && !self.choose(is_over)? {
            return Err(
                RemakeError::Unsupported("it was compressed by another zstd, or one set otherwise").into()
            );
        }
        let Some(mut encoder) = self.encoder.take() else { return Ok(()) };
        encoder.write_all(&self.plain)?;
        if !is_over || !self.plain.is_empty() {
            self.encoder = Some(encoder);
            return Ok(());
        }
        // The end: nothing must be left on either side.
        encoder.finish()?;
        if self.came.borrow().is_empty() { Ok(()) } else { Err(other()) }
    }

    /// Looks for the level that makes what came so far.
    fn choose(&mut self, is_over: bool) -> io::Result<bool> {
        let came: Vec<u8> = self.came.borrow().iter().copied().collect();
        for level in LEVELS {
            let Some(settings) = Settings::of(&came, level) else { return Ok(false) };
            let mut encoder = settings.encoder(Vec::new())?;
            if encoder.write_all(&self.plain).is_err() {
                continue;
            }
            let made = if is_over { encoder.finish()? } else { encoder.get_ref().clone() };
            if made.len() > 16 && came.starts_with(&made) || made == came {
                settings.write(&mut self.lane)?;
                self.encoder = Some(settings.encoder(Same { came: Rc::clone(&self.came) })?);
                return Ok(true);
            }
        }
        Ok(false)
    }
}

impl<R: BufRead, W: Write> BufRead for Guess<R, W> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        self.more()?;
        Ok(&self.plain[self.given..])
    }

    fn consume(&mut self, amount: usize) {
        self.given += amount;
    }
}

impl<R: BufRead, W: Write> Read for Guess<R, W> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        berth_archive::read_shown(self, buffer)
    }
}

/// Compresses plain bytes as a lane says.
pub(crate) fn rebuild(mut lane: impl Read, mut plain: impl Read, output: impl Write) -> io::Result<()> {
    let mut encoder = Settings::read(&mut lane)?.encoder(output)?;
    let mut part = vec![0; PART];
    loop {
        let length = plain.read(&mut part)?;
        if length == 0 {
            break;
        }
        encoder.write_all(&part[..length])?;
    }
    encoder.finish().map(drop)
}

fn other() -> io::Error {
    RemakeError::Unsupported("its zstd frames are made in another way from somewhere on").into()
}

/// Remembers what is read.
struct Recorded<R> {
    inner: R,
    came: Came,
}

impl<R: BufRead> BufRead for Recorded<R> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        self.inner.fill_buf()
    }

    fn consume(&mut self, amount: usize) {
        if let Ok(shown) = self.inner.fill_buf() {
            self.came.borrow_mut().extend(&shown[..amount.min(shown.len())]);
        }
        self.inner.consume(amount);
    }
}

impl<R: BufRead> Read for Recorded<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        berth_archive::read_shown(self, buffer)
    }
}

/// Takes what came, and nothing else.
struct Same {
    came: Came,
}

impl Write for Same {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut came = self.came.borrow_mut();
        if came.len() < bytes.len() || !came.drain(..bytes.len()).eq(bytes.iter().copied()) {
            return Err(other());
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
