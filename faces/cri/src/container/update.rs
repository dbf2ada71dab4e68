//! `UpdateContainerResources`.

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError};

use berth_core::UpdateTask;
use berth_oci::runtime::{Resources, Spec};
use berth_proto::runtime::v1 as proto;
use berth_types::{Any, Container as Record, ContainerUpdate, Error, FieldMask, Result, RuntimeInfo};
use proto::ContainerState;

use super::Container;
use crate::Cri;
use crate::spec::{RESOURCES_TYPE, SPEC_TYPE, resources};

/// Where a record keeps limits that are not those of its request any more.
pub(super) const LIMITS: &str = "io.berth.cri.container.limits";

impl Container {
    pub(super) fn set_limits(&self, limits: proto::LinuxContainerResources) {
        *self.limits.lock().unwrap_or_else(PoisonError::into_inner) = Some(limits);
    }
}

impl Cri {
    /// Changes the limits of a container, now if it runs, and for its start if it has not been started.
    pub(crate) async fn update_container(
        self: &Arc<Self>,
        request: proto::UpdateContainerResourcesRequest,
    ) -> Result<()> {
        let container = self.container(&request.container_id)?;
        let _work = container.work.lock().await;
        let changed = request.linux.unwrap_or_default();
        let state = container.life().state();
        if state == ContainerState::ContainerExited {
            return Err(Error::failed_precondition(format!(
                "container {} has ended: its limits cannot be changed",
                container.id
            )));
        }
        let limits = merged(container.limits().unwrap_or_default(), changed.clone());
        if state == ContainerState::ContainerRunning {
            let wanted = resources(&changed, &self.config.pods)?;
            let json = serde_json::to_vec(&wanted)
                .map_err(|error| Error::internal("limits cannot be written").caused_by(error))?;
            let update = UpdateTask {
                container: container.id.clone(),
                resources: Some(Any::new(RESOURCES_TYPE, json)),
                annotations: request.annotations.into_iter().collect::<BTreeMap<_, _>>(),
            };
            self.tasks().update(update).await?;
        }
        self.store_limits(&container, &limits).await?;
        container.set_limits(limits);
        Ok(())
    }

    /// Stores them in the specification and beside the request.
    async fn store_limits(
        &self,
        container: &Container,
        limits: &proto::LinuxContainerResources,
    ) -> Result<()> {
        let store = self.containers_store();
        let record = store.container(&container.id).await?;
        let unreadable = || Error::data_loss(format!("the specification of {} cannot be read", container.id));
        let mut spec: Spec =
            record.spec.and_then(|spec| serde_json::from_slice(&spec.value).ok()).ok_or_else(unreadable)?;
        if let Some(linux) = &mut spec.linux {
            let devices = linux.resources.take().map(|resources| resources.devices).unwrap_or_default();
            linux.resources = Some(Resources { devices, ..resources(limits, &self.config.pods)? });
        }
        let mut record = Record::new(container.id.clone(), RuntimeInfo::default());
        record.spec = Some(Any::new(SPEC_TYPE, spec.to_vec()));
        record.extensions.insert(LIMITS.to_owned(), berth_proto::convert::pack(limits));
        let mask = FieldMask::new(["spec".to_owned(), format!("extensions.{LIMITS}")]);
        store.update(ContainerUpdate { container: record, mask }).await.map(drop)
    }
}

/// What is not zero replaces what was.
fn merged(
    old: proto::LinuxContainerResources,
    new: proto::LinuxContainerResources,
) -> proto::LinuxContainerResources {
    let number = |new: i64, old: i64| if new == 0 { old } else { new };
    let text = |new: String, old: String| if new.is_empty() { old } else { new };
    proto::LinuxContainerResources {
        cpu_period: number(new.cpu_period, old.cpu_period),
        cpu_quota: number(new.cpu_quota, old.cpu_quota),
        cpu_shares: number(new.cpu_shares, old.cpu_shares),
        memory_limit_in_bytes: number(new.memory_limit_in_bytes, old.memory_limit_in_bytes),
        memory_swap_limit_in_bytes: number(new.memory_swap_limit_in_bytes, old.memory_swap_limit_in_bytes),
        oom_score_adj: number(new.oom_score_adj, old.oom_score_adj),
        cpuset_cpus: text(new.cpuset_cpus, old.cpuset_cpus),
        cpuset_mems: text(new.cpuset_mems, old.cpuset_mems),
        hugepage_limits: if new.hugepage_limits.is_empty() {
            old.hugepage_limits
        } else {
            new.hugepage_limits
        },
        unified: old.unified.into_iter().chain(new.unified).collect(),
    }
}
