//! `RemovePodSandbox`.

use std::sync::Arc;

use berth_types::{ErrorKind, Result};

use super::{Pod, Stage};
use crate::Cri;
use crate::blocking::blocking;
use crate::diary::Work;

impl Cri {
    /// Removes a pod with its containers, and stops it first if it has not been. Idempotent.
    pub(crate) async fn remove_pod(self: &Arc<Self>, id: &str) -> Result<()> {
        let pod = match self.pod(id) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
            found => found?,
        };
        let cri = self.clone();
        let key = format!("remove {}", pod.id);
        let work = async move {
            let _pause = cri.pause_joins().await;
            let _work = pod.work.lock().await;
            let work = pod.diary.begin("RemovePodSandbox");
            let away = cri.take_away(&pod, &work).await;
            cri.conclude(&pod, &work, &away);
            away.map_err(|error| error.context(format!("cannot remove pod {}", pod.title())))?;
            Ok(String::new())
        };
        self.nursery.join(key, work).await.map(drop)
    }

    async fn take_away(self: &Arc<Self>, pod: &Arc<Pod>, work: &Work) -> Result<()> {
        // One that is not ready has not been taken down for that: its first process may have ended, or the machine.
        self.take_down(pod, work).await?;
        if pod.facts().stage != Stage::Stopped {
            self.change_pod(pod, |facts| facts.stage = Stage::Stopped).await?;
        }
        for container in self.containers_of(pod.id.as_str()) {
            work.step(format!("container {}", container.title()), self.take_away_container(&container))
                .await?;
        }
        self.tell_removal(pod).await;
        self.erase(pod).await?;
        self.events.deleted(self, pod, pod.id.as_str());
        Ok(())
    }

    /// Removes files and record of a pod that has been taken down, and forgets it.
    pub(super) async fn erase(&self, pod: &Arc<Pod>) -> Result<()> {
        self.remove_sandbox(pod).await?;
        let removed = pod.clone();
        blocking(move || removed.remove_files()).await?;
        match self.sandboxes()?.delete(&pod.id).await {
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        self.pods.remove(pod);
        Ok(())
    }
}
