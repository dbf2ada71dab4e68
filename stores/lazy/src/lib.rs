//! Layers that are used before they have arrived.
//!
//! ```text
//!   container ─▶ overlay ─▶ N/fs, a FUSE mount ─▶ [`Mounted`] ─▶ Cache ─ has it ──────────────────▶ bytes
//!                                                     │                                            ▲
//!                                                     ╰─ has it not ─▶ Fetcher ─ range ─▶ registry ─╯ verified
//! ```
//! [`Lazy`] is a snapshotter over another one that keeps its trees in folders. A snapshot that is prepared for a layer
//! of an image in a registry (containerd's protocol for remote snapshotters: the label `containerd.io/snapshot.ref`
//! says what it will be called) is committed at once: its folder is a mount of the layer's table of contents, and what
//! is read there is fetched when it is read. Where that cannot be (the layer has no table, the registry gives no
//! ranges) the snapshot is prepared like any other, and somebody unpacks the layer into it.
//!
//! A layer without a table is fetched whole when it comes first, while an index of it is made ([`plain`]); it counts as
//! there once all of it has been verified, and the next time only what is read of it is fetched. Indexes can be
//! published for other nodes.
//!
//! What a container reads in its first seconds is noted ([`reads`]), and comes first when the layer is mounted again.
//!
//! A layer of an image that somebody has made a SOCI index of has its table there ([`soci`]).
//!
//! No byte is served that has not been verified by the digest in the table, which is verified by the digest in the
//! manifest, or in the index, which was made of verified bytes. Each chunk is fetched once however many wait for it, kept in one cache for all layers, and verified again
//! when a later process first uses it. If the registry does not answer, a read fails with an I/O error within a
//! bounded time, what is cached goes on being served, and the next read tries again.
//!
//! `berth-lazyd` is the caller.

mod cache;
mod config;
mod demand;
mod fetch;
mod figures;
mod filesystem;
mod flights;
mod index;
mod keeper;
mod keyed;
mod labels;
mod layer;
mod layers;
mod plain;
mod reads;
mod referrers;
mod snapshotter;
mod soci;
mod source;

#[cfg(test)]
mod tests;

pub use self::cache::{Cache, CacheFigures};
pub use self::config::Config;
pub use self::fetch::FetchError;
pub use self::figures::{Figures, WAIT_BOUNDS};
pub use self::keeper::{Keeper, can_outlive, keep, listen_at};
pub use self::layer::{Layer, LayerFigures};
pub use self::plain::{Outcome, Publication, Publicized};
pub use self::snapshotter::{LayerStatus, Lazy, Status};
pub use self::source::{RegistrySource, Source};
