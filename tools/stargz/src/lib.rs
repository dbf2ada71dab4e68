//! Layers with a table of contents: eStargz, stargz and zstd:chunked.
//!
//! Such a layer is an ordinary compressed tar whose files begin compressed streams of their own, followed by a table
//! (TOC) that says what files there are, where their data begins and what it hashes to. So a file can be had without
//! the rest of the layer:
//!
//! ```text
//!   blob   ├ header ┼ data of a ┼ header ┼ data of b, 1 ┼ data of b, 2 ┼ … ┼ TOC ┼ footer ┤
//!                   ▲                    ▲              ▲                  ▲       │
//!                   ╰────────────────────┴── chunks ────┴───── named by ───╯ ◀─────╯
//! ```
//! [`Position::from_tail`] reads the footer, [`Position::from_annotation`] what a manifest says instead;
//! [`Layer::read`] reads the table, which must have the digest that the manifest gives, and answers the layer as a
//! tree: what unpacking it into the upper folder of an overlay makes, so whiteouts are overlayfs' marks.
//! [`Layer::decompress`] makes the bytes of a [`Chunk`] out of its range of the blob and verifies them.
//!
//! [`make`] makes such a layer of a tar. [`record`] makes an index of a layer that has no table, as it passes, and
//! [`Index::read`] reads it as a [`Layer`] too. [`soci`] does the same with indexes as others have them.
//!
//! Nothing here does I/O of its own. Everything read comes from a registry: every count, size and depth has a bound, and
//! a layer that is not plainly well-formed is refused, for it can still be unpacked whole. Lazy layers and the
//! conversion of images are the callers.
//!
//! Sources: stargz-snapshotter's docs/estargz.md; containers/storage's docs/containers-storage-zstd-chunked.md.

mod builder;
mod chunk;
mod entry;
mod error;
mod make;
mod plain;
mod position;
mod read;
pub mod soci;
mod tree;

#[cfg(test)]
mod tests;

pub use self::chunk::{CHUNK_LIMIT, Chunk, ChunkError, Stored, Unpacker};
pub use self::error::StargzError;
pub use self::make::{Made, MakeError, Making, make};
pub use self::plain::{Index, IndexError, RecordError, Recorded, record};
pub use self::position::{Format, Position, TAIL, annotation};
pub use self::tree::{Kind, Layer, Node, NodeId, Prefetch, ROOT};

/// A file at the root behind what is to be fetched at once.
const LANDMARK: &[u8] = b".prefetch.landmark";
/// A file at the root that says that nothing is.
const NO_LANDMARK: &[u8] = b".no.prefetch.landmark";
