//! Tasks: containers that run.

use std::collections::BTreeMap;

use async_trait::async_trait;
use berth_types::{
    Any, ContainerId, Descriptor, ExecId, Exit, KillTarget, Metric, Mount, ProcessInfo, ProcessRef,
    ProcessState, Result, Stdio, TerminalSize,
};

use crate::Endpoint;

/// A task to be made.
#[derive(Clone, Debug, PartialEq)]
pub struct CreateTask {
    /// The container whose spec and runtime it takes.
    pub container: ContainerId,
    /// What to mount as its root filesystem; empty if the spec's root is a folder as it is.
    pub rootfs: Vec<Mount>,
    /// Its streams.
    pub stdio: Stdio,
    /// A checkpoint to go on from.
    pub checkpoint: Option<Descriptor>,
    /// Options for the runtime, over those of the container.
    pub options: Option<Any>,
    /// The shim's executable, over the runtime's name.
    pub runtime_path: String,
    /// Who runs its sandbox, and makes the task too; without it the shim of the container's sandbox, or one of its own.
    pub endpoint: Option<Endpoint>,
}

/// One more process for a task.
#[derive(Clone, Debug, PartialEq)]
pub struct ExecProcess {
    /// Which.
    pub process: ProcessRef,
    /// Its streams.
    pub stdio: Stdio,
    /// The OCI process, `types.containerd.io/opencontainers/runtime-spec/1/Process`.
    pub spec: Any,
}

/// New limits for a task.
#[derive(Clone, Debug, PartialEq)]
pub struct UpdateTask {
    /// Whose.
    pub container: ContainerId,
    /// `types.containerd.io/opencontainers/runtime-spec/1/LinuxResources`.
    pub resources: Option<Any>,
    /// Annotations for the runtime.
    pub annotations: BTreeMap<String, String>,
}

/// The tasks of a namespace.
///
/// ```text
///   create ─▶ created ─ start ─▶ running ─ exit ─▶ stopped ─ delete ─▶ gone
///                                 │   ▲
///                           pause └─▶ paused (resume goes back)
/// ```
#[async_trait]
pub trait Tasks: Send + Sync {
    /// Makes a task, up to the moment before the first instruction; answers its pid.
    async fn create(&self, request: CreateTask) -> Result<u32>;

    /// Starts the first process, or an exec; answers its pid.
    async fn start(&self, process: &ProcessRef) -> Result<u32>;

    /// Removes a task that has stopped, with its shim and its bundle.
    async fn delete(&self, container: &ContainerId) -> Result<Exit>;

    /// Removes an exec that has stopped.
    async fn delete_process(&self, container: &ContainerId, exec: &ExecId) -> Result<Exit>;

    /// A process as it is now.
    async fn state(&self, process: &ProcessRef) -> Result<ProcessState>;

    /// The first process of every task.
    async fn list(&self) -> Result<Vec<ProcessState>>;

    /// Sends a signal by its number.
    async fn kill(&self, process: &ProcessRef, signal: u32, target: KillTarget) -> Result<()>;

    /// Adds a process; it runs after [`Tasks::start`].
    async fn exec(&self, request: ExecProcess) -> Result<()>;

    /// Tells a terminal its size.
    async fn resize(&self, process: &ProcessRef, size: TerminalSize) -> Result<()>;

    /// Closes standard input.
    async fn close_stdin(&self, process: &ProcessRef) -> Result<()>;

    /// Every pid in a task.
    async fn pids(&self, container: &ContainerId) -> Result<Vec<ProcessInfo>>;

    /// Freezes a task.
    async fn pause(&self, container: &ContainerId) -> Result<()>;

    /// Goes on after a pause.
    async fn resume(&self, container: &ContainerId) -> Result<()>;

    /// Stores the state of a task as content and describes it.
    async fn checkpoint(
        &self,
        container: &ContainerId,
        parent: Option<&Descriptor>,
        options: Option<Any>,
    ) -> Result<Vec<Descriptor>>;

    /// Changes limits.
    async fn update(&self, request: UpdateTask) -> Result<()>;

    /// What the tasks that pass the filters (`id==…`) use.
    async fn metrics(&self, filters: &[String]) -> Result<Vec<Metric>>;

    /// Waits for the end of a process. The one method without a deadline of its own.
    async fn wait(&self, process: &ProcessRef) -> Result<Exit>;
}
