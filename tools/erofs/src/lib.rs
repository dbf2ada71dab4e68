//! EROFS images: layers as one read-only file that the kernel mounts as it lies.
//!
//! [`Layer`] makes one of the members of a layer's archive, in one pass and without any program: data goes out as it
//! comes, and what is known of the files (never their data, but for short tails within a budget) is kept until the
//! end and written behind it. [`IndexedLayer`] leaves the archive as it is, within the image. [`Builder`] is what it stands on: a tree that grows by entries, for whoever has no
//! archive. [`Image`] reads such a file back, ours or anybody's that is not compressed, and
//! [`check`] looks through one that somebody else has made before a kernel does.
//!
//! ```text
//!   block 0   the superblock
//!   1 …       data, in the order in which it came
//!   …         extended attributes that several files share
//!   …         inodes, each with its own attributes, and its tail or map of chunks behind it
//!   …         directories
//! ```
//! The same entries and name give the same bytes. Blocks have 4096 bytes, inodes the extended form, and nothing is
//! compressed, so that every kernel since 5.16 mounts the image, from 6.12 on without a loop device.
//!
//! Nothing here opens a file, mounts or follows a link outside of the tree that it makes; every count and size that an
//! archive decides has a bound. The differ and the snapshotter call it.
//!
//! Sources: Linux' Documentation/filesystems/erofs.rst and fs/erofs/erofs_fs.h; erofs.docs.kernel.org, "Core on-disk
//! format"; Documentation/filesystems/overlayfs.rst for whiteouts and opaque directories.

mod blocks;
mod builder;
mod check;
mod directory;
mod error;
mod finish;
mod format;
mod image;
mod indexed;
mod layer;
mod merge;
mod remembered;
mod tree;
mod xattrs;

#[cfg(test)]
mod tests;

pub use self::builder::{Builder, Finished, Special, uuid_of};
pub use self::check::{Checked, check};
pub use self::error::ErofsError;
pub use self::image::{Image, ImageError, Inode, Listed, ReadAt, Xattr};
pub use self::indexed::IndexedLayer;
pub use self::layer::{Below, Layer, Nothing};
pub use self::merge::{MergeError, merge};
pub use self::remembered::Remembered;
pub use self::tree::{Attributes, NodeId};
pub use self::xattrs::OPAQUE;
