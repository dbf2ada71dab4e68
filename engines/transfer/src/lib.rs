//! The one route for images: from archives and registries into content, from content into snapshots, and back.
//!
//! Everything is a function over a [`Catalog`](berth_core::Catalog) and a [`Scope`](berth_core::Scope), so it runs
//! in the command line over a channel as well as in the daemon over its stores. Each operation holds what it makes
//! under a lease of its own until something refers to it, publishes an image in one step at the end, and can be
//! repeated: what is there already is not fetched, written or unpacked again.
//!
//! What comes from outside is not trusted: documents have a limit of size, graphs of depth and number
//! ([`Limits`]), every blob is verified by its digest, and a document that is two things is refused.
//!
//! It never mounts anything and never touches a snapshot's files: that is the differ's and the snapshotter's work.

mod content;
mod convert;
mod export;
mod graph;
mod hold;
mod image;
mod imaged;
mod import;
mod lists;
mod platforms;
mod progress;
mod pull;
mod push;
mod recipes;
mod recompress;
mod service;
mod soci;
mod tar;
mod unpack;
mod verify;

pub use convert::{Conversion, Layers, Types, convert};
pub use export::{Exported, Without, export};
pub use graph::Limits;
pub use image::{
    Commit, ImageSizes, Loaded, Step, commit, config, delete, history, load, publish, sizes, tag,
};
pub use import::{Digests, Import, Imported, Names, Only, Source, import};
pub use lists::{Amend, PlatformChange, annotate_list, create_list, document};
pub use platforms::Platforms;
pub use progress::{Object, Progress, Reporter, State};
pub use pull::{Metadata, Pull, Pulled, pull};
pub use push::{Push, push};
pub use service::{Architecture, Destination, Service, Settings};
pub use soci::{Indexing, index};
pub use unpack::{Unpack, Unpacked, unpack};
pub use verify::Verifiers;
