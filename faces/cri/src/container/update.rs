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

/// A change of limits.
pub(crate) struct Change {
    /// As a kubelet asks for it, and is shown it.
    pub(crate) limits: proto::LinuxContainerResources,
    /// As the runtime takes it.
    pub(crate) resources: Resources,
    /// What the runtime is told beside.
    pub(crate) annotations: BTreeMap<String, String>,
}

impl Cri {
    /// Changes the limits of a container, now if it runs, and for its start if it has not been started.
    pub(crate) async fn update_container(
        self: &Arc<Self>,
        request: proto::UpdateContainerResourcesRequest,
    ) -> Result<()> {
        let _pause = self.pause_joins().await;
        let container = self.container(&request.container_id)?;
        let limits = request.linux.unwrap_or_default();
        let resources = resources(&limits, &self.config.pods)?;
        let mut change = Change { limits, resources, annotations: request.annotations.into_iter().collect() };
        // Before the lock: plugins may want to change others too.
        self.ask_update(&container, &mut change).await?;
        let _work = container.work.lock().await;
        self.change_limits(&container, change).await?;
        self.tell_updated(&container).await;
        Ok(())
    }

    /// The same by whoever holds the container's lock.
    pub(crate) async fn change_limits(&self, container: &Container, change: Change) -> Result<()> {
        let state = container.life().state();
        if state == ContainerState::ContainerExited {
            return Err(Error::failed_precondition(format!(
                "container {} has ended: its limits cannot be changed",
                container.id
            )));
        }
        let Change { limits, resources, annotations } = change;
        if state == ContainerState::ContainerRunning {
            let json = serde_json::to_vec(&resources)
                .map_err(|error| Error::internal("limits cannot be written").caused_by(error))?;
            let update = UpdateTask {
                container: container.id.clone(),
                resources: Some(Any::new(RESOURCES_TYPE, json)),
                annotations,
            };
            self.tasks().update(update).await?;
        }
        let limits = merged(container.limits().unwrap_or_default(), limits);
        self.store_limits(container, &limits, &resources).await?;
        container.set_limits(limits);
        Ok(())
    }

    /// Stores them beside the request, and their change in the specification.
    async fn store_limits(
        &self,
        container: &Container,
        limits: &proto::LinuxContainerResources,
        change: &Resources,
    ) -> Result<()> {
        let store = self.containers_store();
        let record = store.container(&container.id).await?;
        let unreadable = || Error::data_loss(format!("the specification of {} cannot be read", container.id));
        let mut spec: Spec =
            record.spec.and_then(|spec| serde_json::from_slice(&spec.value).ok()).ok_or_else(unreadable)?;
        if let Some(linux) = &mut spec.linux {
            let into = linux.resources.get_or_insert_default();
            berth_nri::apply_resources(into, &berth_nri::describe_resources(change));
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
