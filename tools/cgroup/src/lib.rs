//! What is accounted in a cgroup, v1 or v2: how much was used, and news of memory running out.
//!
//! The figures are containerd's messages themselves: the shim sends them, runc's `events` prints from
//! them. Nothing here makes or changes a cgroup; that is the low-level runtime's.

mod oom;
mod place;
mod read;
mod v1;
mod v2;

pub use berth_proto::io::containerd::cgroups::{v1 as v1_messages, v2 as v2_messages};

pub use oom::OomWatch;
pub use place::{Cgroup, MOUNT, Metrics, is_unified};
