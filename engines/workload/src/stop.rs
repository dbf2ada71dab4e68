//! Ending: signals, pauses, and waits with a limit.

use std::time::Duration;

use berth_types::{ErrorKind, Exit, KillTarget, ProcessRef, ProcessStatus, Result};

use crate::parse::{self, RestartName};
use crate::task::not_running;
use crate::{Found, Workload};

/// How long a container has to end by itself unless it says otherwise.
const PATIENCE: i64 = 10;
/// How long the kernel has to end what was killed.
const KILLED: Duration = Duration::from_secs(30);

impl Workload {
    /// Asks a container to end, and makes it end when it does not within `timeout` seconds (-1 for ever).
    /// One that does not run is fine.
    pub async fn stop(&self, found: &Found, signal: Option<u32>, timeout: Option<i64>) -> Result<()> {
        let definition = found.definition()?;
        let id = &found.container.id;
        if definition.host.restart_policy.name != RestartName::No {
            self.keep_at(id, "stopped").await?;
        }
        let Some(state) = self.task_state(id).await? else { return Ok(()) };
        if state.status == ProcessStatus::Stopped {
            return Ok(());
        }
        let signal = match (signal, definition.config.stop_signal.as_str()) {
            (Some(signal), _) => signal,
            (None, "") => 15,
            (None, own) => parse::signal(own)?,
        };
        let timeout = timeout.or(definition.config.stop_timeout).unwrap_or(PATIENCE);
        let tasks = self.catalog.tasks(&self.scope);
        let process = ProcessRef::init(id.clone());
        if timeout != 0 && state.status != ProcessStatus::Created {
            if gone(tasks.kill(&process, signal, KillTarget::Process).await)? {
                return Ok(());
            }
            if state.status == ProcessStatus::Paused {
                // What is frozen hears nothing.
                tasks.resume(id).await?;
            }
            let waited = tasks.wait(&process);
            let ended = match u64::try_from(timeout) {
                Ok(seconds) => tokio::time::timeout(Duration::from_secs(seconds), waited).await.ok(),
                Err(_) => Some(waited.await),
            };
            if let Some(exit) = ended {
                return gone(exit.map(drop)).map(drop);
            }
        }
        self.force_end(found, state.status).await
    }

    /// Ends a container now and waits for that.
    pub(crate) async fn force_end(&self, found: &Found, status: ProcessStatus) -> Result<()> {
        let tasks = self.catalog.tasks(&self.scope);
        let process = ProcessRef::init(found.container.id.clone());
        if gone(tasks.kill(&process, 9, KillTarget::All).await)? {
            return Ok(());
        }
        if status == ProcessStatus::Paused {
            // On cgroup v1 even SIGKILL waits for the thaw. Where it is dead already there is nothing to thaw.
            let _ = tasks.resume(&found.container.id).await;
        }
        match tokio::time::timeout(KILLED, tasks.wait(&process)).await {
            Ok(exit) => gone(exit.map(drop)).map(drop),
            Err(_) => Err(berth_types::Error::deadline_exceeded(format!(
                "container {} was killed and did not end: a process of it may hang in the kernel",
                found.name()
            ))),
        }
    }

    /// Sends a signal to a container that runs.
    pub async fn kill(&self, found: &Found, signal: u32) -> Result<()> {
        let id = &found.container.id;
        let refused =
            || not_running(found.name()).context(format!("cannot kill container: {}", found.name()));
        match self.task_state(id).await? {
            Some(state) if matches!(state.status, ProcessStatus::Running | ProcessStatus::Paused) => {}
            _ => return Err(refused()),
        }
        if found.definition()?.host.restart_policy.name != RestartName::No && matches!(signal, 9 | 15) {
            self.keep_at(id, "stopped").await?;
        }
        let process = ProcessRef::init(id.clone());
        let sent = self.catalog.tasks(&self.scope).kill(&process, signal, KillTarget::Process).await;
        if gone(sent)? { Err(refused()) } else { Ok(()) }
    }

    /// Stops a container if it runs and starts it again.
    pub async fn restart(&self, found: &Found, signal: Option<u32>, timeout: Option<i64>) -> Result<()> {
        self.stop(found, signal, timeout).await?;
        self.start(&found.container, &found.definition()?, None).await.map(drop)
    }

    /// Freezes a container.
    pub async fn pause(&self, found: &Found) -> Result<()> {
        match self.task_state(&found.container.id).await? {
            Some(state) if state.status == ProcessStatus::Running => {}
            Some(state) if state.status == ProcessStatus::Paused => {
                let text = format!("Container {} is already paused", found.name());
                return Err(berth_types::Error::failed_precondition(text));
            }
            _ => return Err(not_running(found.name())),
        }
        self.catalog.tasks(&self.scope).pause(&found.container.id).await
    }

    /// Lets a frozen container go on.
    pub async fn unpause(&self, found: &Found) -> Result<()> {
        match self.task_state(&found.container.id).await? {
            Some(state) if state.status == ProcessStatus::Paused => {}
            _ => {
                let text = format!("Container {} is not paused", found.name());
                return Err(berth_types::Error::failed_precondition(text));
            }
        }
        self.catalog.tasks(&self.scope).resume(&found.container.id).await
    }

    /// Waits for the end of a container; one that never ran answers 0 at once.
    pub async fn wait(&self, found: &Found) -> Result<Option<Exit>> {
        let process = ProcessRef::init(found.container.id.clone());
        match self.catalog.tasks(&self.scope).wait(&process).await {
            Ok(exit) => Ok(Some(exit)),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }
}

/// Whether what a request was for has gone meanwhile.
fn gone(answer: Result<()>) -> Result<bool> {
    match answer {
        Ok(()) => Ok(false),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(true),
        Err(error) if error.message().contains("process already finished") => Ok(true),
        Err(error) => Err(error),
    }
}
