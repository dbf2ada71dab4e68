//! Blobs in a folder.
//!
//! ```text
//!   ROOT/blobs/sha256/HEX          a blob, complete and read-only
//!   ROOT/ingest/SHA256-OF-REF/     an ingest:
//!       data                       its bytes so far
//!       ref                        the reference
//!       startedat, updatedat       RFC 3339
//!       total                      decimal, if known
//! ```
//!
//! It is the layout of containerd's `io.containerd.content.v1.content`, so that other programs
//! can read it. There are no namespaces and no labels here: those are records, which
//! berth-metadata keeps. A blob is in its place only once its bytes are on disk and hashed, and
//! the answer to a commit comes only once the place is; commits that come at the same time share
//! what that costs.
//!
//! The store keeps nothing in memory but which ingests are being written. Files are read and
//! written on tokio's blocking pool, one crossing for each call.

mod blobs;
mod blocking;
mod error;
mod follower;
mod ingest;
mod reader;
mod rounds;
mod store;
mod writer;

pub use store::Store;
