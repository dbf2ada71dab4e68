//! Containers, as plugins see them, and what plugins make of them.

use std::sync::Arc;

use berth_core::Rollback;
use berth_nri::{describe, proto};
use berth_oci::runtime::Spec;
use berth_proto::runtime::v1 as cri;
use berth_types::{Container as Record, Error, Result};

use super::pod::{self, said};
use super::resources::{described, shown, wanted};
use crate::Cri;
use crate::container::{Change, Container};
use crate::pod::Pod;
use crate::time::nanoseconds;

impl Cri {
    /// Lets plugins adjust a container that is about to be made: its specification changes, and so may other containers
    /// before. An error means that it must not be made.
    pub(crate) async fn adjust(
        self: &Arc<Self>,
        pod: &Pod,
        record: &Record,
        config: &cri::ContainerConfig,
        spec: &mut Spec,
        undo: &mut Rollback,
    ) -> Result<()> {
        let Some(nri) = self.plugins() else { return Ok(()) };
        let (pod, container) = (pod::message(pod), unmade(record, config, spec));
        let (cri, told) = (self.clone(), (pod.clone(), container.clone()));
        undo.push("what NRI plugins know of the container", move || async move {
            cri.tell_container_stop(told.clone()).await;
            cri.tell_container_gone(told).await;
            Ok(())
        });
        let mut created = nri.create_container(pod, container).await?;
        self.settle(created.updates, created.evictions).await;
        let resources = created.adjustment.linux.as_mut().and_then(|linux| linux.resources.as_mut());
        if let Some(resources) = resources.filter(|_| self.config.pods.disable_hugetlb) {
            resources.hugepage_limits.clear();
        }
        let devices = created.adjustment.cdi_devices.iter().map(|device| device.name.as_str());
        self.give_named_devices(devices, spec).await?;
        berth_nri::apply(spec, &created.adjustment)
            .map_err(|error| Error::failed_precondition(error.to_string()))
    }

    /// Tells plugins that a container has been made.
    pub(crate) async fn tell_created(&self, container: &Container) {
        let Some(nri) = self.plugins() else { return };
        let (pod, message) = self.both(container).await;
        let request = proto::PostCreateContainerRequest { pod, container: Some(message) };
        said(container.id.as_str(), nri.post_create_container(request).await);
    }

    /// Tells plugins that a container, whose process is there, is about to start. An error means that it must not.
    pub(crate) async fn tell_start(&self, container: &Container, pid: u32) -> Result<()> {
        let Some(nri) = self.plugins() else { return Ok(()) };
        let (pod, mut message) = self.both(container).await;
        message.pid = pid;
        nri.start_container(proto::StartContainerRequest { pod, container: Some(message) }).await
    }

    /// Tells plugins that a container has started.
    pub(crate) async fn tell_started(&self, container: &Container) {
        let Some(nri) = self.plugins() else { return };
        let (pod, message) = self.both(container).await;
        let request = proto::PostStartContainerRequest { pod, container: Some(message) };
        said(container.id.as_str(), nri.post_start_container(request).await);
    }

    /// Tells plugins that a container has ended; again is fine.
    pub(crate) async fn tell_ended(self: &Arc<Self>, container: &Container) {
        if self.plugins().is_none() {
            return;
        }
        let (pod, mut message) = self.both(container).await;
        message.state = proto::ContainerState::ContainerStopped.into();
        self.tell_container_stop((pod.unwrap_or_default(), message)).await;
    }

    /// Tells plugins that a container, which does not run, is about to be removed.
    pub(crate) async fn tell_container_removal(self: &Arc<Self>, container: &Container) {
        if self.plugins().is_none() {
            return;
        }
        // One that never ran has not ended yet.
        if !container.has_ended() {
            self.tell_ended(container).await;
        }
        let (pod, message) = self.both(container).await;
        self.tell_container_gone((pod.unwrap_or_default(), message)).await;
    }

    /// Asks plugins what a change of a container's limits is to be.
    pub(crate) async fn ask_update(
        self: &Arc<Self>,
        container: &Container,
        change: &mut Change,
    ) -> Result<()> {
        let Some(nri) = self.plugins() else { return Ok(()) };
        let (pod, message) = self.both(container).await;
        let linux_resources = Some(described(&change.limits));
        let request = proto::UpdateContainerRequest { pod, container: Some(message), linux_resources };
        let updated = nri.update_container(request).await?;
        self.settle(updated.updates, updated.evictions).await;
        if let Some(asked) = updated.resources {
            change.limits = shown(&asked);
            change.resources = wanted(&asked, &self.config.pods);
        }
        Ok(())
    }

    /// Tells plugins that a container's limits have changed.
    pub(crate) async fn tell_updated(&self, container: &Container) {
        let Some(nri) = self.plugins() else { return };
        let (pod, message) = self.both(container).await;
        let request = proto::PostUpdateContainerRequest { pod, container: Some(message) };
        said(container.id.as_str(), nri.post_update_container(request).await);
    }

    /// What plugins want of others then is done later: whoever tells of an end may hold what that needs.
    async fn tell_container_stop(self: &Arc<Self>, (pod, container): (proto::PodSandbox, proto::Container)) {
        let Some(nri) = self.plugins() else { return };
        let id = container.id.clone();
        let request = proto::StopContainerRequest { pod: Some(pod), container: Some(container) };
        match nri.stop_container(request).await {
            Ok(updates) if updates.is_empty() => {}
            Ok(updates) => {
                let cri = self.clone();
                self.nursery.spawn(async move { cri.settle(updates, Vec::new()).await });
            }
            Err(error) => said(&id, Err(error)),
        }
    }

    async fn tell_container_gone(&self, (pod, container): (proto::PodSandbox, proto::Container)) {
        let Some(nri) = self.plugins() else { return };
        let id = container.id.clone();
        let request = proto::RemoveContainerRequest { pod: Some(pod), container: Some(container) };
        said(&id, nri.remove_container(request).await);
    }

    /// A container and its pod. One without a pod says at least whose it was.
    async fn both(&self, container: &Container) -> (Option<proto::PodSandbox>, proto::Container) {
        let pod = match self.pod(&container.pod) {
            Ok(pod) => pod::message(&pod),
            Err(_) => proto::PodSandbox { id: container.pod.clone(), ..Default::default() },
        };
        (Some(pod), self.message(container).await)
    }

    /// A container as it is now. What its record cannot tell is left out, and said.
    pub(super) async fn message(&self, container: &Container) -> proto::Container {
        let record = match self.containers_store().container(&container.id).await {
            Ok(record) => record,
            Err(error) => {
                tracing::error!(container = %container.id, "NRI plugins see little of it: {}", error.chain());
                Record::new(container.id.clone(), berth_types::RuntimeInfo::default())
            }
        };
        let spec = record.spec.as_ref().and_then(|spec| Spec::from_slice(&spec.value).ok());
        let life = container.life();
        proto::Container {
            pod_sandbox_id: container.pod.clone(),
            state: state(life.state()).into(),
            pid: life.pid,
            created_at: nanoseconds(container.created_at),
            started_at: life.started_at,
            finished_at: life.finished_at,
            exit_code: life.exit_code,
            status_reason: life.reason,
            status_message: life.message,
            ..unmade(&record, &container.config, &spec.unwrap_or_default())
        }
    }
}

/// A container of which there is a description only.
fn unmade(record: &Record, config: &cri::ContainerConfig, spec: &Spec) -> proto::Container {
    let mut message = describe(spec);
    message.id = record.id.to_string();
    message.pod_sandbox_id.clone_from(&record.sandbox);
    message.name = config.metadata.clone().unwrap_or_default().name;
    message.labels = record.labels.clone().into_iter().collect();
    message.labels.extend(config.labels.clone());
    message.annotations.extend(config.annotations.clone());
    let device = |device: &cri::CdiDevice| proto::CdiDevice { name: device.name.clone() };
    message.cdi_devices = config.cdi_devices.iter().map(device).collect();
    let security = config.linux.as_ref().and_then(|linux| linux.security_context.as_ref());
    if let (Some(linux), Some(profile)) = (&mut message.linux, security.and_then(|one| one.seccomp.as_ref()))
    {
        linux.seccomp_profile = Some(proto::SecurityProfile {
            // The numbers are the same in both interfaces.
            profile_type: profile.profile_type,
            localhost_ref: profile.localhost_ref.clone(),
        });
    }
    message
}

fn state(state: cri::ContainerState) -> proto::ContainerState {
    match state {
        cri::ContainerState::ContainerCreated => proto::ContainerState::ContainerCreated,
        cri::ContainerState::ContainerRunning => proto::ContainerState::ContainerRunning,
        cri::ContainerState::ContainerExited => proto::ContainerState::ContainerStopped,
        cri::ContainerState::ContainerUnknown => proto::ContainerState::ContainerUnknown,
    }
}
