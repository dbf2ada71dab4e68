//! Namespaces.

use async_trait::async_trait;
use berth_types::{FieldMask, Labels, Namespace, NamespaceRecord, Result};

/// The namespaces of a daemon.
#[async_trait]
pub trait Namespaces: Send + Sync {
    /// One record.
    async fn namespace(&self, name: &Namespace) -> Result<NamespaceRecord>;

    /// Every record, by name.
    async fn list(&self) -> Result<Vec<NamespaceRecord>>;

    /// Makes a namespace. Using one makes it too.
    async fn create(&self, record: NamespaceRecord) -> Result<NamespaceRecord>;

    /// Changes labels as the mask says.
    async fn update(&self, name: &Namespace, labels: Labels, mask: &FieldMask) -> Result<NamespaceRecord>;

    /// Removes an empty namespace; one with images, content, snapshots, containers or leases in
    /// it is answered FailedPrecondition with a list of what is left.
    async fn delete(&self, name: &Namespace) -> Result<()>;
}
