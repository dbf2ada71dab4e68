//! How many bits of a byte belong to what follows a boundary between two blocks of deflate.
//!
//! The quick decoder stops between two blocks and does not say how many bits of the byte that it took last it has not
//! used. There are eight answers, and what it decodes next tells the right one: a decoder that begins there has to make
//! the same bytes. Bits before a stored block are padding, so there several answers can be as good. Where more than one
//! fits otherwise (of a long run of zeros, say) there is none, and another boundary is looked at.

use miniz_oxide::inflate::TINFLStatus;
use miniz_oxide::inflate::core::{BlockBoundaryState, DecompressorOxide, decompress, inflate_flags};

/// Plain bytes that have to be the same.
const PROOF: usize = 4 << 10;
/// Plain bytes that are waited for, so that no decoder lacks the bits of the last of them.
const ENOUGH: usize = 2 * PROOF;
/// Compressed bytes that are kept for it.
const KEPT: usize = 128 << 10;

const FLAGS: u32 =
    inflate_flags::TINFL_FLAG_USING_NON_WRAPPING_OUTPUT_BUF | inflate_flags::TINFL_FLAG_HAS_MORE_INPUT;

/// A boundary, and what comes behind it.
#[derive(Debug)]
pub(super) struct Boundary {
    /// Plain bytes before it.
    pub(super) plain: u64,
    /// Compressed bytes that were taken before it.
    pub(super) taken: u64,
    /// What may be looked back at.
    pub(super) window: Vec<u8>,
    /// The byte that was taken last.
    last: u8,
    input: Vec<u8>,
    output: Vec<u8>,
}

impl Boundary {
    pub(super) fn new((plain, taken): (u64, u64), window: &[u8], last: u8) -> Self {
        Self { plain, taken, window: window.to_vec(), last, input: Vec::new(), output: Vec::new() }
    }

    /// Takes what was decoded next. True once that is enough to know as much as ever will be.
    pub(super) fn feed(&mut self, input: &[u8], output: &[u8]) -> bool {
        self.input.extend_from_slice(&input[..input.len().min(KEPT - self.input.len())]);
        self.output.extend_from_slice(&output[..output.len().min(ENOUGH - self.output.len())]);
        self.output.len() == ENOUGH || self.input.len() == KEPT
    }

    /// The number of bits, where that is certain.
    pub(super) fn bits(&self) -> Option<u8> {
        if self.output.len() < ENOUGH {
            return None;
        }
        let mut room = vec![0; self.window.len() + ENOUGH];
        room[..self.window.len()].copy_from_slice(&self.window);
        let fitting: Vec<u8> = (0..8).filter(|bits| self.fits(*bits, &mut room)).collect();
        let first = *fitting.first()?;
        let stored = self.stored(first);
        let same = |bits: &u8| stored.is_some() && self.stored(*bits) == stored;
        (fitting.len() == 1 || fitting.iter().all(same)).then_some(first)
    }

    /// Whether a stored block begins there (RFC 1951, 3.2.3 and 3.2.4): whether it is the last one, and how many bytes
    /// there are before its length. Two of which both are the same are the same block.
    fn stored(&self, bits: u8) -> Option<(bool, usize)> {
        let next = u32::from(*self.input.first()?) << bits;
        let header = next | if bits > 0 { u32::from(self.last) >> (8 - bits) } else { 0 };
        (header & 0b110 == 0).then_some((header & 1 == 1, usize::from(bits < 3)))
    }

    fn fits(&self, bits: u8, room: &mut [u8]) -> bool {
        let bit_buf = if bits > 0 { self.last >> (8 - bits) } else { 0 };
        let state = BlockBoundaryState { num_bits: bits, bit_buf, ..BlockBoundaryState::default() };
        let mut core = DecompressorOxide::from_block_boundary_state(&state);
        let begin = self.window.len();
        let (mut input, mut filled) = (&self.input[..], begin);
        while filled < begin + PROOF {
            let (status, used, made) = decompress(&mut core, input, room, filled, FLAGS);
            input = &input[used..];
            filled += made;
            let goes_on = matches!(status, TINFLStatus::NeedsMoreInput | TINFLStatus::HasMoreOutput);
            if !goes_on || (used == 0 && made == 0) {
                break;
            }
        }
        filled >= begin + PROOF && room[begin..begin + PROOF] == self.output[..PROOF]
    }
}
