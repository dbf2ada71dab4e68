//! gzip, decoded from its beginning or from between two blocks.

use std::io::{self, BufRead, Read};

use miniz_oxide::inflate::TINFLStatus;
use miniz_oxide::inflate::core::{BlockBoundaryState, DecompressorOxide, decompress, inflate_flags};

use super::points::{Notes, Point};

/// What a decoder may look back at (RFC 1951).
pub(crate) const WINDOW: usize = 32 << 10;
/// Bytes that are decoded before they are given out.
const ROOM: usize = 256 << 10;

const FLAGS: u32 = inflate_flags::TINFL_FLAG_USING_NON_WRAPPING_OUTPUT_BUF
    | inflate_flags::TINFL_FLAG_HAS_MORE_INPUT
    | inflate_flags::TINFL_FLAG_STOP_ON_BLOCK_BOUNDARY;

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
    core: Box<DecompressorOxide>,
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
            core: Box::default(),
            buffer: vec![0; WINDOW + ROOM],
            filled: 0,
            given: 0,
            plain: 0,
            state: State::Header,
            sum: None,
            notes,
        }
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
        *resumed.core = DecompressorOxide::from_block_boundary_state(&state);
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
                *self.core = DecompressorOxide::new();
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
        let (status, used, made) = decompress(&mut self.core, input, &mut self.buffer, self.filled, FLAGS);
        self.source.consume(used);
        self.taken += used as u64;
        if let Some(sum) = &mut self.sum {
            sum.update(&self.buffer[self.filled..self.filled + made]);
        }
        self.filled += made;
        self.plain += made as u64;
        match status {
            TINFLStatus::Done => self.trailer(),
            TINFLStatus::BlockBoundary => {
                let (Some(notes), Some(state)) = (&mut self.notes, self.core.block_boundary_state()) else {
                    return Ok(());
                };
                let window = &self.buffer[self.filled.saturating_sub(WINDOW)..self.filled];
                notes.note(self.plain, self.taken, state.num_bits, window)
            }
            TINFLStatus::NeedsMoreInput if none && made == 0 => Err(io::ErrorKind::UnexpectedEof.into()),
            TINFLStatus::NeedsMoreInput | TINFLStatus::HasMoreOutput => Ok(()),
            _ => Err(io::Error::new(io::ErrorKind::InvalidData, "the gzip stream is damaged")),
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
