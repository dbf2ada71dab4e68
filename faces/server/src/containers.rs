//! `containerd.services.containers.v1.Containers`.

use berth_core::Scope;
use berth_proto as proto;
use berth_types::filter::Filters;
use berth_types::{Container, ContainerId, ContainerUpdate};
use proto::containerd::services::containers::v1::{self as wire, containers_server};
use proto::convert::from_field_mask;
use tonic::{Request, Response, Status};

use crate::headers::scope;
use crate::shared::{Answers, Shared, ok, required};

/// The service.
pub(crate) struct Containers(pub(crate) Shared);

impl Containers {
    async fn find(&self, scope: &Scope, filters: &[String]) -> Result<Vec<Container>, Status> {
        let filters = ok(Filters::parse(filters))?;
        ok(self.0.catalog.containers(scope).list(&filters).await)
    }
}

/// The id of a container that is asked for.
pub(crate) fn container_id(scope: &Scope, id: &str) -> Result<ContainerId, Status> {
    id.parse().map_err(|_| {
        Status::not_found(format!("container {id:?} in namespace {:?}: not found", scope.namespace.as_str()))
    })
}

#[tonic::async_trait]
impl containers_server::Containers for Containers {
    type ListStreamStream = Answers<wire::ListContainerMessage>;

    async fn get(
        &self,
        request: Request<wire::GetContainerRequest>,
    ) -> Result<Response<wire::GetContainerResponse>, Status> {
        let scope = scope(&request)?;
        let id = container_id(&scope, &request.into_inner().id)?;
        let container = ok(self.0.catalog.containers(&scope).container(&id).await)?;
        Ok(Response::new(wire::GetContainerResponse { container: Some(container.into()) }))
    }

    async fn list(
        &self,
        request: Request<wire::ListContainersRequest>,
    ) -> Result<Response<wire::ListContainersResponse>, Status> {
        let found = self.find(&scope(&request)?, &request.into_inner().filters).await?;
        let containers = found.into_iter().map(Into::into).collect();
        self.0.bounded(wire::ListContainersResponse { containers })
    }

    async fn list_stream(
        &self,
        request: Request<wire::ListContainersRequest>,
    ) -> Result<Response<Self::ListStreamStream>, Status> {
        let found = self.find(&scope(&request)?, &request.into_inner().filters).await?;
        let messages =
            found.into_iter().map(|one| Ok(wire::ListContainerMessage { container: Some(one.into()) }));
        Ok(Response::new(Box::pin(futures::stream::iter(messages))))
    }

    async fn create(
        &self,
        request: Request<wire::CreateContainerRequest>,
    ) -> Result<Response<wire::CreateContainerResponse>, Status> {
        let containers = self.0.catalog.containers(&scope(&request)?);
        let container = required("the container", request.into_inner().container)?;
        let container: Container = ok(container.try_into())?;
        let change = async move {
            let made = containers.create(container).await?;
            Ok(wire::CreateContainerResponse { container: Some(made.into()) })
        };
        self.0.mutations.run(change).await
    }

    async fn update(
        &self,
        request: Request<wire::UpdateContainerRequest>,
    ) -> Result<Response<wire::UpdateContainerResponse>, Status> {
        let containers = self.0.catalog.containers(&scope(&request)?);
        let wire::UpdateContainerRequest { container, update_mask } = request.into_inner();
        let container = required("the container", container)?;
        if container.id.is_empty() {
            return Err(Status::invalid_argument("Container.ID required"));
        }
        let update =
            ContainerUpdate { container: ok(container.try_into())?, mask: from_field_mask(update_mask) };
        let change = async move {
            let updated = containers.update(update).await?;
            Ok(wire::UpdateContainerResponse { container: Some(updated.into()) })
        };
        self.0.mutations.run(change).await
    }

    async fn delete(&self, request: Request<wire::DeleteContainerRequest>) -> Result<Response<()>, Status> {
        let scope = scope(&request)?;
        let id = container_id(&scope, &request.into_inner().id)?;
        let containers = self.0.catalog.containers(&scope);
        self.0.mutations.run(async move { containers.delete(&id).await }).await
    }
}
