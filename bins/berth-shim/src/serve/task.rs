//! The tasks of a shim and their processes, as data.
//!
//! ```text
//!  Creating ──► Created ──► Running ◄──► Paused          Creating: not there yet for anybody but its creator
//!                  │           │            │
//!                  └───────────┴────────────┴──► Stopped ──► (deleted)
//! ```

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::Arc;

use berth_proto as proto;
use berth_ttrpc::server::{Call, Responder};
use berth_types::{Error, ErrorKind, Result};
use proto::containerd::v1::types::Status;

use super::Shim;
use crate::children::Exited;
use crate::runtime::{Restore, Runtime};
use crate::stdio::output::Output;
use crate::stdio::{Plan, Streams};
use berth_cgroup::{Cgroup, OomWatch};

/// Names a process: a container's first one has no exec id.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct ProcessKey {
    pub(crate) container: String,
    pub(crate) exec: String,
}

/// Where a process is in its life.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum State {
    #[default]
    Creating,
    Created,
    Running,
    Pausing,
    Paused,
    Stopped,
}

/// A container and what runs in it.
pub(crate) struct Task {
    pub(crate) id: String,
    pub(crate) bundle: PathBuf,
    pub(crate) runtime: Arc<dyn Runtime>,
    pub(crate) owner: crate::stdio::Owner,
    pub(crate) criu_work: String,
    pub(crate) no_pivot_root: bool,
    pub(crate) init: Process,
    pub(crate) execs: BTreeMap<String, Box<Process>>,
    /// Whether the kernel leaves processes behind when the first one ends.
    pub(crate) outlives_init: bool,
    pub(crate) cgroup: Option<Cgroup>,
    pub(crate) oom: Option<(u64, OomWatch)>,
    /// The first process has ended; told when no other runs any more.
    pub(crate) held_exit: Option<Exited>,
    /// The rest is being killed.
    pub(crate) killing_rest: bool,
    /// A checkpoint that [`State::Created`] waits to be started from.
    pub(crate) restore: Option<Box<(Restore, Plan)>>,
}

/// A process.
#[derive(Default)]
pub(crate) struct Process {
    pub(crate) state: State,
    pub(crate) pid: u32,
    pub(crate) streams: Streams,
    pub(crate) exit: Option<Exited>,
    pub(crate) waiters: Vec<Responder>,
    /// One call at a time works on it; the others wait here.
    pub(crate) busy: bool,
    pub(crate) queue: VecDeque<Call>,
    /// Between the order to start and the event that tells of it.
    pub(crate) starting: bool,
    /// An end within that time.
    pub(crate) early_exit: Option<Exited>,
    /// The OCI process of an exec, as JSON, until it is started.
    pub(crate) spec: Vec<u8>,
    /// Streams of its output that have not ended.
    pub(crate) outputs: usize,
    pub(crate) kept: Vec<OwnedFd>,
    pub(crate) stdin: Option<OwnedFd>,
    /// The client has said that no more input comes; it may say so before there is anything to close.
    pub(crate) input_closed: bool,
    pub(crate) console: Option<OwnedFd>,
    pub(crate) logger: Option<Logger>,
    /// The number of its [`Output`] with the shim.
    pub(crate) output: Option<u64>,
    /// What waits for the end of its output.
    pub(crate) when_drained: Option<Continuation>,
}

/// A logging program that runs.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Logger {
    pub(crate) pid: u32,
    /// It has been told to end.
    pub(crate) asked: bool,
}

/// The rest of a call.
pub(crate) type Continuation = Box<dyn FnOnce(&mut Shim)>;

/// An [`Output`] and whose it is.
pub(crate) struct Recorded {
    pub(crate) owner: ProcessKey,
    pub(crate) output: Output,
    /// What is watched for room in the container's input.
    pub(crate) listener: u64,
}

impl State {
    pub(crate) fn wire(self) -> Status {
        match self {
            Self::Creating => Status::Unknown,
            Self::Created => Status::Created,
            Self::Running => Status::Running,
            Self::Pausing => Status::Pausing,
            Self::Paused => Status::Paused,
            Self::Stopped => Status::Stopped,
        }
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Creating => "creating",
            Self::Created => "created",
            Self::Running => "running",
            Self::Pausing => "pausing",
            Self::Paused => "paused",
            Self::Stopped => "stopped",
        })
    }
}

impl ProcessKey {
    pub(crate) fn new(container: &str, exec: &str) -> Self {
        Self { container: container.to_owned(), exec: exec.to_owned() }
    }

    pub(crate) fn is_init(&self) -> bool {
        self.exec.is_empty()
    }

    /// The id by which the process goes on the wire.
    pub(crate) fn id(&self) -> &str {
        if self.is_init() { &self.container } else { &self.exec }
    }
}

impl Task {
    /// The process of an exec id, or the first one.
    pub(crate) fn process(&self, exec: &str) -> Result<&Process> {
        if exec.is_empty() {
            return Ok(&self.init);
        }
        self.execs.get(exec).map(|process| &**process).ok_or_else(|| unknown_process(exec))
    }

    /// The same, to be changed.
    pub(crate) fn process_mut(&mut self, exec: &str) -> Result<&mut Process> {
        if exec.is_empty() {
            return Ok(&mut self.init);
        }
        self.execs.get_mut(exec).map(|process| &mut **process).ok_or_else(|| unknown_process(exec))
    }

    /// Whether an exec runs, or is about to.
    pub(crate) fn has_running_execs(&self) -> bool {
        self.execs.values().any(|process| process.starting || process.state == State::Running)
    }
}

fn unknown_process(exec: &str) -> Error {
    Error::not_found(format!("process does not exist {exec}"))
}

/// A call that the process' state does not allow. containerd's shim gives such errors no kind, so neither do we.
pub(crate) fn wrong_state(what: &str, state: State) -> Error {
    Error::new(ErrorKind::Unknown, format!("cannot {what} a {state} process"))
}
