//! `containerd.services.leases.v1.Leases`.

use berth_core::Deletion;
use berth_proto as proto;
use berth_types::LeaseId;
use berth_types::filter::Filters;
use proto::containerd::services::leases::v1::{self as wire, leases_server};
use proto::convert::from_labels;
use tonic::{Request, Response, Status};

use crate::headers::scope;
use crate::shared::{Shared, existing, ok, optional, required};
use crate::streaming::Pipes;

/// The service.
pub(crate) struct Leases(pub(crate) Shared, pub(crate) Pipes);

#[tonic::async_trait]
impl leases_server::Leases for Leases {
    async fn create(
        &self,
        request: Request<wire::CreateRequest>,
    ) -> Result<Response<wire::CreateResponse>, Status> {
        let leases = self.0.catalog.leases(&scope(&request)?);
        let wire::CreateRequest { id, labels } = request.into_inner();
        let id: Option<LeaseId> = optional(&id)?;
        let change = async move {
            let lease = leases.create(id, from_labels(labels)).await?;
            Ok(wire::CreateResponse { lease: Some(lease.into()) })
        };
        self.0.mutations.run(change).await
    }

    async fn delete(&self, request: Request<wire::DeleteRequest>) -> Result<Response<()>, Status> {
        let scope = scope(&request)?;
        let (leases, pipes) = (self.0.catalog.leases(&scope), self.1.clone());
        let wire::DeleteRequest { id, sync } = request.into_inner();
        let id: LeaseId = existing("lease", &id)?;
        let deletion = if sync { Deletion::Synchronous } else { Deletion::Later };
        let change = async move {
            leases.delete(&id, deletion).await?;
            pipes.lease_ended(&scope.namespace, &id);
            Ok(())
        };
        self.0.mutations.run(change).await
    }

    async fn list(
        &self,
        request: Request<wire::ListRequest>,
    ) -> Result<Response<wire::ListResponse>, Status> {
        let leases = self.0.catalog.leases(&scope(&request)?);
        let filters = ok(Filters::parse(&request.into_inner().filters))?;
        let found = ok(leases.list(&filters).await)?;
        self.0.bounded(wire::ListResponse { leases: found.into_iter().map(Into::into).collect() })
    }

    async fn add_resource(&self, request: Request<wire::AddResourceRequest>) -> Result<Response<()>, Status> {
        let leases = self.0.catalog.leases(&scope(&request)?);
        let wire::AddResourceRequest { id, resource } = request.into_inner();
        let id: LeaseId = existing("lease", &id)?;
        let resource = required("the resource", resource)?.into();
        self.0.mutations.run(async move { leases.add_resource(&id, resource).await }).await
    }

    async fn delete_resource(
        &self,
        request: Request<wire::DeleteResourceRequest>,
    ) -> Result<Response<()>, Status> {
        let leases = self.0.catalog.leases(&scope(&request)?);
        let wire::DeleteResourceRequest { id, resource } = request.into_inner();
        let id: LeaseId = existing("lease", &id)?;
        let resource = required("the resource", resource)?.into();
        self.0.mutations.run(async move { leases.delete_resource(&id, resource).await }).await
    }

    async fn list_resources(
        &self,
        request: Request<wire::ListResourcesRequest>,
    ) -> Result<Response<wire::ListResourcesResponse>, Status> {
        let leases = self.0.catalog.leases(&scope(&request)?);
        let id: LeaseId = existing("lease", &request.into_inner().id)?;
        let found = ok(leases.resources(&id).await)?;
        self.0.bounded(wire::ListResourcesResponse { resources: found.into_iter().map(Into::into).collect() })
    }
}
