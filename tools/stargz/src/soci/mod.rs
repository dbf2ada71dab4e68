//! Indexes of others for layers without a table: the zTOCs of SOCI, read and made.
//!
//! ```text
//!   blob   ├ header ┼── span 0 ──┼── span 1 ──┼── span 2 ── … ┤   each with the digest of its compressed bytes
//!                   │            │            │
//!   tar    ├──── a ─┴── b ──┬────┴─── c ──────┴─ … ───────────┤   files, and where their data begins in the tar
//! ```
//! A zTOC is a flatbuffer with the files of a layer, and with places in its blob, every 4 MiB of the tar, where decoding
//! can begin: of gzip with the 32 KiB before them, of a plain tar anywhere. What lies between two of them is a span, and
//! a span is what is fetched, and verified by a digest of its compressed bytes. [`read`](Ztoc::read) makes a [`Layer`] of
//! one, whose chunks are the parts of files that lie within one span; [`make`] makes one of a blob.
//!
//! What the bytes of a chunk hash to is not known before they are there. Its digest is a name instead, see [`name`].
//!
//! Sources: soci-snapshotter's ztoc/fbs/ztoc.fbs, ztoc/compression/fbs/zinfo.fbs and ztoc/compression/gzip_zinfo.h.

mod checkpoints;
mod flat;
mod make;
mod name;
mod passing;
mod spans;
mod ztoc;

pub use self::make::{SPAN, make};
pub(crate) use self::spans::Spans;
pub use self::ztoc::Ztoc;

use std::io;

use berth_archive::TarError;
use berth_types::Digest;

use crate::StargzError;

#[cfg(test)]
mod tests;

/// What manifests say of zTOCs (soci-snapshotter's soci/soci_index.go).
pub mod media {
    /// The type of the configuration of a SOCI index that is found as a referrer of its image.
    pub const INDEX_V1: &str = "application/vnd.amazon.soci.index.v1+json";
    /// The type of the configuration of one that the image's manifest names.
    pub const INDEX_V2: &str = "application/vnd.amazon.soci.index.v2+json";
    /// The type of a zTOC.
    pub const ZTOC: &str = "application/octet-stream";
    /// Of an image's manifest: the digest of its SOCI index.
    pub const INDEX_DIGEST: &str = "com.amazon.soci.index-digest";
    /// Of a SOCI index in a list of images: the digest of the manifest that names it.
    pub const MANIFEST_DIGEST: &str = "com.amazon.soci.image-manifest-digest";
    /// Of a SOCI index: what has made it.
    pub const TOOL: &str = "com.amazon.soci.build-tool-identifier";
    /// Of a zTOC: the digest of its layer.
    pub const LAYER_DIGEST: &str = "com.amazon.soci.image-layer-digest";
    /// Of a zTOC: the type of its layer.
    pub const LAYER_TYPE: &str = "com.amazon.soci.image-layer-mediaType";
    /// Of a zTOC: bytes of the tar between two places where decoding can begin.
    pub const SPAN_SIZE: &str = "com.amazon.soci.span-size";
}

/// Why a zTOC is of no use, or cannot be made. The layer can still be fetched whole.
#[derive(Debug, thiserror::Error)]
pub enum ZtocError {
    /// It is another one than the index says.
    #[error("the zTOC should have the digest {expected} and has {actual}")]
    Digest {
        /// From the index.
        expected: Digest,
        /// What was read.
        actual: Digest,
    },
    /// It is cut off, or points outside of itself.
    #[error("the zTOC is no flatbuffer of this kind")]
    Malformed,
    /// It says so.
    #[error("the zTOC's spans cannot be those of a layer: {0}")]
    Spans(&'static str),
    /// Its files are refused.
    #[error("the zTOC's files are refused")]
    Files(#[from] StargzError),
    /// A sparse file's data is not where it seems to be.
    #[error("{0:?} is a sparse file, of which a zTOC cannot tell where its data is")]
    Sparse(String),
    /// Only gzip and plain tars have zTOCs.
    #[error("the layer is compressed with zstd, for which there are no zTOCs")]
    Zstd,
    /// A gzip stream with blocks that are too long.
    #[error("the layer can only be decoded from its beginning")]
    Whole,
    /// The layer cannot be read, or its compression is damaged.
    #[error("cannot read the layer")]
    Read(#[source] io::Error),
    /// It is no tar.
    #[error("cannot read the layer's archive")]
    Archive(#[source] TarError),
    /// More than offsets of 31 bits can reach.
    #[error("the zTOC would be too large")]
    Large,
}
