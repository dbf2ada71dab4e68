//! The Node Resource Interface 0.12: other people's plugins see pods and containers come and go, and adjust them.
//!
//! ```text
//!  plugin ── one socket ── mux ── ttrpc 1: the plugin answers (Configure, Synchronize, CreateContainer, …)
//!                              └─ ttrpc 2: the runtime answers (RegisterPlugin, UpdateContainers)
//! ```
//! [`Nri`] is what the daemon holds. It starts the plugins of a folder, takes in those that connect, and asks all of
//! them in the order of their indices. What they ask for is merged into one answer; two that want the same thing
//! are refused, and so is what the validators forbid. [`apply`] carries an adjustment out on a container's document, and
//! [`describe`] shows plugins what is in one.
//! [`Host`] is the other direction: what plugins are told when they join, and what they ask for of their own accord.
//!
//! A plugin is somebody else's program: every wait for one has a deadline, and one that is late, gone or answers
//! nonsense is cut off, with its process if it is ours. The containers go on without it, unless it is required.
//!
//! Knows nothing of the CRI and keeps no records. The caller is the CRI's face.

mod admission;
mod apply;
mod config;
mod describe;
mod desk;
mod events;
mod host;
mod launch;
mod listener;
mod merge;
mod mux;
mod name;
mod nri;
mod owners;
mod plugin;
mod requests;
mod synchronize;
mod validator;

pub use apply::{ApplyError, apply, apply_resources};
/// The messages, of which callers build requests.
pub use berth_proto::nri::pkg::api::v1alpha1 as proto;
pub use config::Config;
pub use describe::{describe, describe_namespaces, describe_resources};
pub use host::{Host, Snapshot};
pub use nri::{Created, Nri, Pause, Updated};
pub use validator::ValidatorConfig;
