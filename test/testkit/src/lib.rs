//! What berth's tests share: the programs of other projects, daemons with folders of their own,
//! images made in memory, and the conformance suites that every backend has to pass.
//!
//! Never part of the product. A test that lacks a program or a right says so and ends
//! ([`need`]); with `CI=true` it fails instead. Nothing here sleeps: it waits for events, with
//! deadlines ([`wait`]). Whatever a test makes on the machine carries its [`Scratch`]'s tag, so
//! that its removal, and the check that nothing is left, touch nobody else's.

pub mod blobs;
pub mod conformance;
pub mod need;
pub mod nri;
pub mod tree;
pub mod volume;
pub mod wait;

mod command;
mod daemon;
mod host;
pub mod image;
mod leftovers;
pub mod programs;
pub mod registry;
mod scratch;

pub use command::{Invocation, Outcome};
pub use daemon::{Daemon, Kind, Setup};
pub use host::{cgroups, mounts, processes};
pub use leftovers::Leftovers;
pub use scratch::Scratch;
