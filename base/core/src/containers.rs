//! Container records.

use async_trait::async_trait;
use berth_types::filter::Filters;
use berth_types::{Container, ContainerId, ContainerUpdate, Result};

/// The container records of a namespace.
#[async_trait]
pub trait Containers: Send + Sync {
    /// One record.
    async fn container(&self, id: &ContainerId) -> Result<Container>;

    /// Every record that passes the filters, by id.
    async fn list(&self, filters: &Filters) -> Result<Vec<Container>>;

    /// Stores a new record; the store sets its times. It needs a runtime's name and a spec.
    async fn create(&self, container: Container) -> Result<Container>;

    /// Changes a record as the mask says: `labels[.KEY]`, `spec`, `extensions[.KEY]`, `image`,
    /// `snapshotkey`. Runtime and snapshotter cannot change.
    async fn update(&self, update: ContainerUpdate) -> Result<Container>;

    /// Removes a record.
    async fn delete(&self, id: &ContainerId) -> Result<()>;
}
