//! `StartContainer`.

use std::sync::Arc;

use berth_core::{CreateTask, Endpoint};
use berth_types::{Error, ErrorKind, Result, SnapshotKey};
use proto::ContainerState;

use berth_proto::runtime::v1 as proto;

use super::{Container, Life};
use crate::Cri;
use crate::diary::Work;
use crate::time::now;

/// How a container ends that could not be started, as in containerd.
const CANNOT_START: (i32, &str) = (128, "StartError");

impl Cri {
    /// Starts a container that has been made. One that cannot be started has ended.
    pub(crate) async fn start_container(self: &Arc<Self>, id: &str) -> Result<()> {
        let container = self.container(id)?;
        let cri = self.clone();
        let key = format!("start {}", container.id);
        let work = async move {
            let _pause = cri.pause_joins().await;
            let _work = container.work.lock().await;
            cri.start(&container).await.map(|()| String::new())
        };
        self.nursery.join(key, work).await.map(drop)
    }

    async fn start(self: &Arc<Self>, container: &Arc<Container>) -> Result<()> {
        let state = container.life().state();
        if state != ContainerState::ContainerCreated {
            let state = state.as_str_name().trim_start_matches("CONTAINER_").to_lowercase();
            return Err(Error::failed_precondition(format!(
                "container {} cannot be started: it is {state}",
                container.id
            )));
        }
        let pod = self.pod(&container.pod)?;
        if !pod.is_ready() {
            return Err(Error::failed_precondition(format!(
                "container {} cannot be started: pod sandbox {} is not ready",
                container.id, pod.id
            )));
        }
        // Before its start: a short one has ended before that is answered.
        let started_at = now();
        let work = pod.diary.begin(format!("StartContainer {}", container.title()));
        let ran = self.run(container, &pod, &work).await;
        self.conclude(&pod, &work, &ran);
        match ran {
            Ok(pid) => {
                let life = Life { started_at, pid, ..Life::default() };
                container.life.send_replace(life.clone());
                self.watch_exit(container);
                self.remember_start(container, life);
                self.events.started(self, &pod, container.id.as_str());
                self.tell_started(container).await;
                Ok(())
            }
            Err(error) => {
                let error = error.context(format!("cannot start container {}", container.id));
                self.tell_ended(container).await;
                let (exit_code, reason) = CANNOT_START;
                let life = Life {
                    started_at,
                    finished_at: now(),
                    exit_code,
                    reason: reason.to_owned(),
                    message: error.chain(),
                    pid: 0,
                };
                self.change_life(container, life).await?;
                self.events.stopped(self, &pod, container.id.as_str());
                Err(error)
            }
        }
    }

    /// Makes and starts the task; nothing of it is left if that fails.
    async fn run(&self, container: &Container, pod: &crate::pod::Pod, work: &Work) -> Result<u32> {
        let snapshotter = self.catalog.snapshotter(&self.snapshotter_of(pod), &self.scope)?;
        let key: SnapshotKey = container.id.as_str().parse()?;
        let rootfs = work.step("its snapshot", snapshotter.mounts(&key)).await?;
        work.step("images as volumes", self.remount_images(container, pod)).await?;
        let streams = self.streams(container, &pod.config.log_directory);
        let (stdio, held) = if pod.handler.is_own {
            (streams, Vec::new())
        } else {
            work.step("its streams", self.relay(container, streams)).await?
        };
        let endpoint = pod.facts().endpoint;
        let request = CreateTask {
            container: container.id.clone(),
            rootfs,
            stdio,
            checkpoint: None,
            options: None,
            runtime_path: pod.handler.runtime_path.clone(),
            endpoint: endpoint.map(|(address, version)| Endpoint { address, version }),
        };
        let tasks = self.tasks();
        let pid = work.step("its task: shim and runtime", tasks.create(request)).await?;
        let started = async {
            work.step("NRI plugins", self.tell_start(container, pid)).await?;
            work.step("the start of its process", tasks.start(&container.process())).await
        };
        let started = started.await;
        drop(held);
        match started {
            Ok(pid) => Ok(pid),
            Err(error) => {
                match tasks.delete(&container.id).await {
                    Err(left) if left.kind() != ErrorKind::NotFound => {
                        tracing::error!(container = %container.id, "a task is left: {}", left.chain());
                    }
                    _ => {}
                }
                Err(error)
            }
        }
    }

    /// Remembers when it was started, for the daemon after this one. Nobody waits for that: that it runs is known
    /// from its task.
    fn remember_start(self: &Arc<Self>, container: &Arc<Container>, life: Life) {
        let (cri, container) = (self.clone(), container.clone());
        self.nursery.clone().spawn(async move {
            let _work = container.work.lock().await;
            if container.life() != life {
                return;
            }
            if let Err(error) = cri.store_life(&container, &life).await {
                tracing::warn!(container = %container.id, "its start is not remembered: {}", error.chain());
            }
        });
    }
}
