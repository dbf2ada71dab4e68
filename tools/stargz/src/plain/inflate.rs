//! gzip, decoded from its beginning or from between two blocks.
//!
//! zlib-rs decodes what is begun at the beginning, and is asked to stop between two blocks where a point is wanted.
//! Only miniz_oxide can begin there, and only it says of every place between two blocks where that is.

use std::io::{self, BufRead, Read};

use miniz_oxide::inflate::TINFLStatus;
use miniz_oxide::inflate::core::{BlockBoundaryState, DecompressorOxide, decompress, inflate_flags};
use zlib_rs::InflateFlush;

use super::boundary::Boundary;
use super::points::{Notes, Point};

/// What a decoder may look back at (RFC 1951).
pub(crate) const WINDOW: usize = 32 << 10;
/// Bytes that are decoded before they are given out.
const ROOM: usize = 256 << 10;

const FLAGS: u32 =
    inflate_flags::TINFL_FLAG_USING_NON_WRAPPING_OUTPUT_BUF | inflate_flags::TINFL_FLAG_HAS_MORE_INPUT;

const STOP: u32 = inflate_flags::TINFL_FLAG_STOP_ON_BLOCK_BOUNDARY;

/// The largest window of deflate, by its power of two.
const WINDOW_BITS: u8 = 15;

/// Flags of a member's header (RFC 1952).
const HEADER_CRC: u8 = 2;
const EXTRA: u8 = 4;
const NAME: u8 = 8;
const COMMENT: u8 = 16;

/// A stream of members, as its plain bytes.
pub(crate) struct Inflate<R> {
    source: R,
    /// Bytes that were taken from the source.
    taken: u64,
    /// The last of them.
    last: u8,
    core: Core,
    /// What is looked back at, and behind it what was decoded.
    buffer: Vec<u8>,
    filled: usize,
    given: usize,
    /// Bytes that were decoded.
    plain: u64,
    state: State,
    /// None within a member that was begun in the middle.
    sum: Option<flate2::Crc>,
    /// Where decoding can begin again, if somebody wants to know.
    notes: Option<Notes>,
    /// A place where it may, which is looked at.
    boundary: Option<Boundary>,
}

enum Core {
    /// Of a member from its beginning on.
    Whole(zlib_rs::Inflate),
    /// Of what is left of one.
    Resumed(Box<DecompressorOxide>),
    /// Of a member whose every boundary is told.
    Exact(Box<DecompressorOxide>),
}

/// What a decoder has to say.
enum Step {
    Goes,
    /// It stands between two blocks; so many bits of the byte taken last belong to the second.
    Between(u8),
    Ended,
    Damaged,
}

enum State {
    Header,
    Body,
    Ended,
}

impl<R: BufRead> Inflate<R> {
    pub(crate) fn new(source: R, notes: Option<Notes>) -> Self {
        Self {
            source,
            taken: 0,
            last: 0,
            core: Core::Whole(zlib_rs::Inflate::new(false, WINDOW_BITS)),
            buffer: vec![0; WINDOW + ROOM],
            filled: 0,
            given: 0,
            plain: 0,
            state: State::Header,
            sum: None,
            notes,
            boundary: None,
        }
    }

    /// The same, noting a point at the first boundary where one is wanted, as others do whose points these are to be.
    /// Slower.
    pub(crate) fn exact(source: R, notes: Notes) -> Self {
        Self { core: Core::Exact(Box::default()), ..Self::new(source, Some(notes)) }
    }

    /// Goes on between two blocks: `before` are the plain bytes before it that may be looked back at, and the source
    /// begins with the byte of which `bits` belong to what follows, if there are any.
    pub(super) fn resume(mut source: R, before: &[u8], bits: u8) -> io::Result<Self> {
        let bits = bits.min(7);
        let mut byte = [0];
        if bits > 0 {
            source.read_exact(&mut byte)?;
        }
        let bit_buf = if bits > 0 { byte[0] >> (8 - bits) } else { 0 };
        let state = BlockBoundaryState { num_bits: bits, bit_buf, ..BlockBoundaryState::default() };
        let mut resumed = Self::new(source, None);
        let before = &before[before.len().saturating_sub(WINDOW)..];
        resumed.buffer[..before.len()].copy_from_slice(before);
        (resumed.filled, resumed.given) = (before.len(), before.len());
        resumed.core = Core::Resumed(Box::new(DecompressorOxide::from_block_boundary_state(&state)));
        resumed.state = State::Body;
        Ok(resumed)
    }

    /// Where decoding can begin again.
    pub(crate) fn notes(&mut self) -> Option<Notes> {
        self.notes.take()
    }

    /// Where it can, as far as that is known yet.
    pub(crate) fn noted(&self) -> &[Point] {
        self.notes.as_ref().map_or(&[], |notes| &notes.points)
    }

    pub(crate) fn taken(&self) -> u64 {
        self.taken
    }

    /// Decodes a little; false at the end.
    fn step(&mut self) -> io::Result<bool> {
        match self.state {
            State::Ended => return Ok(false),
            State::Header if self.taken > 0 && self.source.fill_buf()?.is_empty() => {
                self.state = State::Ended;
            }
            State::Header => {
                self.header()?;
                match &mut self.core {
                    Core::Whole(core) => core.reset(false),
                    Core::Exact(core) => **core = DecompressorOxide::new(),
                    core @ Core::Resumed(_) => {
                        *core = Core::Whole(zlib_rs::Inflate::new(false, WINDOW_BITS));
                    }
                }
                self.sum = Some(flate2::Crc::new());
                self.state = State::Body;
                if let Some(notes) = &mut self.notes {
                    notes.note(self.plain, self.taken, 0, &[])?;
                }
            }
            State::Body => self.body()?,
        }
        Ok(true)
    }

    fn body(&mut self) -> io::Result<()> {
        if self.filled == self.buffer.len() {
            self.buffer.copy_within(self.filled - WINDOW.., 0);
            (self.filled, self.given) = (WINDOW, WINDOW);
        }
        let input = self.source.fill_buf()?;
        let none = input.is_empty();
        // Between two blocks it is only stopped where a point is wanted and none is looked at.
        let stop = matches!(self.core, Core::Whole(_))
            && self.boundary.is_none()
            && self.notes.as_ref().is_some_and(|notes| notes.wants(self.plain));
        let (step, used, made) = match &mut self.core {
            Core::Whole(core) => whole(core, input, &mut self.buffer[self.filled..], stop),
            Core::Resumed(core) => slow(core, input, &mut self.buffer, self.filled, FLAGS),
            Core::Exact(core) => slow(core, input, &mut self.buffer, self.filled, FLAGS | STOP),
        };
        // It stops there and nowhere else where there is both something to be taken and room to be filled.
        let stopped = stop && used < input.len() && self.filled + made < self.buffer.len();
        let made = self.filled..self.filled + made;
        let known =
            self.boundary.as_mut().is_some_and(|at| at.feed(&input[..used], &self.buffer[made.clone()]));
        self.last = input[..used].last().copied().unwrap_or(self.last);
        self.source.consume(used);
        self.taken += used as u64;
        self.filled = made.end;
        self.plain += made.len() as u64;
        if let Some(sum) = &mut self.sum {
            sum.update(&self.buffer[made.clone()]);
        }
        match step {
            Step::Ended => {
                self.boundary = None;
                return self.trailer();
            }
            Step::Damaged => {
                return Err(io::Error::new(io::ErrorKind::InvalidData, "the gzip stream is damaged"));
            }
            Step::Goes if none && made.is_empty() => return Err(io::ErrorKind::UnexpectedEof.into()),
            Step::Goes => {}
            Step::Between(bits) => {
                let Some(notes) = &mut self.notes else { return Ok(()) };
                let window = &self.buffer[self.filled.saturating_sub(WINDOW)..self.filled];
                return notes.note(self.plain, self.taken, bits, window);
            }
        }
        if known {
            self.settle()?;
        } else if stopped {
            let window = &self.buffer[self.filled.saturating_sub(WINDOW)..self.filled];
            self.boundary = Some(Boundary::new((self.plain, self.taken), window, self.last));
        }
        Ok(())
    }

    /// Notes the boundary that was looked at, if it is one where decoding can begin.
    fn settle(&mut self) -> io::Result<()> {
        let (Some(at), Some(notes)) = (self.boundary.take(), &mut self.notes) else { return Ok(()) };
        match at.bits() {
            Some(bits) => notes.note(at.plain, at.taken, bits, &at.window),
            None => Ok(()),
        }
    }

    fn header(&mut self) -> io::Result<()> {
        let fixed: [u8; 10] = self.bytes()?;
        let [0x1f, 0x8b, 8, flags, ..] = fixed else {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "what follows is no gzip member"));
        };
        if flags & EXTRA != 0 {
            let length: [u8; 2] = self.bytes()?;
            for _ in 0..u16::from_le_bytes(length) {
                self.bytes::<1>()?;
            }
        }
        for _ in 0..(flags & (NAME | COMMENT)).count_ones() {
            while self.bytes::<1>()? != [0] {}
        }
        if flags & HEADER_CRC != 0 {
            self.bytes::<2>()?;
        }
        Ok(())
    }

    fn trailer(&mut self) -> io::Result<()> {
        let trailer: [u8; 8] = self.bytes()?;
        if let Some(sum) = self.sum.take() {
            let seen = [sum.sum().to_le_bytes(), sum.amount().to_le_bytes()].concat();
            if trailer[..] != seen[..] {
                return Err(io::Error::new(io::ErrorKind::InvalidData, "a gzip member is not what it says"));
            }
        }
        self.state = State::Header;
        Ok(())
    }

    fn bytes<const N: usize>(&mut self) -> io::Result<[u8; N]> {
        let mut bytes = [0; N];
        self.source.read_exact(&mut bytes)?;
        self.taken += N as u64;
        Ok(bytes)
    }
}

fn whole(core: &mut zlib_rs::Inflate, input: &[u8], room: &mut [u8], stop: bool) -> (Step, usize, usize) {
    let before = (core.total_in(), core.total_out());
    let flush = if stop { InflateFlush::Block } else { InflateFlush::NoFlush };
    let step = match core.decompress(input, room, flush) {
        Ok(zlib_rs::Status::StreamEnd) => Step::Ended,
        Ok(zlib_rs::Status::Ok | zlib_rs::Status::BufError) => Step::Goes,
        Err(_) => Step::Damaged,
    };
    (step, (core.total_in() - before.0) as usize, (core.total_out() - before.1) as usize)
}

fn slow(
    core: &mut DecompressorOxide,
    input: &[u8],
    buffer: &mut [u8],
    filled: usize,
    flags: u32,
) -> (Step, usize, usize) {
    let (status, used, made) = decompress(core, input, buffer, filled, flags);
    let step = match status {
        TINFLStatus::BlockBoundary => {
            core.block_boundary_state().map_or(Step::Goes, |state| Step::Between(state.num_bits))
        }
        TINFLStatus::Done => Step::Ended,
        TINFLStatus::NeedsMoreInput | TINFLStatus::HasMoreOutput => Step::Goes,
        _ => Step::Damaged,
    };
    (step, used, made)
}

impl<R: BufRead> Read for Inflate<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if buffer.is_empty() {
            return Ok(0);
        }
        while self.given == self.filled {
            if !self.step()? {
                return Ok(0);
            }
        }
        let length = buffer.len().min(self.filled - self.given);
        buffer[..length].copy_from_slice(&self.buffer[self.given..self.given + length]);
        self.given += length;
        Ok(length)
    }
}
