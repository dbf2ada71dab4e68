//! Pods, as plugins see them.

use std::net::IpAddr;

use berth_nri::proto;
use berth_proto::runtime::v1 as cri;
use berth_sys::held::Kind;
use berth_types::{Error, Result};

use super::resources::described;
use crate::Cri;
use crate::names;
use crate::pod::Pod;
use crate::spec;

impl Cri {
    /// Tells plugins that a pod is about to be ready. An error means that it must not be.
    pub(crate) async fn tell_run(&self, pod: &Pod, addresses: &[IpAddr], pid: Option<u32>) -> Result<()> {
        let Some(nri) = self.plugins() else { return Ok(()) };
        let mut message = message(pod);
        message.ips = addresses.iter().map(ToString::to_string).collect();
        message.pid = pid.unwrap_or_default();
        nri.run_pod_sandbox(proto::RunPodSandboxRequest { pod: Some(message) }).await
    }

    /// Tells plugins that a pod is about to be stopped.
    pub(crate) async fn tell_stop(&self, pod: &Pod) {
        let Some(nri) = self.plugins() else { return };
        let told = nri.stop_pod_sandbox(proto::StopPodSandboxRequest { pod: Some(message(pod)) }).await;
        said(pod.id.as_str(), told);
    }

    /// Tells plugins that a pod is about to be removed.
    pub(crate) async fn tell_removal(&self, pod: &Pod) {
        let Some(nri) = self.plugins() else { return };
        let told = nri.remove_pod_sandbox(proto::RemovePodSandboxRequest { pod: Some(message(pod)) }).await;
        said(pod.id.as_str(), told);
    }

    /// `UpdatePodSandboxResources`. containerd answers alike: what a pod has is what its containers have, and plugins
    /// may want to know.
    pub(crate) async fn update_pod(&self, request: cri::UpdatePodSandboxResourcesRequest) -> Result<()> {
        let _pause = self.pause_joins().await;
        let pod = self.pod(&request.pod_sandbox_id)?;
        let Some(nri) = self.plugins() else { return Ok(()) };
        let update = proto::UpdatePodSandboxRequest {
            pod: Some(message(&pod)),
            overhead_linux_resources: request.overhead.as_ref().map(described),
            linux_resources: request.resources.as_ref().map(described),
        };
        nri.update_pod_sandbox(update)
            .await
            .map_err(|error| error.context(format!("cannot change the resources of pod {}", pod.title())))?;
        let told = proto::PostUpdatePodSandboxRequest { pod: Some(message(&pod)) };
        said(pod.id.as_str(), nri.post_update_pod_sandbox(told).await);
        Ok(())
    }
}

/// What a plugin says to news that it cannot change is for the log.
pub(super) fn said(of: &str, told: Result<(), Error>) {
    if let Err(error) = told {
        tracing::error!(of, "an NRI plugin did not take the news: {}", error.chain());
    }
}

/// A pod as it is now.
pub(super) fn message(pod: &Pod) -> proto::PodSandbox {
    let (metadata, facts, linux) = (pod.metadata(), pod.facts(), pod.linux());
    let mut annotations = spec::annotations::of_pod(pod);
    for (key, value) in &pod.config.annotations {
        annotations.entry(key.clone()).or_insert_with(|| value.clone());
    }
    let cgroup = facts.pause.map(|_| spec::cgroup_path(pod, pod.id.as_str()));
    proto::PodSandbox {
        id: pod.id.to_string(),
        name: metadata.name,
        uid: metadata.uid,
        namespace: metadata.namespace,
        labels: names::labels(names::SANDBOX, &pod.config.labels).into_iter().collect(),
        annotations,
        runtime_handler: facts.handler,
        linux: Some(proto::LinuxPodSandbox {
            pod_overhead: linux.overhead.as_ref().map(described),
            pod_resources: linux.resources.as_ref().map(described),
            cgroup_parent: linux.cgroup_parent.clone(),
            cgroups_path: cgroup.unwrap_or_default(),
            namespaces: namespaces(pod),
            resources: None,
        }),
        pid: facts.pause.unwrap_or_default(),
        ips: facts.addresses.iter().map(ToString::to_string).collect(),
    }
}

/// Those that are there: a pod that has been stopped has let go of its own.
fn namespaces(pod: &Pod) -> Vec<proto::LinuxNamespace> {
    let name = |kind: Kind| match kind {
        Kind::User => "user",
        Kind::Ipc => "ipc",
        Kind::Uts => "uts",
        Kind::Network => "network",
    };
    let there = pod.places().into_iter().filter(|(_, path)| path.exists());
    there
        .map(|(kind, path)| proto::LinuxNamespace {
            r#type: name(kind).to_owned(),
            path: path.display().to_string(),
        })
        .collect()
}
