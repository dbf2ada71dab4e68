//! Pods that somebody else runs: a controller of sandboxes, such as that of shims which boot a machine for a pod, or one
//! that is another process. Files, networks and records are made here as for every pod; the controller is told of them, and
//! the pod's containers are tasks where it says.

use std::sync::Arc;
use std::time::Duration;

use berth_core::{CreateSandbox, Endpoint, SandboxController};
use berth_types::{Error, ErrorKind, FieldMask, Result, Sandbox, SandboxUpdate};

use super::{Pod, Stage};
use crate::Cri;
use crate::spec::annotations;

/// What a controller says of a sandbox that goes on.
const READY: &str = "SANDBOX_READY";
/// How long it is until one that does not answer is asked again.
const AGAIN: Duration = Duration::from_secs(1);

impl Pod {
    /// Who runs it, if that is not this interface.
    pub(super) fn controller(&self) -> Option<&str> {
        self.handler.controller.as_deref()
    }
}

impl Cri {
    fn controller_of(&self, pod: &Pod) -> Result<Option<Arc<dyn SandboxController>>> {
        pod.controller().map(|name| self.catalog.controller(name, &self.scope)).transpose()
    }

    /// Has the controller make and start the pod; answers a process of it on this host, and where its tasks are made.
    pub(super) async fn start_sandbox(
        self: &Arc<Self>,
        pod: &Arc<Pod>,
    ) -> Result<(Option<u32>, Option<Endpoint>)> {
        let Some(controller) = self.controller_of(pod)? else { return Ok((None, None)) };
        let mut sandbox = pod.record()?;
        if !pod.handler.runtime_path.is_empty() {
            sandbox.runtime.name.clone_from(&pod.handler.runtime_path);
        }
        let network = pod.facts().network.map(|path| path.display().to_string());
        let request = CreateSandbox {
            sandbox,
            rootfs: Vec::new(),
            options: Some(berth_proto::convert::pack(&pod.config)),
            network: network.unwrap_or_default(),
            annotations: annotations::of_pod(pod),
        };
        controller.create(request).await?;
        let started = controller.start(&pod.id).await?;
        if let Some(spec) = started.spec {
            let mut record = Sandbox::new(pod.id.clone(), pod.handler.runtime.clone());
            record.spec = Some(spec);
            let mask = FieldMask::new(["spec".to_owned()]);
            self.sandboxes()?.update(SandboxUpdate { sandbox: record, mask }).await?;
        }
        let pid = Some(started.pid).filter(|pid| *pid != 0);
        self.watch_sandbox(pod, pid);
        Ok((pid, started.endpoint))
    }

    /// Takes up a pod of the daemon before this one.
    pub(super) async fn take_up_sandbox(self: &Arc<Self>, pod: &Arc<Pod>) -> Result<()> {
        let Some(controller) = self.controller_of(pod)? else { return Ok(()) };
        match controller.status(&pod.id, false).await {
            Ok(status) if status.state == READY => {}
            // One that does not answer may be there.
            Err(error) if error.kind() != ErrorKind::NotFound => {
                tracing::warn!(pod = %pod.id, "its sandbox cannot be asked: {}", error.chain());
            }
            _ => return self.change_pod(pod, |facts| facts.stage = Stage::Lost).await,
        }
        self.watch_sandbox(pod, pod.facts().pause);
        Ok(())
    }

    fn watch_sandbox(self: &Arc<Self>, pod: &Arc<Pod>, pid: Option<u32>) {
        let (cri, pod) = (self.clone(), pod.clone());
        self.nursery.clone().spawn(async move {
            let Ok(Some(controller)) = cri.controller_of(&pod) else { return };
            while let Err(error) = controller.wait(&pod.id).await {
                if error.kind() != ErrorKind::Unavailable {
                    break;
                }
                tokio::time::sleep(AGAIN).await;
            }
            cri.lose(&pod, pid).await;
        });
    }

    /// Ends the sandbox. Idempotent.
    pub(super) async fn stop_sandbox(&self, pod: &Pod) -> Result<()> {
        let Some(controller) = self.controller_of(pod)? else { return Ok(()) };
        unless_gone(controller.stop(&pod.id, None).await)
    }

    /// Removes what the controller has of it. Idempotent.
    pub(super) async fn remove_sandbox(&self, pod: &Pod) -> Result<()> {
        let Some(controller) = self.controller_of(pod)? else { return Ok(()) };
        unless_gone(controller.shutdown(&pod.id).await)
    }

    /// What the controller says of it for people; nothing if it does not answer.
    pub(super) async fn sandbox_info(&self, pod: &Pod) -> Vec<(String, String)> {
        let Ok(Some(controller)) = self.controller_of(pod) else { return Vec::new() };
        let status = controller.status(&pod.id, true).await;
        status.map(|status| status.info.into_iter().collect()).unwrap_or_default()
    }
}

fn unless_gone(done: Result<()>) -> Result<()> {
    done.or_else(|error: Error| if error.kind() == ErrorKind::NotFound { Ok(()) } else { Err(error) })
}
