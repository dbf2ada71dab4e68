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
//! Nothing here does I/O. Everything read comes from a registry: every count, size and depth has a bound, and a layer
//! that is not plainly well-formed is refused, for it can still be unpacked whole. Lazy layers are the caller.
//!
//! Sources: stargz-snapshotter's docs/estargz.md; containers/storage's docs/containers-storage-zstd-chunked.md.

mod builder;
mod chunk;
mod entry;
mod error;
mod position;
mod read;
mod tree;

#[cfg(test)]
mod tests;

pub use self::chunk::{CHUNK_LIMIT, Chunk, ChunkError, Stored};
pub use self::error::StargzError;
pub use self::position::{Format, Position, TAIL, annotation};
pub use self::tree::{Kind, Layer, Node, NodeId, Prefetch, ROOT};
