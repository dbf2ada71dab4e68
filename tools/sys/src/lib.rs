//! The system calls behind berth: mounts, namespaces, loop devices, process creation.
//!
//! This crate is the only home of `unsafe` beside FUSE. Each unsafe block is one call with its
//! proof above it, and what leaves the crate is owned (`OwnedFd`) and checked. It knows nothing
//! about containers, images or the wire, keeps no state, and never logs: the caller decides.

#[cfg(test)]
mod tests;

pub mod beneath;
pub mod capabilities;
pub mod child;
pub mod filesystem;
pub mod fork;
pub mod given;
pub mod held;
pub mod launch;
pub mod limits;
pub mod local_socket;
pub mod loopdev;
pub mod memory;
pub mod mount;
pub mod opened;
pub mod piped;
pub mod sched_core;
pub mod sealed;
pub mod signal;
pub mod spawn;
pub mod subvolume;
pub mod thread;
pub mod userns;
