//! The records of a daemon: namespaces, images, containers, leases, and what each namespace sees
//! of the content store and of the snapshotters; and the garbage collector that frees what no
//! record refers to.
//!
//! [`Metadata::open`] takes the backends and gives the traits of `berth-core`. Nobody else opens
//! the database, and nobody but this crate writes to the backends that it was given.
//!
//! **Order of writes.** Data first, then its record, then whatever refers to it: a record that is
//! on disk never refers to something that is not. Images, containers, committed content and
//! committed snapshots are on disk when the answer comes. Leases, active snapshots, views and the
//! records of ingests are so at the latest with the next of those, or ten milliseconds later;
//! nothing that is written after them reaches the disk before them. So a container's start waits
//! for one sync.
//!
//! **Garbage.** What is in a backend and in no record is an orphan of a crash, and goes with the
//! first collection. What is reachable from no root, by containerd's rules and labels, goes with
//! the next one.

mod backup;
mod codec;
mod config;
mod containers;
mod content;
#[cfg(test)]
mod crash;
mod gc;
mod images;
mod key;
mod leases;
mod ledger;
mod locks;
mod metadata;
mod namespaces;
mod opening;
mod record;
mod sandboxes;
mod sequence;
mod shared;
mod snapshots;
mod storage;

pub use config::{GcConfig, Parts, Sharing};
pub use gc::Collected;
pub use metadata::Metadata;
pub use opening::Opening;
