//! Leases over the channel.

use async_trait::async_trait;
use berth_core::{Deletion, Leases};
use berth_proto::containerd::services::leases::v1 as proto;
use berth_proto::convert::{labels, required};
use berth_types::filter::Filters;
use berth_types::{Labels, Lease, LeaseId, LeaseResource, Result};

use crate::bound::{Bound, RECORDS, WORK, call};

type Service = proto::leases_client::LeasesClient<tonic::transport::Channel>;

pub(crate) struct Remote(pub(crate) Bound);

#[async_trait]
impl Leases for Remote {
    async fn create(&self, id: Option<LeaseId>, marks: Labels) -> Result<Lease> {
        // Go clients name their leases themselves; a daemon that gets no name makes one.
        let id = id.map(String::from).unwrap_or_default();
        let message = proto::CreateRequest { id, labels: labels(marks) };
        let answer = call!(self.0, Service, create, message, RECORDS)?;
        required("the lease in the daemon's answer", answer.lease)?.try_into()
    }

    async fn delete(&self, id: &LeaseId, deletion: Deletion) -> Result<()> {
        let sync = deletion == Deletion::Synchronous;
        let message = proto::DeleteRequest { id: id.to_string(), sync };
        let deadline = if sync { WORK } else { RECORDS };
        call!(self.0, Service, delete, message, deadline).map(drop)
    }

    async fn list(&self, filters: &Filters) -> Result<Vec<Lease>> {
        let message = proto::ListRequest { filters: filters.texts().to_vec() };
        let answer = call!(self.0, Service, list, message, RECORDS)?;
        answer.leases.into_iter().map(TryInto::try_into).collect()
    }

    async fn add_resource(&self, id: &LeaseId, resource: LeaseResource) -> Result<()> {
        let message = proto::AddResourceRequest { id: id.to_string(), resource: Some(resource.into()) };
        call!(self.0, Service, add_resource, message, RECORDS).map(drop)
    }

    async fn delete_resource(&self, id: &LeaseId, resource: LeaseResource) -> Result<()> {
        let message = proto::DeleteResourceRequest { id: id.to_string(), resource: Some(resource.into()) };
        call!(self.0, Service, delete_resource, message, RECORDS).map(drop)
    }

    async fn resources(&self, id: &LeaseId) -> Result<Vec<LeaseResource>> {
        let message = proto::ListResourcesRequest { id: id.to_string() };
        let answer = call!(self.0, Service, list_resources, message, RECORDS)?;
        Ok(answer.resources.into_iter().map(Into::into).collect())
    }
}
