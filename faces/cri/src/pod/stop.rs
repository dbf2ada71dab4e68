//! `StopPodSandbox`.

use std::sync::Arc;
use std::time::Duration;

use berth_types::{ErrorKind, Result};

use super::{Pod, Stage};
use crate::Cri;
use crate::blocking::blocking;
use crate::diary::Work;

impl Cri {
    /// Ends a pod's containers and takes down what they share. Idempotent; a pod that is not there is stopped.
    pub(crate) async fn stop_pod(self: &Arc<Self>, id: &str) -> Result<()> {
        let pod = match self.pod(id) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
            found => found?,
        };
        let cri = self.clone();
        let key = format!("stop {}", pod.id);
        let work = async move {
            let _pause = cri.pause_joins().await;
            let _work = pod.work.lock().await;
            let work = pod.diary.begin("StopPodSandbox");
            let down = cri.take_down(&pod, &work).await;
            cri.conclude(&pod, &work, &down);
            down.map_err(|error| error.context(format!("cannot stop pod {}", pod.title())))?;
            let was_ready = pod.is_ready();
            cri.change_pod(&pod, |facts| facts.stage = Stage::Stopped).await?;
            if was_ready {
                cri.events.stopped(&cri, &pod, pod.id.as_str());
            }
            Ok(String::new())
        };
        self.nursery.join(key, work).await.map(drop)
    }

    /// Ends containers and first process, gives back addresses, lets go of namespaces. Each step finds its work done
    /// when it comes again.
    pub(super) async fn take_down(self: &Arc<Self>, pod: &Arc<Pod>, work: &Work) -> Result<()> {
        let containers = self.containers_of(pod.id.as_str());
        let ends = containers.iter().map(|container| self.end_container(container, Duration::ZERO));
        work.step("the end of its containers", futures::future::try_join_all(ends)).await?;
        match pod.controller() {
            Some(name) => {
                let step = format!("the end of its sandbox (controller {name})");
                work.step(step, self.stop_sandbox(pod)).await?;
            }
            None => work.step("the end of its first process", self.end_pause(pod)).await?,
        }
        // Plugins know those alone that have been ready.
        if matches!(pod.facts().stage, Stage::Ready | Stage::Lost) {
            self.tell_stop(pod).await;
        }
        work.step("its addresses (CNI DEL)", self.detach(pod)).await?;
        let released = pod.clone();
        let releasing = blocking(move || {
            released.release_namespaces()?;
            released.release_files()
        });
        work.step("its namespaces and files", releasing).await
    }
}
