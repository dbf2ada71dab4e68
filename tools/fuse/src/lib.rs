//! A read-only file system that another process than the kernel answers for: FUSE's protocol over `/dev/fuse`.
//!
//! ```text
//!   process ─ read(2) ─▶ kernel ─ request ─▶ Device::serve ─▶ Filesystem ─┬─ at once ─────────▶ answer ─▶ kernel
//!                                                                        └─ Reading, kept ───▶ later ─╯
//! ```
//! Whoever has a [`Filesystem`] mounts a [`Device`] and serves it on a thread of its own until it is unmounted. Only
//! the data of files may take time: a [`Reading`] can be answered from elsewhere, so that one that waits for a network
//! keeps no other waiting. Files are numbered by the file system, the root is [`ROOT`], and a number means the same
//! file for ever; so nothing is counted, opened or forgotten here, the kernel may keep what it was told for as long as
//! it likes, and another process can go on serving a device whose first one ended ([`Device::adopt`]).
//!
//! What the kernel asks is input as anything else. Writing is refused: the mount is read-only.
//!
//! Sources: Linux' include/uapi/linux/fuse.h (7.41) and fs/fuse/dev.c, Documentation/filesystems/fuse.rst.

mod answer;
mod device;
mod filesystem;
mod request;
mod serve;

#[cfg(test)]
mod tests;

pub use self::device::{Device, MountError};
pub use self::filesystem::{Attributes, Filesystem, Kind, Listed, Statistics, Time};
pub use self::request::{Operation, Request, RequestError};
pub use self::serve::Reading;

/// The number of the root directory.
pub const ROOT: u64 = 1;
