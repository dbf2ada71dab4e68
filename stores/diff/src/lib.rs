//! Layers put onto trees, and taken off them.
//!
//! [`Walking::apply`](berth_core::Differ::apply) unpacks, also while the blob still comes: one thread decompresses, one
//! hashes, one writes files, and some more make the small ones, so that a layer takes as long as the slowest of them.
//! Every path is resolved beneath the tree by [`berth_sys::beneath`], whatever the layer says, and the last name of a
//! path is never followed. Where the mounts are a folder of this machine, or an overlay whose upper folder is,
//! files are written there and nothing is mounted.
//!
//! [`Walking::compare`](berth_core::Differ::compare) walks: the upper folder alone where the upper tree
//! is an overlay right above the lower one, else both trees side by side. The same trees give the same
//! bytes.
//!
//! A comparison can also ask for the recipe of a layer, with which its blob is made again from the tree, or for that blob
//! ([`berth_core::recipe`]).
//!
//! Nothing is ever executed or loaded from a tree, and nobody else sees a mount that is made here.

mod apply;
mod compare;
mod mounted;
mod processor;
mod recipe;
mod source;
mod walking;
mod xattr;

#[cfg(test)]
mod tests;

pub use apply::image::ImageForm;
pub use processor::Processor;
pub use recipe::RECIPES;
pub use walking::{ARRIVING, Walking};
