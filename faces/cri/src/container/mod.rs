//! Containers of pods.
//!
//! ```text
//!            create              start               exit                remove
//!   nothing ───────▶ created ─────────▶ running ─────────▶ exited ─────────────▶ nothing
//!                       │ start fails                        ▲
//!                       └────────────────────────────────────┘
//! ```
//! The record in the store of containers holds the request, and what became of it under an extension. While a
//! container runs, somebody waits for its end ([`exit`]); nobody else writes its exit.

mod checkpoint;
mod create;
pub(crate) mod exec;
mod exit;
mod image_mounts;
mod list;
mod log;
mod recover;
mod relay;
mod remove;
mod start;
mod status;
mod stop;
mod update;
mod user;

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use berth_core::{Containers, Tasks};
use berth_oci::runtime::Process;
use berth_proto::runtime::v1 as proto;
use berth_rootfs::Identity;
use berth_types::{
    Any, Container as Record, ContainerId, ContainerUpdate, Error, FieldMask, ProcessRef, Result,
};
use proto::ContainerState;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use crate::Cri;
use crate::stats::Measured;
use crate::table::Item;

pub(crate) use update::Change;

/// Where a record keeps the request, what its image was, and what became of it.
const CONFIG: &str = "io.berth.cri.container.config";
const ORIGIN: &str = "io.berth.cri.container.origin";
const LIFE: &str = "io.berth.cri.container.life";

/// A container.
#[derive(Debug)]
pub(crate) struct Container {
    /// Its id.
    pub(crate) id: ContainerId,
    name: String,
    /// The id of its pod.
    pub(crate) pod: String,
    /// What was asked for.
    pub(crate) config: proto::ContainerConfig,
    /// What it was made from.
    pub(crate) origin: Origin,
    /// When it was made.
    pub(crate) created_at: SystemTime,
    /// What outlives the machine's start.
    root: PathBuf,
    life: watch::Sender<Life>,
    limits: Mutex<Option<proto::LinuxContainerResources>>,
    /// How large what it has written is.
    pub(crate) measured: Measured,
    /// Its process as it was specified, read when the first command is run in it.
    process: tokio::sync::OnceCell<Process>,
    /// Held by whoever starts or removes it.
    pub(crate) work: tokio::sync::Mutex<()>,
}

/// What a container was made from.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Origin {
    /// The id of its image.
    pub(crate) image: String,
    /// The image by its repository and digest; the id if it has none.
    pub(crate) image_ref: String,
    /// Who it runs as.
    pub(crate) user: Identity,
    /// The signal that asks it to end.
    pub(crate) stop_signal: u32,
    /// Where its log is.
    pub(crate) log: String,
    /// The snapshots of images that are mounted in it, by where.
    pub(crate) image_mounts: Vec<(String, String)>,
}

/// What became of a container. Times are nanoseconds since 1970, 0 for not yet.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Life {
    /// When it was started.
    pub(crate) started_at: i64,
    /// When it ended, or could not be started.
    pub(crate) finished_at: i64,
    /// How it ended.
    pub(crate) exit_code: i32,
    /// In a word.
    pub(crate) reason: String,
    /// For people.
    pub(crate) message: String,
    /// The pid of its first process while it runs.
    #[serde(skip)]
    pub(crate) pid: u32,
}

impl Item for Container {
    const KIND: &'static str = "container";

    fn id(&self) -> &str {
        self.id.as_str()
    }

    fn name(&self) -> &str {
        &self.name
    }
}

impl Life {
    /// Its state in the words of the CRI.
    pub(crate) fn state(&self) -> ContainerState {
        if self.finished_at != 0 {
            ContainerState::ContainerExited
        } else if self.started_at != 0 {
            ContainerState::ContainerRunning
        } else {
            ContainerState::ContainerCreated
        }
    }
}

impl Container {
    /// What became of it so far.
    pub(crate) fn life(&self) -> Life {
        self.life.borrow().clone()
    }

    /// What a user calls it.
    pub(crate) fn title(&self) -> String {
        self.config.metadata.clone().unwrap_or_default().name
    }

    /// Whether it runs.
    pub(crate) fn is_running(&self) -> bool {
        self.life().state() == ContainerState::ContainerRunning
    }

    /// Whether it has ended, or could not be started.
    pub(crate) fn has_ended(&self) -> bool {
        self.life().state() == ContainerState::ContainerExited
    }

    /// The folder of its task, in which its shim listens.
    pub(crate) fn bundle(&self, bundles: &Path) -> PathBuf {
        bundles.join(self.id.as_str())
    }

    /// Its first process.
    pub(crate) fn process(&self) -> ProcessRef {
        ProcessRef::init(self.id.clone())
    }

    /// What was asked for on Linux.
    pub(crate) fn linux(&self) -> proto::LinuxContainerConfig {
        self.config.linux.clone().unwrap_or_default()
    }

    /// The limits that it has now.
    pub(crate) fn limits(&self) -> Option<proto::LinuxContainerResources> {
        let changed = self.limits.lock().unwrap_or_else(PoisonError::into_inner).clone();
        changed.or_else(|| self.linux().resources)
    }

    /// An error unless it runs.
    pub(crate) fn must_run(&self) -> Result<()> {
        let state = self.life().state();
        if state == ContainerState::ContainerRunning {
            return Ok(());
        }
        let state = state.as_str_name().trim_start_matches("CONTAINER_").to_lowercase();
        Err(Error::failed_precondition(format!("container {} is not running: it is {state}", self.id)))
    }
}

fn json<T: Serialize>(kind: &str, value: &T) -> Result<Any> {
    let bytes = serde_json::to_vec(value).map_err(|error| {
        Error::internal("what is known of a container cannot be written").caused_by(error)
    })?;
    Ok(Any::new(kind, bytes))
}

impl Cri {
    /// The container that a request means.
    pub(crate) fn container(&self, id: &str) -> Result<Arc<Container>> {
        self.containers.find(id)
    }

    /// A pod's containers.
    pub(crate) fn containers_of(&self, pod: &str) -> Vec<Arc<Container>> {
        self.containers.all().into_iter().filter(|container| container.pod == pod).collect()
    }

    pub(crate) fn containers_store(&self) -> Arc<dyn Containers> {
        self.catalog.containers(&self.scope)
    }

    pub(crate) fn tasks(&self) -> Arc<dyn Tasks> {
        self.catalog.tasks(&self.scope)
    }

    /// Stores what became of a container, and then tells whoever waits.
    async fn change_life(&self, container: &Container, life: Life) -> Result<()> {
        let stored = self.store_life(container, &life).await;
        container.life.send_replace(life);
        stored
    }

    async fn store_life(&self, container: &Container, life: &Life) -> Result<()> {
        self.store(container, LIFE, json(LIFE, life)?).await
    }

    async fn store(&self, container: &Container, key: &str, value: Any) -> Result<()> {
        let mut record = Record::new(container.id.clone(), berth_types::RuntimeInfo::default());
        record.extensions.insert(key.to_owned(), value);
        let mask = FieldMask::new([format!("extensions.{key}")]);
        self.containers_store().update(ContainerUpdate { container: record, mask }).await.map(drop)
    }
}
