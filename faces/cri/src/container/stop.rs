//! `StopContainer`.

use std::sync::Arc;
use std::time::Duration;

use berth_types::{Error, ErrorKind, KillTarget, Result};
use proto::ContainerState;

use berth_proto::runtime::v1 as proto;

use super::Container;
use crate::Cri;

const SIGKILL: u32 = 9;
/// How long a process that was killed may take to end, and its end to be written down.
const KILLED: Duration = Duration::from_secs(120);

impl Cri {
    /// Asks a container to end, and kills it after `patience`. One that is not there, or does not run, is stopped.
    pub(crate) async fn stop_container(self: &Arc<Self>, id: &str, patience: i64) -> Result<()> {
        let container = match self.container(id) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
            found => found?,
        };
        let patience = Duration::from_secs(u64::try_from(patience).unwrap_or_default());
        let Ok(pod) = self.pod(&container.pod) else { return self.end_container(&container, patience).await };
        let work = pod.diary.begin(format!("StopContainer {}", container.title()));
        let what = format!("asked to end, killed after {patience:?}");
        let ended = work.step(what, self.end_container(&container, patience)).await;
        self.conclude(&pod, &work, &ended);
        ended
    }

    /// The same for a container that is known. Two at a time are fine: the less patient one decides.
    pub(crate) async fn end_container(&self, container: &Arc<Container>, patience: Duration) -> Result<()> {
        if !container.is_running() {
            return Ok(());
        }
        let mut life = container.life.subscribe();
        let mut ended = async |limit: Duration| {
            let exited = life.wait_for(|life| life.state() == ContainerState::ContainerExited);
            tokio::time::timeout(limit, exited).await.is_ok()
        };
        if !patience.is_zero() {
            self.signal(container, container.origin.stop_signal, KillTarget::Process).await?;
            if ended(patience).await {
                return Ok(());
            }
        }
        self.signal(container, SIGKILL, KillTarget::All).await?;
        if ended(KILLED).await {
            return Ok(());
        }
        Err(Error::deadline_exceeded(format!(
            "container {} has been killed and has not ended within {KILLED:?}",
            container.id
        )))
    }

    /// Sends a signal; a process that has ended in this moment needs none.
    async fn signal(&self, container: &Container, signal: u32, target: KillTarget) -> Result<()> {
        match self.tasks().kill(&container.process(), signal, target).await {
            Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::FailedPrecondition) => {
                Ok(())
            }
            other => other.map_err(|error| error.context(format!("cannot stop container {}", container.id))),
        }
    }
}
