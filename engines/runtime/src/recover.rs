//! What a new daemon finds of the one before it.
//!
//! Every bundle's shim is asked at once, each under its own deadline. There are three answers, and only
//! one of them costs a container its life:
//!
//! ```text
//!   alive    it answers: the task goes on, or its exit code is kept
//!   gone     nobody listens at its address: cleaned up after, TaskExit and TaskDelete are told
//!   unknown  it neither answers nor is gone: the task is there, and its owner keeps asking
//! ```

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use berth_core::Scope;
use berth_proto as proto;
use berth_types::{Error, ErrorKind, Exit, Result};
use futures::future::join_all;
use proto::containerd::task::v3 as wire;
use proto::containerd::v1::types::Status;

use crate::blocking::blocking;
use crate::bundle::{self, Bundle};
use crate::config::Of;
use crate::engine::Engine;
use crate::shim::{Answer, CallError, ConnectError, Shim};
use crate::task::{Parts, Task};

/// How many shims were found in which way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Recovery {
    /// Shims that answered.
    pub alive: usize,
    /// Shims that are gone and were cleaned up after.
    pub gone: usize,
    /// Shims that may be there; asking goes on.
    pub unknown: usize,
}

/// What a look at a bundle's shim shows.
pub(crate) enum Look {
    Alive {
        shim: Shim,
        state: wire::StateResponse,
    },
    /// The shim is there and has no such task: a daemon ended while it made one.
    Empty(Shim),
    Gone(String),
    /// With the connection, where there is one.
    Unknown(String),
}

enum Found {
    Alive,
    Gone,
    /// Cleaning up after it is under way.
    Buried(Arc<Task>),
    Unknown,
}

/// How long a daemon's start waits for the cleaning up after shims that are gone, and for each shim's
/// first answer: a daemon that is up late is worse than a task that is known late.
pub(crate) const PATIENCE: Duration = Duration::from_secs(3);

/// What it means that a shim cannot be reached, and why.
pub(crate) enum Silence {
    /// It has ended.
    Gone(String),
    /// It may live.
    Unknown(String),
}

impl Engine {
    /// Takes up every task that the state folder knows.
    pub(crate) async fn recover(self: &Arc<Self>) -> Result<Recovery> {
        let config = Arc::clone(&self.config);
        let bundles = blocking(move || {
            if let Err(error) = bundle::finish_removals(&config) {
                tracing::warn!("what the last daemon was removing is left: {}", error.chain());
            }
            Ok((bundle::list(&config, Of::Sandbox)?, bundle::list(&config, Of::Task)?))
        });
        let (sandboxes, bundles) = bundles.await?;
        join_all(sandboxes.into_iter().map(|bundle| self.take_up_sandbox(bundle))).await;
        let found = join_all(bundles.into_iter().map(|bundle| self.take_up(bundle))).await;
        let (mut recovery, mut buried) = (Recovery::default(), Vec::new());
        for found in found {
            match found {
                Found::Alive => recovery.alive += 1,
                Found::Gone => recovery.gone += 1,
                Found::Buried(task) => {
                    recovery.gone += 1;
                    buried.push(task);
                }
                Found::Unknown => recovery.unknown += 1,
            }
        }
        // What is not done by then goes on beside the daemon's work.
        let _ = tokio::time::timeout(PATIENCE, join_all(buried.iter().map(|task| task.gone()))).await;
        self.remove_stale_works().await?;
        Ok(recovery)
    }

    async fn take_up(self: &Arc<Self>, bundle: Bundle) -> Found {
        let key = bundle.key().clone();
        let Ok(reservation) = self.registry.reserve(&key) else { return Found::Alive };
        let Some(program) = self.program_of(&bundle).await else {
            tracing::warn!(task = %key, "its shim's program is unknown; removing what is left of it");
            self.remove(&bundle).await;
            return Found::Gone;
        };
        let hosted = bundle.is_hosted();
        match self.look(&bundle).await {
            Look::Alive { shim, state } => {
                let log = self.follow_old_log(&bundle).await;
                let parts = Parts { bundle, program, hosted, pid: state.pid, shim: Some(shim), log };
                let (task, owner) = Task::new(Arc::clone(self), parts);
                if state.status == Status::Stopped as i32 {
                    task.note_exit(exit_of(&state));
                }
                reservation.fill(task);
                self.nursery.spawn(owner.run());
                Found::Alive
            }
            Look::Empty(shim) => {
                tracing::info!(task = %key, "ending a shim that was started for nothing");
                self.abandon(&shim, &bundle, &program, hosted).await;
                self.remove(&bundle).await;
                Found::Gone
            }
            Look::Gone(why) => {
                tracing::info!(task = %key, why, "the shim is gone");
                let parts = Parts { bundle, program, hosted, pid: 0, shim: None, log: None };
                let (task, owner) = Task::new(Arc::clone(self), parts);
                reservation.fill(Arc::clone(&task));
                self.nursery.spawn(owner.bury());
                Found::Buried(task)
            }
            Look::Unknown(why) => {
                tracing::warn!(task = %key, why, "the shim does not answer; it is left alone and asked again");
                let log = self.follow_old_log(&bundle).await;
                let (task, owner) =
                    Task::new(Arc::clone(self), Parts { bundle, program, hosted, pid: 0, shim: None, log });
                reservation.fill(task);
                self.nursery.spawn(owner.run());
                Found::Unknown
            }
        }
    }

    /// Connects to the shim of a bundle that an earlier daemon has left.
    pub(crate) async fn reach(&self, bundle: &Bundle) -> Result<Shim, Silence> {
        let read = bundle.clone();
        let answer = match blocking(move || read_answer(&read)).await {
            Ok(Some(answer)) => answer,
            Ok(None) => {
                // It, or what was to start it, may be there all the same.
                self.end_stray(bundle).await;
                return Err(Silence::Gone("it never said where it listens".into()));
            }
            Err(error) => return Err(Silence::Unknown(error.chain())),
        };
        let limit = self.config.timeouts.load.min(PATIENCE);
        self.connections.connect(bundle.key(), &answer, limit).await.map_err(|error| match error {
            ConnectError::Gone(error) => Silence::Gone(error.to_string()),
            error => Silence::Unknown(Error::unknown("no connection").caused_by(error).chain()),
        })
    }

    /// Looks whether a bundle's shim lives.
    pub(crate) async fn look(&self, bundle: &Bundle) -> Look {
        let shim = match self.reach(bundle).await {
            Ok(shim) => shim,
            Err(Silence::Gone(why)) => return Look::Gone(why),
            Err(Silence::Unknown(why)) => return Look::Unknown(why),
        };
        match self.state_within(&shim, bundle).await {
            Ok(state) => Look::Alive { shim, state },
            Err(CallError::Closed) => Look::Gone("it closed the connection".into()),
            Err(error) if error.is_not_found() => Look::Empty(shim),
            Err(error) => Look::Unknown(error.to_string()),
        }
    }

    async fn state_within(&self, shim: &Shim, bundle: &Bundle) -> Result<wire::StateResponse, CallError> {
        let request = wire::StateRequest { id: bundle.key().id.to_string(), exec_id: String::new() };
        shim.call("State", request, Some(self.config.timeouts.load.min(PATIENCE))).await
    }

    /// The shim's program, from the bundle, else from the container's record.
    pub(crate) async fn program_of(&self, bundle: &Bundle) -> Option<PathBuf> {
        let read = bundle.clone();
        let written = blocking(move || read.read("shim-binary-path")).await;
        if let Ok(Some(path)) = written {
            let path = String::from_utf8(path).ok()?;
            return self.programs.resolve(path.trim()).ok().or_else(|| Some(PathBuf::from(path.trim())));
        }
        let key = bundle.key();
        let scope = Scope::new(key.namespace.clone());
        let record = (self.deps.containers)(&scope).container(&key.id).await;
        match record {
            Ok(container) => self.programs.resolve(&container.runtime.name).ok(),
            Err(error) => {
                if error.kind() != ErrorKind::NotFound {
                    tracing::error!(task = %key, "cannot read its container: {}", error.chain());
                }
                None
            }
        }
    }

    pub(crate) async fn follow_old_log(&self, bundle: &Bundle) -> Option<tokio::task::AbortHandle> {
        let made = bundle.clone();
        let made = blocking(move || made.ensure_log().map_err(|source| Error::io("no log", source))).await;
        made.ok().and_then(|_| self.follow_log(bundle))
    }

    pub(crate) async fn remove(&self, bundle: &Bundle) {
        let removed = bundle.clone();
        if let Err(error) = blocking(move || removed.delete()).await {
            tracing::error!(task = %bundle.key(), "cannot remove the bundle: {}", error.chain());
        }
        self.deactivate(bundle.key()).await;
    }

    /// Removes work folders whose bundles went with a reboot.
    async fn remove_stale_works(&self) -> Result<()> {
        let config = Arc::clone(&self.config);
        let (tasks, sandboxes) = (self.registry.clone(), self.sandboxes.clone());
        blocking(move || {
            let mut works = bundle::works(&config, Of::Task)?;
            works.retain(|(key, _)| !tasks.knows(key));
            let mut more = bundle::works(&config, Of::Sandbox)?;
            more.retain(|(key, _)| !sandboxes.knows(key));
            for (_, path) in works.into_iter().chain(more) {
                if let Err(error) = std::fs::remove_dir_all(&path) {
                    tracing::error!("cannot remove {}: {error}", path.display());
                }
            }
            Ok(())
        })
        .await
    }
}

/// How to reach a bundle's shim: what this or another 2.x daemon wrote, or what a 1.x shim wrote.
pub(crate) fn read_answer(bundle: &Bundle) -> Result<Option<Answer>> {
    if let Some(bytes) = bundle.read("bootstrap.json")? {
        return Answer::parse(&bytes).map(Some);
    }
    let address = bundle.read("address")?;
    Ok(address.and_then(|bytes| String::from_utf8(bytes).ok()).map(|address| Answer::bare(&address)))
}

/// How a process that has stopped ended.
pub(crate) fn exit_of(state: &wire::StateResponse) -> Exit {
    Exit { pid: state.pid, status: state.exit_status, at: proto::convert::time(state.exited_at) }
}
