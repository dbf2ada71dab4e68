//! The low-level runtime: makes a container from an OCI bundle, and runs it.
//!
//! What runc does, as a library: namespaces, mounts, cgroups (v1, v2, hybrid), capabilities, seccomp,
//! hooks, terminals. It is called by the shim in its own process and by `berth oci`. It blocks, keeps
//! no threads and no globals, never logs (warnings are returned), and never reaps the caller's
//! children except those that it made and that failed.
//!
//! [`Container::create`] → [`Container::start`] → [`Container::delete`] is the whole life.
//!
//! ```text
//!   configuration --plan--> Plan --clone--> child: namespaces, mounts, identity --> program
//!                            ^                 ^
//!                            |                 | messages (child::wire)
//!                          checks          container::create: cgroups, maps, hooks
//! ```

pub mod apparmor;
mod cgroup;
pub mod checkpoint;
mod child;
pub mod container;
pub mod error;
pub mod features;
mod plan;
mod report;
mod seccomp;

pub use checkpoint::{Checkpoint, Restore};
pub use container::{
    CgroupDriver, Container, Create, Deletion, Exec, Execed, Keyring, Made, RootSwitch, Stdio, Target,
};
pub use error::{Error, ErrorKind, Result};
