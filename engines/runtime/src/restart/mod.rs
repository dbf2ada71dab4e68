//! The restart monitor: containers whose labels ask for it are kept running, or stopped.
//!
//! The labels are containerd's, and clients such as nerdctl and ctr set them:
//! `containerd.io/restart.status` is the wish, `.policy` says when a running container that has ended is
//! started again, `.count` how often that was done, `.explicitly-stopped` that a person stopped it, and
//! `.loguri` where its output goes.

mod policy;
mod start;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use berth_core::Scope;
use berth_types::filter::Filters;
use berth_types::{
    Container, Error, ErrorKind, KillTarget, Namespace, ProcessRef, ProcessState, ProcessStatus, Result,
};
use futures::future::join_all;
use tokio::time::{MissedTickBehavior, interval};

use self::policy::Policy;
use self::start::Leftover;
use crate::Runtime;
use crate::key::Key;

/// The signal that no process can refuse.
const KILL: u32 = 9;

/// What containers should be.
const STATUS: &str = "containerd.io/restart.status";
/// When they are started again.
const POLICY: &str = "containerd.io/restart.policy";
/// How often they were.
const COUNT: &str = "containerd.io/restart.count";
/// Whether a person stopped them.
const EXPLICITLY_STOPPED: &str = "containerd.io/restart.explicitly-stopped";
/// The record of the network that they have, as berth's command line makes it.
const ENDPOINT: &str = "berth/endpoint";
/// Where their output goes.
const LOG_URI: &str = "containerd.io/restart.loguri";

/// Tasks that were there and not started, by their first process: somebody may be about to start them.
#[derive(Default)]
struct Unstarted {
    /// At the last look.
    before: HashMap<Key, u32>,
    /// At this one.
    now: Mutex<HashMap<Key, u32>>,
}

impl Unstarted {
    /// Whether the task was there at the last look already; remembers it for the next.
    fn again(&self, key: Key, pid: u32) -> bool {
        let before = self.before.get(&key) == Some(&pid);
        self.now.lock().unwrap_or_else(PoisonError::into_inner).insert(key, pid);
        before
    }

    /// For the next look.
    fn next(self) -> Self {
        let before = self.now.into_inner().unwrap_or_else(PoisonError::into_inner);
        Self { before, now: Mutex::default() }
    }
}

/// How long a killed process may take to end: one that cannot must not hold up the looks after the others.
const ENDING: Duration = Duration::from_secs(10);

/// Looks at every container again and again.
pub(crate) async fn watch(runtime: &Runtime) {
    let mut unstarted = Unstarted::default();
    let mut ticks = interval(runtime.engine().config.restart_interval);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        if let Err(error) = look(runtime, &unstarted).await {
            tracing::error!("cannot look after containers that want to be restarted: {}", error.chain());
        }
        unstarted = unstarted.next();
    }
}

async fn look(runtime: &Runtime, unstarted: &Unstarted) -> Result<()> {
    let namespaces = runtime.engine().deps.namespaces.list().await?;
    join_all(namespaces.into_iter().map(|record| async move {
        if let Err(error) = look_in(runtime, &record.name, unstarted).await {
            tracing::error!(namespace = %record.name, "cannot look after its containers: {}", error.chain());
        }
    }))
    .await;
    Ok(())
}

async fn look_in(runtime: &Runtime, namespace: &Namespace, unstarted: &Unstarted) -> Result<()> {
    let scope = Scope::new(namespace.clone());
    let wished = Filters::parse(&[format!("labels.{STATUS:?}")])?;
    let containers = (runtime.engine().deps.containers)(&scope).list(&wished).await?;
    join_all(containers.into_iter().map(|container| {
        let scope = scope.clone();
        async move {
            let id = container.id.clone();
            if let Err(error) = settle(runtime, &scope, container, unstarted).await {
                tracing::error!(namespace = %scope.namespace, container = %id, "cannot bring it to the state that its labels ask for: {}", error.chain());
            }
        }
    }))
    .await;
    Ok(())
}

/// Brings one container to the state that it should have.
async fn settle(runtime: &Runtime, scope: &Scope, container: Container, unstarted: &Unstarted) -> Result<()> {
    let tasks = runtime.tasks(scope);
    let state = match tasks.state(&ProcessRef::init(container.id.clone())).await {
        Ok(state) => Some(state),
        Err(error) if error.kind() == ErrorKind::NotFound => None,
        // A shim that does not answer may well be running its container.
        Err(error) => return Err(error),
    };
    let status = state.as_ref().map(|state| state.status);
    match container.labels.get(STATUS).map(String::as_str) {
        Some("running") => {
            let left_alone = [ProcessStatus::Running, ProcessStatus::Paused, ProcessStatus::Pausing];
            if status.is_some_and(|status| left_alone.contains(&status))
                || may_be_starting(runtime, scope, &container, state.as_ref(), unstarted)
                || !wants(&container, state.as_ref())
            {
                return Ok(());
            }
            tracing::info!(namespace = %scope.namespace, container = %container.id, "starting it again");
            let leftover = if state.is_some() { Leftover::Task } else { Leftover::None };
            start::again(runtime, scope, container, leftover).await
        }
        Some("stopped") if status.is_some_and(|status| status != ProcessStatus::Stopped) => {
            end(&tasks, &container).await
        }
        _ => Ok(()),
    }
}

/// Whether somebody may be at starting the container right now: its record is younger than the time
/// between two looks, or its task was not there at the last one.
fn may_be_starting(
    runtime: &Runtime,
    scope: &Scope,
    container: &Container,
    state: Option<&ProcessState>,
    unstarted: &Unstarted,
) -> bool {
    match state {
        Some(state) if state.status == ProcessStatus::Created => {
            !unstarted.again(Key::new(&scope.namespace, &container.id), state.pid)
        }
        Some(_) => false,
        None => {
            let age = container.created_at.elapsed().unwrap_or_default();
            age < runtime.engine().config.restart_interval
        }
    }
}

/// Whether the policy of a container that does not run says that it should.
fn wants(container: &Container, state: Option<&ProcessState>) -> bool {
    let label = |name: &str| container.labels.get(name).map(String::as_str).unwrap_or_default();
    let policy: Policy = match label(POLICY).parse() {
        Ok(policy) => policy,
        Err(error) => {
            tracing::error!(container = %container.id, "its restart policy is not understood: {error}");
            return false;
        }
    };
    let ended = state.and_then(|state| state.exit).map_or(0, |exit| exit.status);
    policy.restarts(ended, label(COUNT), label(EXPLICITLY_STOPPED))
}

/// Kills a task and removes it.
async fn end(tasks: &Arc<dyn berth_core::Tasks>, container: &Container) -> Result<()> {
    let process = ProcessRef::init(container.id.clone());
    let killed = match tasks.kill(&process, KILL, KillTarget::All).await {
        Ok(()) => match tokio::time::timeout(ENDING, tasks.wait(&process)).await {
            Ok(ended) => ended.map(|_| ()),
            Err(_) => Err(Error::deadline_exceeded(format!(
                "container {} was killed and does not end",
                container.id
            ))),
        },
        failed => failed,
    };
    match (tasks.delete(&container.id).await, killed) {
        (Ok(_), _) => Ok(()),
        (Err(error), _) if error.kind() == ErrorKind::NotFound => Ok(()),
        // One that could not be killed cannot be removed: the first error says why.
        (Err(_), Err(error)) | (Err(error), Ok(())) => Err(error),
    }
}
