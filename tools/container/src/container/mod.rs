//! A container from its making to its deletion.
//!
//! ```text
//!            create              start            its process ends
//!   (none) ---------> created ---------> running -----------------> stopped --- delete ---> (none)
//!                        |               |    ^                        ^
//!                        |         pause |    | resume                 |
//!                        |               v    |                        |
//!                        |               paused                        |
//!                        +--------------- kill ------------------------+
//! ```
//!
//! Whoever calls [`Container::create`] is the parent of the container's first process, and reaps it;
//! every other operation works from any process, through [`Container::load`]. All of it blocks, for
//! milliseconds; nothing starts threads.

mod request;

use std::os::fd::{BorrowedFd, OwnedFd};
use std::path::Path;

use berth_oci::runtime::{Process, Resources, Spec, State, Status};

pub use self::request::{
    CgroupDriver, Create, Deletion, Exec, Execed, Keyring, Made, RootSwitch, Stdio, Target,
};
use crate::error::{Error, Result};
use crate::oom::OomEvents;
use crate::stats::Stats;

/// A container: a folder below the state root, a first process, a cgroup.
#[derive(Debug)]
pub struct Container {
    spec: Spec,
    id: String,
}

impl Container {
    /// Makes a container and its first process, which waits for [`Container::start`].
    ///
    /// On failure nothing is left behind. May be called from a process with threads: what runs in the
    /// new process until its program starts neither allocates nor takes locks (see [`crate::child`]).
    /// The caller's SIGCHLD handling is not touched; if it reaps every child (`waitpid(-1)`), it must
    /// expect the process of a failed creation among them.
    pub fn create(create: Create) -> Result<Made> {
        Err(Error::NotFound { id: create.id })
    }

    /// Finds container `id` below the state root `root`.
    pub fn load(root: &Path, id: &str) -> Result<Self> {
        Err(Error::NotFound { id: format!("{}/{id}", root.display()) })
    }

    /// The names of the containers below the state root, sorted.
    pub fn list(root: &Path) -> Result<Vec<String>> {
        Err(Error::NotFound { id: format!("{}", root.display()) })
    }

    /// Lets the user's program run. When this process made the container, it returns once the
    /// program runs, or with the reason why it cannot; otherwise once it was told to.
    pub fn start(&mut self) -> Result<()> {
        Err(Error::NotFound { id: self.id.clone() })
    }

    /// Runs another process in the container. It runs its program when this returns.
    pub fn exec(&mut self, exec: Exec) -> Result<Execed> {
        drop(exec);
        Err(Error::NotFound { id: self.id.clone() })
    }

    /// The process that runc's `exec COMMAND` runs unless told otherwise: the configured one's user,
    /// capabilities, environment and directory with other arguments.
    pub fn default_process(&self, args: &[String]) -> Process {
        Process { args: args.to_vec(), ..self.spec.process.clone().unwrap_or_default() }
    }

    /// Sends a signal. [`Error::Finished`] when there is nobody to receive it.
    pub fn kill(&self, signal: i32, target: Target) -> Result<()> {
        let _ = (signal, target);
        Err(Error::Finished)
    }

    /// Removes what is left of the container: processes, cgroup, state; runs its poststop hooks.
    /// Returns what could not be done but is no reason to keep it.
    pub fn delete(self, deletion: Deletion) -> Result<Vec<String>> {
        let _ = deletion;
        Err(Error::NotFound { id: self.id })
    }

    /// Its name.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// The configuration it was made from.
    pub fn spec(&self) -> &Spec {
        &self.spec
    }

    /// Its first process on the host, as long as the container is not stopped.
    pub fn pid(&self) -> Option<i32> {
        None
    }

    /// A pidfd of its first process, when this process made the container.
    pub fn pidfd(&self) -> Option<BorrowedFd<'_>> {
        None
    }

    /// When it was made: RFC 3339 with nanoseconds, UTC.
    pub fn created(&self) -> &str {
        ""
    }

    /// Where it is in its life, asked of the kernel.
    pub fn status(&self) -> Result<Status> {
        Err(Error::NotFound { id: self.id.clone() })
    }

    /// Its state as the specification has it.
    pub fn state(&self) -> Result<State> {
        Err(Error::NotFound { id: self.id.clone() })
    }

    /// All processes in its cgroup, on the host.
    pub fn pids(&self) -> Result<Vec<i32>> {
        Err(Error::NotFound { id: self.id.clone() })
    }

    /// Freezes all its processes.
    pub fn pause(&self) -> Result<()> {
        Err(Error::NotFound { id: self.id.clone() })
    }

    /// Lets frozen processes go on.
    pub fn resume(&self) -> Result<()> {
        Err(Error::NotFound { id: self.id.clone() })
    }

    /// Changes limits; what is absent stays as it is.
    pub fn update(&mut self, resources: &Resources) -> Result<()> {
        let _ = resources;
        Err(Error::NotFound { id: self.id.clone() })
    }

    /// What it has used.
    pub fn stats(&self) -> Result<Stats> {
        Err(Error::NotFound { id: self.id.clone() })
    }

    /// A descriptor that becomes readable when the kernel killed something in it for memory.
    pub fn oom_events(&self) -> Result<OomEvents> {
        Err(Error::NotFound { id: self.id.clone() })
    }
}

/// Keeps a descriptor alive.
#[expect(dead_code, reason = "filled in by create")]
struct Pidfd(OwnedFd);
