//! Layers without a table: an index of one is made while it passes, and lets it be read in parts the next time.
//!
//! ```text
//!   blob     ├─────────┼─────────┼─────────┼──── … ┤      points: where decoding can begin, with what it needs
//!            │         │         │         │
//!   tar      ├─ a ─┬── b ──┬─ c ─┴─ … ─────────────┤      table: files, and where their chunks are in the tar
//! ```
//! A decoder of gzip can begin between two blocks if it is given the 32 KiB before them, one of zstd where a frame
//! begins. [`record`] notes such points every few MiB, and digests of every chunk; [`Index::read`] reads what it wrote
//! as a [`Layer`]. Whoever made an index is trusted with all that is in it: the layer's own digest says nothing of it.

mod boundary;
mod file;
mod frames;
mod inflate;
mod points;
mod record;
mod tracked;

pub use self::file::{Index, IndexError};
pub(crate) use self::inflate::{Inflate, WINDOW};
pub(crate) use self::points::{Notes, Point, Points};
pub use self::record::{RecordError, Recorded, record};

#[cfg(test)]
mod tests;
