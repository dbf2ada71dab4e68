//! The runtime of the Container Network Interface, specification 1.1: reads a folder of network configurations,
//! and adds network namespaces to those networks, removes, checks and collects them.
//!
//! ```text
//!   add     lo up ─▶ per network: intent on disk ─▶ plugin ─▶ plugin … ─▶ result on disk
//!   remove  per network on disk: plugin … ─▶ plugin (backwards, with the configuration of its ADD) ─▶ record away
//! ```
//!
//! Networks of the reference plugins alone can be done in process, see [`InProcess`]: many times faster, with the same
//! results, leases and rules, and without the programs being there.
//!
//! Plugins are other people's programs. Each runs in a process group of its own with the variables of the
//! specification and nothing else, for a limited time; whatever it answers is input. The loopback plugin is never
//! run: a device is set up in process. Everything blocks; the caller is the part of the daemon that makes pods.

mod attachment;
mod builtin;
mod cache;
mod config;
mod error;
mod folder;
mod in_process;
mod invoke;
mod loopback;
mod outcome;
mod process;
mod runtime;
mod version;

pub use attachment::{Attached, Attachment, Interface};
pub use config::{NetworkList, Plugin};
pub use error::PluginError;
pub use folder::{Folder, Loaded};
pub use in_process::InProcess;
pub use outcome::{Device, Dns, Ip, Outcome, Route};
pub use runtime::{Cni, Settings};
pub use version::Version;
