//! `containerd.services.namespaces.v1.Namespaces`.

use berth_proto as proto;
use berth_types::NamespaceRecord;
use proto::containerd::services::namespaces::v1::{self as wire, namespaces_server};
use proto::convert::from_field_mask;
use tonic::{Request, Response, Status};

use crate::shared::{Shared, existing, ok, required};

/// The service.
pub(crate) struct Namespaces(pub(crate) Shared);

#[tonic::async_trait]
impl namespaces_server::Namespaces for Namespaces {
    async fn get(
        &self,
        request: Request<wire::GetNamespaceRequest>,
    ) -> Result<Response<wire::GetNamespaceResponse>, Status> {
        let name = existing("namespace", &request.into_inner().name)?;
        let record = ok(self.0.catalog.namespaces().namespace(&name).await)?;
        Ok(Response::new(wire::GetNamespaceResponse { namespace: Some(record.into()) }))
    }

    async fn list(
        &self,
        _request: Request<wire::ListNamespacesRequest>,
    ) -> Result<Response<wire::ListNamespacesResponse>, Status> {
        let records = ok(self.0.catalog.namespaces().list().await)?;
        let namespaces = records.into_iter().map(Into::into).collect();
        Ok(Response::new(wire::ListNamespacesResponse { namespaces }))
    }

    async fn create(
        &self,
        request: Request<wire::CreateNamespaceRequest>,
    ) -> Result<Response<wire::CreateNamespaceResponse>, Status> {
        let record = required("the namespace", request.into_inner().namespace)?;
        let record: NamespaceRecord = ok(record.try_into())?;
        let namespaces = self.0.catalog.namespaces();
        let change = async move {
            let made = namespaces.create(record).await?;
            Ok(wire::CreateNamespaceResponse { namespace: Some(made.into()) })
        };
        self.0.mutations.run(change).await
    }

    async fn update(
        &self,
        request: Request<wire::UpdateNamespaceRequest>,
    ) -> Result<Response<wire::UpdateNamespaceResponse>, Status> {
        let wire::UpdateNamespaceRequest { namespace, update_mask } = request.into_inner();
        let NamespaceRecord { name, labels } = ok(required("the namespace", namespace)?.try_into())?;
        let mask = from_field_mask(update_mask);
        let namespaces = self.0.catalog.namespaces();
        let change = async move {
            let updated = namespaces.update(&name, labels, &mask).await?;
            Ok(wire::UpdateNamespaceResponse { namespace: Some(updated.into()) })
        };
        self.0.mutations.run(change).await
    }

    async fn delete(&self, request: Request<wire::DeleteNamespaceRequest>) -> Result<Response<()>, Status> {
        let name = existing("namespace", &request.into_inner().name)?;
        let namespaces = self.0.catalog.namespaces();
        self.0.mutations.run(async move { namespaces.delete(&name).await }).await
    }
}
