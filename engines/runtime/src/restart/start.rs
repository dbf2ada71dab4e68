//! A container started again from its record.

use berth_core::{CreateTask, Scope};
use berth_types::{
    Container, ContainerUpdate, Error, FieldMask, Mount, ProcessRef, Result, SnapshotKey, SnapshotterName,
    Stdio,
};
use serde::Deserialize;

use super::{COUNT, ENDPOINT, LOG_URI, end, policy};
use crate::Runtime;

/// Counts the restart, removes what is left of the task before, and starts a new one.
pub(super) async fn again(
    runtime: &Runtime,
    scope: &Scope,
    container: Container,
    leftover: Leftover,
) -> Result<()> {
    let engine = runtime.engine();
    let tasks = runtime.tasks(scope);
    let count = container.labels.get(COUNT).map(String::as_str).unwrap_or_default();
    let mut counted = Container::new(container.id.clone(), container.runtime.clone());
    let next = policy::number(count).unwrap_or_default().saturating_add(1);
    counted.labels.insert(COUNT.to_owned(), next.to_string());
    let mask = FieldMask::new(vec![format!("labels.{COUNT}")]);
    (engine.deps.containers)(scope).update(ContainerUpdate { container: counted, mask }).await?;
    if leftover == Leftover::Task {
        end(&tasks, &container).await?;
    }
    ready_network(&container).await?;
    let request = CreateTask {
        container: container.id.clone(),
        rootfs: rootfs(runtime, scope, &container).await?,
        stdio: stdio(&container)?,
        checkpoint: None,
        options: None,
        runtime_path: String::new(),
        endpoint: None,
    };
    tasks.create(request).await?;
    match tasks.start(&ProcessRef::init(container.id.clone())).await {
        Ok(_) => Ok(()),
        Err(error) => {
            // A task that was made and cannot start would look like one that is about to.
            if let Err(left) = tasks.delete(&container.id).await {
                tracing::error!(container = %container.id, "cannot remove its task: {}", left.chain());
            }
            Err(error)
        }
    }
}

/// Makes sure of the network that the command line gave it: a start of the machine leaves nothing of it but its
/// record.
async fn ready_network(container: &Container) -> Result<()> {
    let Some(record) = container.labels.get(ENDPOINT).cloned() else { return Ok(()) };
    crate::blocking::blocking(move || berth_net::Networks::ensure_at(record.as_ref()).map(drop)).await
}

/// What is there of a container that does not run.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Leftover {
    /// Nothing.
    None,
    /// A task that has ended, or never started.
    Task,
}

/// How to mount the container's own snapshot.
async fn rootfs(runtime: &Runtime, scope: &Scope, container: &Container) -> Result<Vec<Mount>> {
    if container.snapshot_key.is_empty() {
        return Ok(Vec::new());
    }
    if container.snapshotter.is_empty() {
        return Err(Error::invalid_argument(format!(
            "container {} has a snapshot and names no snapshotter",
            container.id
        )));
    }
    let snapshotter: SnapshotterName = container.snapshotter.parse()?;
    let key: SnapshotKey = container.snapshot_key.parse()?;
    (runtime.engine().deps.snapshotters)(&snapshotter, scope)?.mounts(&key).await
}

/// Its streams: to the log that its label names, or nowhere; one for both with a terminal.
fn stdio(container: &Container) -> Result<Stdio> {
    #[derive(Deserialize)]
    struct Spec {
        process: Option<Process>,
    }
    #[derive(Deserialize)]
    struct Process {
        #[serde(default)]
        terminal: bool,
    }
    let Some(log) = container.labels.get(LOG_URI).filter(|log| !log.is_empty()) else {
        return Ok(Stdio::default());
    };
    if !log.contains("://") {
        let text = format!("label {LOG_URI}={log:?} of container {} is no URI", container.id);
        return Err(Error::invalid_argument(text));
    }
    let spec = container.spec.as_ref().map(|spec| spec.value.as_slice()).unwrap_or_default();
    let spec: Spec = serde_json::from_slice(spec).map_err(|source| {
        let text = format!("the specification of container {} cannot be read", container.id);
        Error::invalid_argument(text).caused_by(source)
    })?;
    let terminal = spec.process.is_some_and(|process| process.terminal);
    let stderr = if terminal { String::new() } else { log.clone() };
    Ok(Stdio { stdin: String::new(), stdout: log.clone(), stderr, terminal })
}

#[cfg(test)]
mod tests {
    use berth_types::{Any, RuntimeInfo};

    use super::*;

    fn container(log: &str, spec: &str) -> Container {
        let mut container = Container::new("c".parse().unwrap(), RuntimeInfo::default());
        container.labels.insert(LOG_URI.into(), log.into());
        container.spec = Some(Any::new("x", spec));
        container
    }

    #[test]
    fn output_goes_to_the_log_that_the_label_names() {
        let plain = stdio(&container("file:///l", r#"{"process":{}}"#)).unwrap();
        assert_eq!(
            (plain.stdout.as_str(), plain.stderr.as_str(), plain.terminal),
            ("file:///l", "file:///l", false)
        );
        let terminal = stdio(&container("file:///l", r#"{"process":{"terminal":true}}"#)).unwrap();
        assert_eq!((terminal.stderr.as_str(), terminal.terminal), ("", true));
        assert_eq!(stdio(&container("", "")).unwrap(), Stdio::default());
        assert!(stdio(&container("nonsense", "{}")).is_err());
    }
}
