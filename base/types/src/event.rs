//! Events: what happened, in the order in which it happened.

use std::time::SystemTime;

use crate::{Any, Digest, Exit, Labels, Mount, Namespace, RuntimeInfo, Stdio};

/// Where an event belongs, such as `/tasks/exit`: what subscribers filter by.
pub type Topic = String;

/// The streams of a new task, as its event tells them.
pub type ProcessIo = Stdio;

/// An event with its envelope.
#[derive(Clone, Debug, PartialEq)]
pub struct Envelope {
    /// When it happened.
    pub timestamp: SystemTime,
    /// Where it happened.
    pub namespace: Namespace,
    /// What happened.
    pub event: Event,
}

/// What happened. The wire form of each is `containerd.events.*`; `Foreign` is whatever a client
/// published or a shim told that is none of ours.
#[expect(missing_docs, reason = "the fields are containerd's, named as in its events")]
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    ContainerCreate {
        id: String,
        image: String,
        runtime: RuntimeInfo,
    },
    ContainerUpdate {
        id: String,
        image: String,
        labels: Labels,
        snapshot_key: String,
    },
    ContainerDelete {
        id: String,
    },
    ContentCreate {
        digest: Digest,
        size: u64,
    },
    ContentDelete {
        digest: Digest,
    },
    ImageCreate {
        name: String,
        labels: Labels,
    },
    ImageUpdate {
        name: String,
        labels: Labels,
    },
    ImageDelete {
        name: String,
    },
    NamespaceCreate {
        name: String,
        labels: Labels,
    },
    NamespaceUpdate {
        name: String,
        labels: Labels,
    },
    NamespaceDelete {
        name: String,
    },
    SnapshotPrepare {
        key: String,
        parent: String,
        snapshotter: String,
    },
    SnapshotCommit {
        key: String,
        name: String,
        snapshotter: String,
    },
    SnapshotRemove {
        key: String,
        snapshotter: String,
    },
    TaskCreate {
        container_id: String,
        bundle: String,
        rootfs: Vec<Mount>,
        io: ProcessIo,
        checkpoint: String,
        pid: u32,
    },
    TaskStart {
        container_id: String,
        pid: u32,
    },
    TaskDelete {
        container_id: String,
        exec_id: String,
        exit: Exit,
    },
    TaskExit {
        container_id: String,
        exec_id: String,
        exit: Exit,
    },
    TaskOom {
        container_id: String,
    },
    TaskExecAdded {
        container_id: String,
        exec_id: String,
    },
    TaskExecStarted {
        container_id: String,
        exec_id: String,
        pid: u32,
    },
    TaskPaused {
        container_id: String,
    },
    TaskResumed {
        container_id: String,
    },
    TaskCheckpointed {
        container_id: String,
        checkpoint: String,
    },
    Foreign {
        topic: Topic,
        event: Any,
    },
}

impl Event {
    /// The topic under which it is told.
    pub fn topic(&self) -> &str {
        match self {
            Self::ContainerCreate { .. } => "/containers/create",
            Self::ContainerUpdate { .. } => "/containers/update",
            Self::ContainerDelete { .. } => "/containers/delete",
            Self::ContentCreate { .. } => "/content/create",
            Self::ContentDelete { .. } => "/content/delete",
            Self::ImageCreate { .. } => "/images/create",
            Self::ImageUpdate { .. } => "/images/update",
            Self::ImageDelete { .. } => "/images/delete",
            Self::NamespaceCreate { .. } => "/namespaces/create",
            Self::NamespaceUpdate { .. } => "/namespaces/update",
            Self::NamespaceDelete { .. } => "/namespaces/delete",
            Self::SnapshotPrepare { .. } => "/snapshot/prepare",
            Self::SnapshotCommit { .. } => "/snapshot/commit",
            Self::SnapshotRemove { .. } => "/snapshot/remove",
            Self::TaskCreate { .. } => "/tasks/create",
            Self::TaskStart { .. } => "/tasks/start",
            Self::TaskDelete { .. } => "/tasks/delete",
            Self::TaskExit { .. } => "/tasks/exit",
            Self::TaskOom { .. } => "/tasks/oom",
            Self::TaskExecAdded { .. } => "/tasks/exec-added",
            Self::TaskExecStarted { .. } => "/tasks/exec-started",
            Self::TaskPaused { .. } => "/tasks/paused",
            Self::TaskResumed { .. } => "/tasks/resumed",
            Self::TaskCheckpointed { .. } => "/tasks/checkpointed",
            Self::Foreign { topic, .. } => topic,
        }
    }
}
