//! Paths that cannot leave their root.
//!
//! A [`Root`] is a directory descriptor; every operation on it names a path *inside* that directory.
//! Parents are resolved by `openat2(RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS)`, so that an absolute
//! symlink, a `..` or a link planted by a racing writer ends inside the root; the last component is then
//! used with `*at` calls that never follow a link. What comes out is an [`Entry`]: a parent descriptor
//! and one file name, on which any number of operations cost one resolution.
//!
//! This module never looks at a path string twice and never canonicalizes. Layers, `cp`, bundles and
//! archives write through it.
//!
//! Sources: openat2(2), xattr(7), proc(5) (`/proc/self/fd`).

mod entry;
mod parents;
mod remove;
mod root;

pub use self::entry::{Entry, Owner};
pub use self::root::Root;

#[cfg(test)]
mod tests;
