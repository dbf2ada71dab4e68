//! Snapshotters that keep their trees in local folders.
//!
//! [`overlayfs`] gives each snapshot a folder of its own and lets the kernel lay them over one
//! another; [`erofs`] does the same with committed layers that are images; [`btrfs`] lets its filesystem share what
//! snapshots have in common; [`blockfile`] copies images of filesystems; [`native`] copies the parent's files, for
//! filesystems that can do nothing else. All answer mounts as containerd's do and share everything else: the records,
//! their journal, the folders, removal.
//!
//! ```text
//!   ROOT/journal         one line for each change of the records
//!   ROOT/snapshots/N     the tree of snapshot N: for overlayfs and erofs fs/ and work/, for btrfs fs/, for blockfile
//!                        image, for native the tree itself
//! ```
//! A change is true once its line is written. Lines of snapshots that are still being written aren't
//! flushed to the disk, because a power cut ends whoever writes them; a commit flushes the tree first
//! and its line after. Folders that no line names are swept away by
//! [`cleanup`](berth_core::Snapshotter::cleanup), whether a removal or a crash left them.
//!
//! Nothing here mounts (but the images of [`erofs`], and to find out once what works), knows namespaces, or follows a
//! link in a tree. The daemon's metadata store is the caller.

mod backend;
mod journal;
mod mapping;
mod open;
mod records;
mod trees;
mod upper;
mod usage;

pub mod blockfile;
pub mod btrfs;
pub mod erofs;
pub mod native;
pub mod overlayfs;

#[cfg(test)]
mod tests;

pub use open::OpenError;
