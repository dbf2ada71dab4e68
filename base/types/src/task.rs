//! Tasks and their processes as clients see them.

use std::fmt;
use std::time::SystemTime;

use crate::{Any, ContainerId, ExecId};

/// Where a process's streams go: paths of fifos or log URIs, empty for none.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stdio {
    /// Standard input.
    pub stdin: String,
    /// Standard output; the terminal's output if there is one.
    pub stdout: String,
    /// Standard error; empty with a terminal.
    pub stderr: String,
    /// Whether the process has a terminal.
    pub terminal: bool,
}

/// The first process of a task, or one more that was put into it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ProcessRef {
    /// The task.
    pub container: ContainerId,
    /// The additional process, or none for the first.
    pub exec: Option<ExecId>,
}

impl ProcessRef {
    /// The first process of a task.
    pub fn init(container: ContainerId) -> Self {
        Self { container, exec: None }
    }

    /// An additional process of a task.
    pub fn exec(container: ContainerId, exec: ExecId) -> Self {
        Self { container, exec: Some(exec) }
    }

    /// The exec id, empty for the first process, as the wire has it.
    pub fn exec_id(&self) -> &str {
        self.exec.as_ref().map_or("", ExecId::as_str)
    }
}

impl fmt::Display for ProcessRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.exec {
            None => write!(f, "task {}", self.container),
            Some(exec) => write!(f, "process {exec} of task {}", self.container),
        }
    }
}

/// Where a process is in its life.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ProcessStatus {
    /// Its shim does not say.
    #[default]
    Unknown,
    /// Made, not yet running.
    Created,
    /// Running.
    Running,
    /// Ended; its exit is kept until it is deleted.
    Stopped,
    /// Frozen.
    Paused,
    /// About to be frozen.
    Pausing,
}

/// A process as its shim reports it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProcessState {
    /// Which process.
    pub process: ProcessRef,
    /// Its pid in the daemon's namespace, 0 before there is one.
    pub pid: u32,
    /// Where it is in its life.
    pub status: ProcessStatus,
    /// Its streams.
    pub stdio: Stdio,
    /// Its end, when stopped.
    pub exit: Option<Exit>,
}

/// How a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Exit {
    /// The pid that it had.
    pub pid: u32,
    /// The exit status, 128 + n for a signal.
    pub status: u32,
    /// When.
    pub at: SystemTime,
}

/// A pid in a task, with what the runtime knows of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProcessInfo {
    /// The pid in the daemon's namespace.
    pub pid: u32,
    /// `containerd.runc.v1.ProcessDetails` for an exec, otherwise nothing.
    pub info: Option<Any>,
}

/// Whom a signal is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KillTarget {
    /// The one process.
    Process,
    /// Every process of the task.
    All,
}

/// The size of a terminal, in characters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TerminalSize {
    /// Columns.
    pub width: u32,
    /// Rows.
    pub height: u32,
}

/// What a task used, in the runtime's own type.
#[derive(Clone, Debug, PartialEq)]
pub struct Metric {
    /// Whose.
    pub id: ContainerId,
    /// When it was read.
    pub timestamp: SystemTime,
    /// `io.containerd.cgroups.v1.Metrics`, `io.containerd.cgroups.v2.Metrics` or a shim's own.
    pub data: Option<Any>,
}
