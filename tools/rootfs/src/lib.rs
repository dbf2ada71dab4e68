//! What is in a root filesystem, for whoever makes a container from it: its users, its files to be
//! copied, and the devices of the host that it can get.
//!
//! Whoever made the image chose every byte of it. Files are found beneath their root, nothing of it is executed, and
//! what is read has a limit. Everything blocks.

mod accounts;
mod devices;
mod look;
mod tree;

pub use accounts::{Accounts, Identity};
pub use devices::{device, devices_at, devices_below};
pub use look::{look_into, read_only};
pub use tree::{Keep, copy, copy_contents};
