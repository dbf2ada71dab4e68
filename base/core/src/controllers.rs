//! Sandboxes that run.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use berth_types::{Any, Exit, Labels, Metric, Mount, Platform, Result, Sandbox, SandboxId, SandboxUpdate};

/// A sandbox to be made.
#[derive(Clone, Debug, PartialEq)]
pub struct CreateSandbox {
    /// Its record.
    pub sandbox: Sandbox,
    /// What it has as a root filesystem of its own, if anything.
    pub rootfs: Vec<Mount>,
    /// What whoever runs it is told; of Kubernetes' pods the request.
    pub options: Option<Any>,
    /// The file that holds its network; empty for the host's.
    pub network: String,
    /// More that whoever runs it is told.
    pub annotations: BTreeMap<String, String>,
}

/// Where somebody serves the task API.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Endpoint {
    /// Such as `ttrpc+unix:///run/sandbox.sock`.
    pub address: String,
    /// Of the task API.
    pub version: u32,
}

/// A sandbox that has just been started.
#[derive(Clone, Debug, PartialEq)]
pub struct SandboxInstance {
    /// A process of it on this host; 0 for none.
    pub pid: u32,
    /// When it came to be.
    pub created_at: SystemTime,
    /// Labels for its record.
    pub labels: Labels,
    /// Where its tasks are made.
    pub endpoint: Option<Endpoint>,
    /// The specification for its record.
    pub spec: Option<Any>,
}

/// A sandbox as it is now.
#[derive(Clone, Debug, PartialEq)]
pub struct SandboxStatus {
    /// A process of it on this host; 0 for none.
    pub pid: u32,
    /// In the words of whoever runs it, of Kubernetes' such as `SANDBOX_READY`; empty when nobody does any more.
    pub state: String,
    /// For people.
    pub info: BTreeMap<String, String>,
    /// When it came to be.
    pub created_at: SystemTime,
    /// When it ended; the beginning of 1970 if it has not.
    pub exited_at: SystemTime,
    /// Whatever else whoever runs it says.
    pub extra: Option<Any>,
    /// Where its tasks are made.
    pub endpoint: Option<Endpoint>,
}

/// The running side of sandboxes, for one namespace.
///
/// ```text
///   create ─▶ created ─ start ─▶ running ─ stop, or its end ─▶ stopped ─ shutdown ─▶ gone
/// ```
/// The records are [`crate::Sandboxes`]; a controller neither makes nor removes them.
#[async_trait]
pub trait SandboxController: Send + Sync {
    /// Makes what containers of it will share. AlreadyExists if it runs.
    async fn create(&self, request: CreateSandbox) -> Result<()>;

    /// Starts one that was made. One that cannot be started is gone.
    async fn start(&self, id: &SandboxId) -> Result<SandboxInstance>;

    /// What its containers run on.
    async fn platform(&self, id: &SandboxId) -> Result<Platform>;

    /// Ends it; one that is gone has ended. `patience` is how long it may take for that by itself.
    async fn stop(&self, id: &SandboxId, patience: Option<Duration>) -> Result<()>;

    /// Waits for its end, without a limit.
    async fn wait(&self, id: &SandboxId) -> Result<Exit>;

    /// How it is; `verbose` says more for people. One that is gone has an empty state.
    async fn status(&self, id: &SandboxId, verbose: bool) -> Result<SandboxStatus>;

    /// Removes it with everything that it had.
    async fn shutdown(&self, id: &SandboxId) -> Result<()>;

    /// What it uses.
    async fn metrics(&self, id: &SandboxId) -> Result<Option<Metric>>;

    /// Tells it that its record has changed.
    async fn update(&self, update: SandboxUpdate) -> Result<()>;
}
