//! Container records.

use berth_types::{Container, ContainerId, Error, Namespace, NamespaceRecord, RuntimeInfo};

use super::{any, from_any, from_labels, labels, time, timestamp};
use crate::containerd::services::{containers::v1 as wire, namespaces::v1::Namespace as WireNamespace};

impl From<Container> for wire::Container {
    fn from(container: Container) -> Self {
        let Container {
            id,
            labels: marks,
            image,
            runtime,
            spec,
            snapshotter,
            snapshot_key,
            created_at,
            updated_at,
            extensions,
            sandbox,
        } = container;
        Self {
            id: id.into(),
            labels: labels(marks),
            image,
            runtime: Some(wire::container::Runtime { name: runtime.name, options: runtime.options.map(any) }),
            spec: spec.map(any),
            snapshotter,
            snapshot_key,
            created_at: timestamp(created_at),
            updated_at: timestamp(updated_at),
            extensions: extensions.into_iter().map(|(name, value)| (name, any(value))).collect(),
            sandbox,
        }
    }
}

impl TryFrom<wire::Container> for Container {
    type Error = Error;

    fn try_from(container: wire::Container) -> Result<Self, Error> {
        let wire::Container {
            id,
            labels: marks,
            image,
            runtime,
            spec,
            snapshotter,
            snapshot_key,
            created_at,
            updated_at,
            extensions,
            sandbox,
        } = container;
        let runtime = runtime.unwrap_or_default();
        Ok(Self {
            id: ContainerId::try_from(id)?,
            labels: from_labels(marks),
            image,
            runtime: RuntimeInfo { name: runtime.name, options: runtime.options.map(from_any) },
            spec: spec.map(from_any),
            snapshotter,
            snapshot_key,
            created_at: time(created_at),
            updated_at: time(updated_at),
            extensions: extensions.into_iter().map(|(name, value)| (name, from_any(value))).collect(),
            sandbox,
        })
    }
}

impl From<NamespaceRecord> for WireNamespace {
    fn from(record: NamespaceRecord) -> Self {
        Self { name: record.name.into(), labels: labels(record.labels) }
    }
}

impl TryFrom<WireNamespace> for NamespaceRecord {
    type Error = Error;

    fn try_from(record: WireNamespace) -> Result<Self, Error> {
        Ok(Self { name: Namespace::try_from(record.name)?, labels: from_labels(record.labels) })
    }
}
