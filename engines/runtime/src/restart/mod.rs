//! The restart monitor: containers whose labels ask for it are kept running, or stopped.
//!
//! The labels are containerd's, and clients such as nerdctl and ctr set them:
//! `containerd.io/restart.status` is the wish, `.policy` says when a running container that has ended is
//! started again, `.count` how often that was done, `.explicitly-stopped` that a person stopped it, and
//! `.loguri` where its output goes.

mod policy;
mod start;

use std::sync::Arc;

use berth_core::Scope;
use berth_types::filter::Filters;
use berth_types::{
    Container, ErrorKind, KillTarget, Namespace, ProcessRef, ProcessState, ProcessStatus, Result,
};
use futures::future::join_all;
use tokio::time::{MissedTickBehavior, interval};

use self::policy::Policy;
use self::start::Leftover;
use crate::Runtime;

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
/// Where their output goes.
const LOG_URI: &str = "containerd.io/restart.loguri";

/// Looks at every container again and again.
pub(crate) async fn watch(runtime: &Runtime) {
    let mut ticks = interval(runtime.engine().config.restart_interval);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        if let Err(error) = look(runtime).await {
            tracing::error!("cannot look after containers that want to be restarted: {}", error.chain());
        }
    }
}

async fn look(runtime: &Runtime) -> Result<()> {
    let namespaces = runtime.engine().deps.namespaces.list().await?;
    join_all(namespaces.into_iter().map(|record| async move {
        if let Err(error) = look_in(runtime, &record.name).await {
            tracing::error!(namespace = %record.name, "cannot look after its containers: {}", error.chain());
        }
    }))
    .await;
    Ok(())
}

async fn look_in(runtime: &Runtime, namespace: &Namespace) -> Result<()> {
    let scope = Scope::new(namespace.clone());
    let wished = Filters::parse(&[format!("labels.{STATUS:?}")])?;
    let containers = (runtime.engine().deps.containers)(&scope).list(&wished).await?;
    join_all(containers.into_iter().map(|container| {
        let scope = scope.clone();
        async move {
            let id = container.id.clone();
            if let Err(error) = settle(runtime, &scope, container).await {
                tracing::error!(namespace = %scope.namespace, container = %id, "cannot bring it to the state that its labels ask for: {}", error.chain());
            }
        }
    }))
    .await;
    Ok(())
}

/// Brings one container to the state that it should have.
async fn settle(runtime: &Runtime, scope: &Scope, container: Container) -> Result<()> {
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
            if status.is_some_and(|status| left_alone.contains(&status)) || !wants(&container, state.as_ref())
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
    match tasks.kill(&process, KILL, KillTarget::All).await {
        // One that has ended cannot be killed, only removed.
        Err(error) if error.kind() == ErrorKind::NotFound => {}
        Err(error) => return Err(error),
        Ok(()) => {
            tasks.wait(&process).await?;
        }
    }
    match tasks.delete(&container.id).await {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}
