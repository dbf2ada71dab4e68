//! The controller `podsandbox`: Kubernetes' pods as clients of the sandbox API see them. They are made by the Container
//! Runtime Interface alone; looked at, ended and removed they can be here too.

use std::sync::{Arc, Weak};
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use berth_core::{CreateSandbox, SandboxController, SandboxInstance, SandboxStatus, Scope};
use berth_types::{Error, Exit, Metric, Platform, Result, SandboxId, SandboxUpdate};

use super::{Pod, Stage};
use crate::Cri;

/// The pods of an interface, as long as that is open.
struct PodSandboxes(Weak<Cri>);

impl Cri {
    /// The pods as the sandbox API knows them, which are in one namespace alone.
    pub fn controller(self: &Arc<Self>, scope: &Scope) -> Arc<dyn SandboxController> {
        let is_theirs = scope.namespace == self.scope.namespace;
        Arc::new(PodSandboxes(if is_theirs { Arc::downgrade(self) } else { Weak::new() }))
    }
}

impl PodSandboxes {
    fn pod(&self, id: &SandboxId) -> Result<(Arc<Cri>, Arc<Pod>)> {
        let cri = self.0.upgrade();
        let found = cri.and_then(|cri| cri.pod(id.as_str()).ok().map(|pod| (cri, pod)));
        // Not by the beginning of an id, as for people.
        let found = found.filter(|(_, pod)| pod.id == *id);
        found.ok_or_else(|| Error::not_found(format!("sandbox {id} not found")))
    }
}

fn of_kubernetes() -> Error {
    Error::not_implemented("sandboxes of the controller podsandbox are made by RunPodSandbox of the CRI")
}

#[async_trait]
impl SandboxController for PodSandboxes {
    async fn create(&self, _request: CreateSandbox) -> Result<()> {
        Err(of_kubernetes())
    }

    async fn start(&self, _id: &SandboxId) -> Result<SandboxInstance> {
        Err(of_kubernetes())
    }

    async fn platform(&self, id: &SandboxId) -> Result<Platform> {
        self.pod(id).map(|_| berth_oci::image::host_platform())
    }

    async fn stop(&self, id: &SandboxId, _patience: Option<Duration>) -> Result<()> {
        let (cri, _) = self.pod(id)?;
        cri.stop_pod(id.as_str()).await
    }

    async fn wait(&self, id: &SandboxId) -> Result<Exit> {
        let (_, pod) = self.pod(id)?;
        pod.reach(|stage| matches!(stage, Stage::Lost | Stage::Stopped)).await;
        Ok(Exit { pid: 0, status: 0, at: SystemTime::now() })
    }

    async fn status(&self, id: &SandboxId, verbose: bool) -> Result<SandboxStatus> {
        let (cri, pod) = self.pod(id)?;
        let info = if verbose { cri.pod_status(id.as_str(), true).await?.info } else { Default::default() };
        Ok(SandboxStatus {
            pid: pod.facts().pause.unwrap_or_default(),
            state: pod.wire_state().as_str_name().to_owned(),
            info: info.into_iter().collect(),
            created_at: pod.created_at,
            exited_at: SystemTime::UNIX_EPOCH,
            extra: None,
            endpoint: None,
        })
    }

    async fn shutdown(&self, id: &SandboxId) -> Result<()> {
        let (cri, _) = self.pod(id)?;
        cri.remove_pod(id.as_str()).await
    }

    async fn metrics(&self, _id: &SandboxId) -> Result<Option<Metric>> {
        Err(Error::not_implemented("what a pod uses is told by PodSandboxStats of the CRI"))
    }

    async fn update(&self, _update: SandboxUpdate) -> Result<()> {
        // A pod is what its request says; its record holds the rest.
        Ok(())
    }
}
