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

mod birth;
pub(crate) mod conversation;
pub(crate) mod create;
mod exec;
pub(crate) mod hooks;
mod life;
pub(crate) mod moment;
pub(crate) mod process;
mod rdt;
pub(crate) mod record;
mod request;

use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::path::Path;

use berth_cgroup::{Metrics, OomWatch};
use berth_oci::runtime::{OCI_VERSION, Process, Resources, Spec, State, Status};

use self::record::{Folder, Record};
pub use self::request::{
    CgroupDriver, Create, Deletion, Exec, Execed, Keyring, Made, RootSwitch, Stdio, Target,
};
use crate::checkpoint::{self, Checkpoint, Restore};
use crate::error::{Doing as _, Result};

/// A container: a folder below the state root, a first process, a cgroup.
#[derive(Debug)]
pub struct Container {
    folder: Folder,
    record: Record,
    /// Of the first process, when this process made it.
    pidfd: Option<OwnedFd>,
    /// To the first process until its program runs.
    socket: Option<OwnedFd>,
}

impl Container {
    /// Makes a container and its first process, which waits for [`Container::start`].
    ///
    /// On failure nothing is left behind. May be called from a process with threads: what runs in the
    /// new process until its program starts neither allocates nor takes locks. The caller's SIGCHLD
    /// handling is not touched; if it reaps every child (`waitpid(-1)`), it must expect the process of
    /// a failed creation among them.
    pub fn create(create: Create) -> Result<Made> {
        create::create(create)
    }

    /// Brings a container back from a checkpoint. Its processes run when this returns, the first one as a child of
    /// the caller. On failure nothing is left behind. Needs the program `criu`.
    pub fn restore(restore: Restore) -> Result<Made> {
        checkpoint::restore(restore)
    }

    pub(crate) fn restored(folder: Folder, record: Record, pidfd: Option<OwnedFd>) -> Self {
        Self { folder, record, pidfd, socket: None }
    }

    /// Finds container `id` below the state root `root`.
    pub fn load(root: &Path, id: &str) -> Result<Self> {
        let folder = Folder::of(root, id)?;
        let record = folder.read(id)?;
        Ok(Self { folder, record, pidfd: None, socket: None })
    }

    /// Removes what a creation that was cut off left of container `id`, for which [`Container::load`]
    /// finds nothing. `false` when there is nothing, or a whole container.
    pub fn sweep(root: &Path, id: &str) -> Result<bool> {
        let folder = Folder::of(root, id)?;
        if !folder.path().is_dir() || folder.read(id).is_ok() {
            return Ok(false);
        }
        folder.remove().map(|()| true)
    }

    /// The names of the containers below the state root, sorted. None when the root does not exist.
    pub fn list(root: &Path) -> Result<Vec<String>> {
        let entries = match std::fs::read_dir(root) {
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
            done => done.doing(|| format!("cannot read {}", root.display()))?,
        };
        let name = |entry: std::fs::DirEntry| {
            let name = entry.file_name().into_string().ok()?;
            entry.path().join("state.json").exists().then_some(name)
        };
        let mut names: Vec<_> = entries.filter_map(std::result::Result::ok).filter_map(name).collect();
        names.sort();
        Ok(names)
    }

    /// Lets the user's program run. When this process made the container, it returns once the
    /// program runs, or with the reason why it cannot; otherwise once it was told to.
    pub fn start(&mut self) -> Result<Vec<String>> {
        life::start(self)
    }

    /// Runs another process in the container. It runs its program when this returns.
    pub fn exec(&mut self, exec: Exec) -> Result<Execed> {
        exec::exec(self, exec)
    }

    /// The process that runc's `exec COMMAND` runs unless told otherwise: the configured one's user,
    /// capabilities, environment and directory with other arguments.
    pub fn default_process(&self, args: &[String]) -> Process {
        let configured = self.record.spec.process.clone().unwrap_or_default();
        Process { args: args.to_vec(), terminal: false, console_size: None, ..configured }
    }

    /// Sends a signal. [`crate::Error::Finished`] when there is nobody to receive it.
    pub fn kill(&self, signal: i32, target: Target) -> Result<()> {
        life::kill(self, signal, target)
    }

    /// Removes what is left of the container: processes, cgroup, state; runs its poststop hooks.
    /// Returns what could not be done but is no reason to keep it.
    pub fn delete(self, deletion: Deletion) -> Result<Vec<String>> {
        life::delete(self, deletion)
    }

    /// Its name.
    pub fn id(&self) -> &str {
        &self.record.id
    }

    /// The configuration it was made from.
    pub fn spec(&self) -> &Spec {
        &self.record.spec
    }

    /// Its bundle.
    pub fn bundle(&self) -> &Path {
        &self.record.bundle
    }

    /// Its first process on the host, as long as the container is not stopped.
    pub fn pid(&self) -> Option<i32> {
        process::runs(self.record.pid, self.record.start_time).then_some(self.record.pid)
    }

    /// The number that its first process has or had.
    pub fn first_pid(&self) -> i32 {
        self.record.pid
    }

    /// A pidfd of its first process, when this process made the container.
    pub fn pidfd(&self) -> Option<BorrowedFd<'_>> {
        self.pidfd.as_ref().map(|fd| fd.as_fd())
    }

    /// When it was made: RFC 3339 with nanoseconds, UTC.
    pub fn created(&self) -> &str {
        &self.record.created
    }

    /// Where it is in its life, asked of the kernel.
    pub fn status(&self) -> Result<Status> {
        if self.pid().is_none() {
            return Ok(Status::Stopped);
        }
        Ok(if self.record.cgroup.is_frozen() {
            Status::Paused
        } else if self.folder.gate().exists() {
            Status::Created
        } else {
            Status::Running
        })
    }

    /// Its state as the specification has it.
    pub fn state(&self) -> Result<State> {
        Ok(self.state_with(self.status()?))
    }

    fn state_with(&self, status: Status) -> State {
        State {
            oci_version: OCI_VERSION.into(),
            id: self.record.id.clone(),
            status,
            pid: if status == Status::Stopped { 0 } else { self.record.pid },
            bundle: self.record.bundle.to_string_lossy().into_owned(),
            annotations: self.record.spec.annotations.clone(),
        }
    }

    /// All processes in its cgroup, on the host.
    pub fn pids(&self) -> Result<Vec<i32>> {
        self.record.cgroup.pids()
    }

    /// Freezes all its processes.
    pub fn pause(&self) -> Result<()> {
        life::pause(self)
    }

    /// Saves its processes into files. Needs the program `criu`; takes as long as writing their memory does.
    pub fn checkpoint(&self, request: &Checkpoint) -> Result<()> {
        life::checkpoint(self, request)
    }

    /// Lets frozen processes go on.
    pub fn resume(&self) -> Result<()> {
        life::resume(self)
    }

    /// Changes limits; what is absent stays as it is.
    pub fn update(&mut self, resources: &Resources) -> Result<Vec<String>> {
        life::update(self, resources)
    }

    /// What it has used.
    pub fn stats(&self) -> Result<Metrics> {
        self.record.cgroup.accounts().metrics().doing(|| "cannot read the container's cgroup")
    }

    /// A descriptor that becomes readable when the kernel killed something in it for memory.
    pub fn watch_oom(&self) -> Result<OomWatch> {
        self.record.cgroup.accounts().watch_oom().doing(|| "cannot watch the container's memory cgroup")
    }
}
