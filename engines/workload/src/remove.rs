//! Removing a container with all that is its own.

use berth_types::{ContainerId, Error, ErrorKind, ProcessStatus, Result, SnapshotKey, SnapshotterName};

use crate::{Found, Workload, labels, names};

/// How to remove.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RemoveOptions {
    /// Ends a container that runs.
    pub force: bool,
    /// Removes its anonymous volumes as well.
    pub volumes: bool,
}

impl Workload {
    /// Removes a container. One that runs is refused unless forced.
    pub async fn remove(&self, found: &Found, options: RemoveOptions) -> Result<()> {
        let id = &found.container.id;
        if let Some(state) = self.task_state(id).await? {
            let running = matches!(state.status, ProcessStatus::Running | ProcessStatus::Paused);
            if running && !options.force {
                let (what, way) = if state.status == ProcessStatus::Paused {
                    ("paused", "Unpause and then stop")
                } else {
                    ("running", "stop")
                };
                return Err(Error::failed_precondition(format!(
                    "cannot remove container \"/{}\": container is {what}: {way} the container before removing or force remove",
                    found.name()
                )));
            }
            if found.container.labels.contains_key(labels::RESTART_STATUS) {
                self.keep_at(id, "stopped").await?;
            }
            if state.status != ProcessStatus::Stopped {
                self.force_end(found, state.status).await?;
            }
            absent_is_fine(self.catalog.tasks(&self.scope).delete(id).await.map(drop))?;
        }
        self.remove_stopped(found, options).await
    }

    /// Removes a container whose task is known to be gone.
    pub async fn remove_stopped(&self, found: &Found, options: RemoveOptions) -> Result<()> {
        let container = &found.container;
        // Before the record: a container that is still there finds what is left when it is removed again.
        self.leave_network(&container.id)?;
        let containers = self.catalog.containers(&self.scope);
        if container.snapshot_key.is_empty() {
            absent_is_fine(containers.delete(&container.id).await)?;
        } else {
            let snapshotter: SnapshotterName = container.snapshotter.parse()?;
            let key: SnapshotKey = container.snapshot_key.parse()?;
            let snapshotter = self.catalog.snapshotter(&snapshotter, &self.scope)?;
            // Should one of the two fail, the garbage collector takes what nobody refers to.
            let (record, snapshot) = tokio::join!(containers.delete(&container.id), snapshotter.remove(&key));
            absent_is_fine(record)?;
            absent_is_fine(snapshot)?;
        }
        self.forget(found, options)
    }

    /// Removes what only we keep of a container.
    fn forget(&self, found: &Found, options: RemoveOptions) -> Result<()> {
        let id: &ContainerId = &found.container.id;
        names::release(&self.home, found.name(), id);
        if options.volumes {
            for point in found.definition()?.mounts.iter().filter(|point| point.anonymous) {
                self.drop_volume(&point.name)?;
            }
        }
        self.home.remove_container(id)
    }
}

pub(crate) fn absent_is_fine(answer: Result<()>) -> Result<()> {
    match answer {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        other => other,
    }
}
