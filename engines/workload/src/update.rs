//! Changing a container that is there: its limits, its name.

use berth_core::UpdateTask;
use berth_types::{Any, Container, ContainerUpdate, Error, FieldMask, ProcessStatus, Result, RuntimeInfo};

use crate::parse::RestartName;
use crate::{Found, HostConfig, Workload, labels, names, spec};

const RESOURCES_TYPE: &str = "types.containerd.io/opencontainers/runtime-spec/1/LinuxResources";

impl Workload {
    /// Gives a container another name.
    pub async fn rename(&self, found: &Found, name: &str) -> Result<()> {
        names::check(name)?;
        let id = &found.container.id;
        let old = found.name().to_owned();
        if old == name {
            return Err(Error::invalid_argument(
                "Renaming a container with the same name as its current name",
            ));
        }
        if let Some(other) = self.by_name(name).await? {
            return Err(names::in_use(name, other.id.as_str()));
        }
        names::reserve(&self.home, Some(name), id)?;
        let mut container = Container::new(id.clone(), RuntimeInfo::default());
        container.labels.insert(labels::NAME.to_owned(), name.to_owned());
        let mask = FieldMask::new([format!("labels.{}", labels::NAME)]);
        let update = ContainerUpdate { container, mask };
        match self.catalog.containers(&self.scope).update(update).await {
            Ok(_) => {
                names::release(&self.home, &old, id);
                Ok(())
            }
            Err(error) => {
                names::release(&self.home, name, id);
                Err(error)
            }
        }
    }

    /// Changes limits and the restart policy: `change` gets what holds now.
    pub async fn update(&self, found: &Found, change: impl FnOnce(&mut HostConfig)) -> Result<()> {
        let mut definition = found.definition()?;
        let before = definition.host.restart_policy;
        change(&mut definition.host);
        let mut document = found.spec()?;
        let new = spec::resources(&definition.host)?;
        let linux = document.linux.get_or_insert_default();
        let devices = linux.resources.take().map(|resources| resources.devices).unwrap_or_default();
        linux.resources = Some(berth_oci::runtime::Resources { devices, ..new.clone() });
        let state = self.task_state(&found.container.id).await?;
        let running =
            state.is_some_and(|state| matches!(state.status, ProcessStatus::Running | ProcessStatus::Paused));
        if running {
            let json = serde_json::to_vec(&new).expect("strings and numbers always serialize");
            let request = UpdateTask {
                container: found.container.id.clone(),
                resources: Some(Any::new(RESOURCES_TYPE, json)),
                annotations: std::collections::BTreeMap::new(),
            };
            self.catalog.tasks(&self.scope).update(request).await?;
        }
        let mut container = found.container.clone();
        let kind = container.spec.as_ref().map(|any| any.type_url.clone()).unwrap_or_default();
        container.spec = Some(Any::new(kind, document.to_vec()));
        container.extensions.insert(labels::DEFINITION.to_owned(), definition.to_any());
        let mut paths = vec!["spec".to_owned(), format!("extensions.{}", labels::DEFINITION)];
        let policy = definition.host.restart_policy;
        if policy != before {
            let none = policy.name == RestartName::No;
            container.labels.insert(labels::RESTART_POLICY.to_owned(), policy.label());
            let status = if none || !running { "stopped" } else { "running" };
            container.labels.insert(labels::RESTART_STATUS.to_owned(), status.to_owned());
            let keys = [labels::RESTART_POLICY, labels::RESTART_STATUS];
            paths.extend(keys.map(|key| format!("labels.{key}")));
        }
        let update = ContainerUpdate { container, mask: FieldMask::new(paths) };
        self.catalog.containers(&self.scope).update(update).await.map(drop)
    }
}
