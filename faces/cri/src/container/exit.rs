//! The end of a container, and whoever waits for it.

use std::sync::Arc;
use std::time::Duration;

use berth_proto as wire;
use berth_types::{ErrorKind, Exit, Result};
use wire::io::containerd::cgroups;

use super::{Container, Life};
use crate::Cri;
use crate::time::nanoseconds;

/// Between two tries to hear from a task or to remove it.
const AGAIN: Duration = Duration::from_secs(1);

impl Cri {
    /// Waits for the end of a container that runs, in the background, and writes it down.
    pub(super) fn watch_exit(self: &Arc<Self>, container: &Arc<Container>) {
        let (cri, container) = (self.clone(), container.clone());
        self.nursery.clone().spawn(async move {
            loop {
                match cri.tasks().wait(&container.process()).await {
                    Ok(exit) => return cri.exited(&container, exit).await,
                    Err(error) if error.kind() == ErrorKind::NotFound => return cri.lost(&container).await,
                    Err(error) => {
                        tracing::warn!(container = %container.id, "cannot wait for its end: {}", error.chain());
                        tokio::time::sleep(AGAIN).await;
                    }
                }
            }
        });
    }

    /// Writes down how a container ended, and removes its task.
    pub(super) async fn exited(self: &Arc<Self>, container: &Arc<Container>, exit: Exit) {
        let exit_code = exit.status as i32;
        let reason = if exit_code == 0 {
            "Completed"
        } else if self.ran_out_of_memory(container).await {
            "OOMKilled"
        } else {
            "Error"
        };
        let before = container.life();
        let life = Life {
            started_at: before.started_at,
            finished_at: nanoseconds(exit.at).max(1),
            exit_code,
            reason: reason.to_owned(),
            message: String::new(),
            pid: 0,
        };
        if let Err(error) = self.store_life(container, &life).await {
            tracing::error!(container = %container.id, "its end is not written down: {}", error.chain());
        }
        if let Err(error) = self.remove_task(container).await {
            tracing::error!(container = %container.id, "its task is left: {}", error.chain());
        }
        self.tell_end(container, life).await;
    }

    /// The task of a container has gone and nobody heard how: somebody removed it, or the machine stopped.
    pub(super) async fn lost(self: &Arc<Self>, container: &Arc<Container>) {
        let before = container.life();
        if before.finished_at != 0 {
            return;
        }
        let life = Life {
            started_at: before.started_at,
            finished_at: crate::time::now(),
            exit_code: 255,
            reason: "Unknown".to_owned(),
            message: "the container's task is gone, and how it ended is not known".to_owned(),
            pid: 0,
        };
        if let Err(error) = self.store_life(container, &life).await {
            tracing::error!(container = %container.id, "its end is not written down: {}", error.chain());
        }
        self.tell_end(container, life).await;
    }

    /// Plugins hear of it before whoever waits.
    async fn tell_end(self: &Arc<Self>, container: &Arc<Container>, life: Life) {
        self.tell_ended(container).await;
        container.life.send_replace(life);
        if let Ok(pod) = self.pod(&container.pod) {
            self.events.stopped(self, &pod, container.id.as_str());
        }
    }

    /// Removes the task of a container that has ended.
    pub(super) async fn remove_task(&self, container: &Container) -> Result<()> {
        match self.tasks().delete(&container.id).await {
            Err(error) if error.kind() != ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    /// Whether the kernel killed anything of the container for want of memory, as its cgroup remembers.
    async fn ran_out_of_memory(&self, container: &Container) -> bool {
        let filter = format!("id=={}", container.id);
        let Ok(metrics) = self.tasks().metrics(&[filter]).await else { return false };
        let Some(data) = metrics.into_iter().find_map(|metric| metric.data) else { return false };
        if let Ok(v1) = wire::convert::unpack::<cgroups::v1::Metrics>(&data) {
            return v1.memory_oom_control.is_some_and(|control| control.oom_kill > 0);
        }
        let v2 = wire::convert::unpack::<cgroups::v2::Metrics>(&data);
        v2.is_ok_and(|v2| v2.memory_events.is_some_and(|events| events.oom_kill > 0))
    }
}
