//! Updates of containers: of the one whose resources a client changes, and of others.

use super::{MergeError, resources};
use crate::owners::{Claim, Owners};
use crate::proto::{ContainerUpdate, LinuxResources};

/// What plugins asked of containers that run.
#[derive(Debug, Default)]
pub(crate) struct Updates {
    /// The container that the request is about, which no plugin may update as if it were another.
    unborn: Option<String>,
    /// The container whose resources the client changes, and to what.
    wanted: Option<Wanted>,
    others: Vec<ContainerUpdate>,
}

/// What a client wants a container's resources to be, and plugins made of it.
#[derive(Debug)]
pub(crate) struct Wanted {
    pub(crate) container: String,
    pub(crate) resources: LinuxResources,
    /// Whether a plugin changed them.
    pub(crate) changed: bool,
}

impl Updates {
    /// For a container that is being made.
    pub(crate) fn while_making(container: &str) -> Self {
        Self { unborn: Some(container.to_owned()), ..Self::default() }
    }

    /// For a client's update.
    pub(crate) fn of(container: &str, resources: LinuxResources) -> Self {
        let wanted = Wanted { container: container.to_owned(), resources, changed: false };
        Self { wanted: Some(wanted), ..Self::default() }
    }

    /// Adds what a plugin asked for. An update that may fail is left out when it meets another plugin's.
    pub(crate) fn merge(
        &mut self,
        owners: &mut Owners,
        plugin: &str,
        asked: Vec<ContainerUpdate>,
    ) -> Result<(), MergeError> {
        for update in asked {
            if self.unborn.as_ref() == Some(&update.container_id) {
                let (plugin, container) = (plugin.to_owned(), update.container_id);
                return Err(MergeError::Unborn { plugin, container });
            }
            match self.one(owners, plugin, &update) {
                Err(_) if update.ignore_failure => {}
                merged => merged?,
            }
        }
        Ok(())
    }

    fn one(&mut self, owners: &mut Owners, plugin: &str, asked: &ContainerUpdate) -> Result<(), MergeError> {
        let Some(wish) = asked.linux.as_ref().and_then(|linux| linux.resources.as_ref()) else {
            return Ok(());
        };
        let by = Claim { container: &asked.container_id, plugin };
        if let Some(wanted) = self.wanted.as_mut().filter(|wanted| wanted.container == asked.container_id) {
            // On a copy: what fails half-way changes nothing.
            let mut resources = wanted.resources.clone();
            resources::merge(owners, by, wish, &mut [&mut resources])?;
            (wanted.resources, wanted.changed) = (resources, true);
            return Ok(());
        }
        let known = self.others.iter_mut().find(|other| other.container_id == asked.container_id);
        let before = known.as_ref().and_then(|other| other.linux.clone()).and_then(|linux| linux.resources);
        let mut resources = before.unwrap_or_default();
        resources::merge(owners, by, wish, &mut [&mut resources])?;
        if let Some(other) = known {
            other.linux.get_or_insert_default().resources = Some(resources);
            other.ignore_failure &= asked.ignore_failure;
        } else {
            let mut update = asked.clone();
            update.linux.get_or_insert_default().resources = Some(resources);
            self.others.push(update);
        }
        Ok(())
    }

    /// What the client's container is to have now, for the next plugin.
    pub(crate) fn wanted(&self) -> Option<&LinuxResources> {
        self.wanted.as_ref().map(|wanted| &wanted.resources)
    }

    /// The client's container, and the others.
    pub(crate) fn finish(self) -> (Option<Wanted>, Vec<ContainerUpdate>) {
        (self.wanted, self.others)
    }
}
