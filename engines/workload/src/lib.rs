//! What Docker's users mean by a container: a name, an image to run, volumes, limits, a log, a restart
//! policy. All of it over the traits of berth-core, so that it works through a client as it would inside a
//! daemon.
//!
//! It prints nothing, reads no environment and knows no command line. What has to be on disk for a container
//! beside the daemon's own records lies in its [`Home`]. [`Workload`] is the handle: a daemon, a namespace, a
//! home.
//!
//! ```text
//!   text ── parse ─▶ Config, HostConfig, MountRequest ── create ─▶ record + snapshot + folder
//!                                                                     │ task, start
//!   ps, inspect, logs, stats, cp, diff ◀── record, task, folder ──────┘
//! ```

mod changes;
mod checkpoint;
mod copy;
mod create;
mod definition;
mod describe;
mod disk;
mod exec;
mod files;
mod find;
mod home;
pub mod human;
mod image;
mod image_list;
pub mod labels;
mod list;
pub mod logs;
mod lookup;
mod merge;
pub mod names;
mod network;
pub mod parse;
mod prune;
mod remove;
pub mod spec;
mod stats;
mod stop;
mod task;
mod top;
mod update;
mod volume;
mod workload;

pub use berth_rootfs::{Accounts, Identity};
pub use changes::{Change, ChangeKind};
pub use checkpoint::{Afterwards, Checkpoints};
pub use copy::{CopyOptions, Location};
pub use create::{CreateRequest, Created};
pub use definition::{Config, Definition, HostConfig, LogConfig, MountPoint, Network};
pub use describe::{ContainerDocument, State};
pub use disk::{DiskUsage, Part};
pub use exec::Exec;
pub use find::Found;
pub use home::Home;
pub use image::ImageFacts;
pub use image_list::ImageRow;
pub use list::{Row, Status};
pub use network::PortBinding;
pub use prune::Pruned;
pub use remove::RemoveOptions;
pub use spec::ExecOptions;
pub use stats::{Sample, Usage};
pub use task::{ABSENCE, AGAIN, TaskIo};
pub use top::Processes;
pub use volume::Volume;
pub use workload::{Logging, Settings, Unpack, Workload};
