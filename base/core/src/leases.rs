//! Leases.

use async_trait::async_trait;
use berth_types::filter::Filters;
use berth_types::{Labels, Lease, LeaseId, LeaseResource, Result};

use crate::Deletion;

/// The leases of a namespace.
#[async_trait]
pub trait Leases: Send + Sync {
    /// Makes a lease; without an id, under a new one.
    async fn create(&self, id: Option<LeaseId>, labels: Labels) -> Result<Lease>;

    /// Ends a lease.
    async fn delete(&self, id: &LeaseId, deletion: Deletion) -> Result<()>;

    /// Every lease that passes the filters.
    async fn list(&self, filters: &Filters) -> Result<Vec<Lease>>;

    /// Lets a lease hold one more thing.
    async fn add_resource(&self, id: &LeaseId, resource: LeaseResource) -> Result<()>;

    /// Lets a lease hold one thing less.
    async fn delete_resource(&self, id: &LeaseId, resource: LeaseResource) -> Result<()>;

    /// What a lease holds.
    async fn resources(&self, id: &LeaseId) -> Result<Vec<LeaseResource>>;
}
