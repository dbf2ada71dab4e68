//! Leases and what they hold.

use berth_types::{Error, Lease, LeaseId, LeaseResource};

use super::{from_labels, labels, time, timestamp};
use crate::containerd::services::leases::v1 as wire;

impl From<Lease> for wire::Lease {
    fn from(lease: Lease) -> Self {
        Self { id: lease.id.into(), created_at: timestamp(lease.created_at), labels: labels(lease.labels) }
    }
}

impl TryFrom<wire::Lease> for Lease {
    type Error = Error;

    fn try_from(lease: wire::Lease) -> Result<Self, Error> {
        Ok(Self {
            id: LeaseId::try_from(lease.id)?,
            created_at: time(lease.created_at),
            labels: from_labels(lease.labels),
        })
    }
}

impl From<LeaseResource> for wire::Resource {
    fn from(resource: LeaseResource) -> Self {
        Self { id: resource.id, r#type: resource.kind }
    }
}

impl From<wire::Resource> for LeaseResource {
    fn from(resource: wire::Resource) -> Self {
        Self { id: resource.id, kind: resource.r#type }
    }
}
