//! Streams of gzip: taken apart into plain bytes and what else is needed, and put together again.
//!
//! ```text
//!   blob ─▶ [parser] ─▶ plain bytes ──────────────────────────────────────────────▶
//!              └─▶ segments of tokens ─▶ [matcher] guesses each ─▶ corrections ───▶ lane
//! ```
//! A segment's tokens are guessed with what the segment and the one after it hold, so both sides see the same bytes when
//! they guess. A compressor that was flushed has seen no further either.

pub(crate) mod bits;
mod correct;
mod dissect;
mod huffman;
mod matcher;
mod params;
mod parser;
mod rebuild;
mod token;
mod unit;

pub(crate) use self::dissect::Dissect;
pub(crate) use self::rebuild::rebuild;
