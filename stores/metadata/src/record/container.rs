//! Containers.

use berth_types::{Container, ContainerId, Result, RuntimeInfo};

use super::Record;
use crate::codec::{Damaged, Decoder, Encoder};
use crate::key::{Kind, key};

/// A container as it is stored; its id is in the key, and a stand-in here after reading.
#[derive(Debug)]
pub(crate) struct ContainerRecord(Container);

impl ContainerRecord {
    pub(crate) fn key(namespace: &str, id: &str) -> Vec<u8> {
        key(Kind::Container, &[namespace, id])
    }

    pub(crate) fn new(container: Container) -> Self {
        Self(container)
    }

    pub(crate) fn named(self, id: ContainerId) -> Container {
        Container { id, ..self.0 }
    }

    /// The record without its name.
    pub(crate) fn fields(&self) -> &Container {
        &self.0
    }
}

impl Record for ContainerRecord {
    fn write(&self, to: Encoder) -> Encoder {
        let Container {
            id: _,
            labels,
            image,
            runtime,
            spec,
            snapshotter,
            snapshot_key,
            created_at,
            updated_at,
            extensions,
            sandbox,
        } = &self.0;
        to.labels(labels)
            .text(image)
            .text(&runtime.name)
            .any(runtime.options.as_ref())
            .any(spec.as_ref())
            .text(snapshotter)
            .text(snapshot_key)
            .time(*created_at)
            .time(*updated_at)
            .anys(extensions)
            .text(sandbox)
    }

    fn read(from: &mut Decoder<'_>) -> Result<Self, Damaged> {
        let unnamed: ContainerId = "unnamed".parse().map_err(|_| Damaged("id"))?;
        let mut container = Container::new(unnamed, RuntimeInfo::default());
        container.labels = from.labels()?;
        container.image = from.text()?;
        container.runtime = RuntimeInfo { name: from.text()?, options: from.any()? };
        container.spec = from.any()?;
        container.snapshotter = from.text()?;
        container.snapshot_key = from.text()?;
        container.created_at = from.time()?;
        container.updated_at = from.time()?;
        container.extensions = from.anys()?;
        container.sandbox = from.text()?;
        Ok(Self(container))
    }
}
