//! Tasks: the engine that turns a container's record into processes, by way of a shim.
//!
//! A shim is a program, ours or anybody's, that speaks containerd's shim protocol: it is started in a
//! bundle, says where it listens, and serves the task API. It outlives the daemon. This crate makes the
//! bundles, starts and reconnects shims, keeps an owner for every task, tells events and passes on those
//! of shims, and starts containers again that want it.
//!
//! ```text
//!   client ─▶ Tasks ─┬────────────────────────▶ shim ─▶ container
//!                    └─▶ owner of the task ◀──── connection lost, delete
//!   shim ─▶ the daemon's ttrpc socket ─▶ Exchange ─▶ subscribers
//! ```
//!
//! A shim that can host a whole sandbox is a thing of its own, and the containers of that sandbox are tasks of it.
//!
//! It never runs a container itself, never is on the path of a container's streams, never syncs the state
//! folder, and holds no lock while it waits for another process. Everything outside the daemon has a
//! deadline, but for waiting for a process to end. Only the daemon's composition uses it: [`Exchange`]
//! first, then [`Runtime::open`], [`Runtime::recover`], and [`Runtime::restart_monitor`] as a task.

mod blocking;
mod bundle;
mod checkpoint;
mod config;
mod create;
mod engine;
mod exchange;
mod key;
mod mounts;
mod nursery;
mod recover;
mod registry;
mod restart;
mod runtime;
mod sandbox;
mod shim;
mod task;
mod tasks;

pub use config::{Config, Deps, FOLDER, Scoped, ScopedSnapshotter, ShimLog, Timeouts};
pub use exchange::Exchange;
pub use recover::Recovery;
pub use runtime::Runtime;
