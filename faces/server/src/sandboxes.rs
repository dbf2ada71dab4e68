//! `containerd.services.sandbox.v1.Store`.

use std::sync::Arc;

use berth_core::Scope;
use berth_proto as proto;
use berth_types::filter::Filters;
use berth_types::{Error, FieldMask, Sandbox, SandboxId, SandboxUpdate};
use proto::containerd::services::sandbox::v1::{self as wire, store_server};
use tonic::{Request, Response, Status};

use crate::headers::scope;
use crate::shared::{Shared, existing, ok, required};

/// The service.
pub(crate) struct Sandboxes(pub(crate) Shared);

impl Sandboxes {
    fn store(&self, scope: &Scope) -> Result<Arc<dyn berth_core::Sandboxes>, Status> {
        let store = self.0.catalog.sandboxes(scope);
        ok(store.ok_or_else(|| Error::not_implemented("this daemon keeps no sandboxes")))
    }
}

#[tonic::async_trait]
impl store_server::Store for Sandboxes {
    async fn create(
        &self,
        request: Request<wire::StoreCreateRequest>,
    ) -> Result<Response<wire::StoreCreateResponse>, Status> {
        let store = self.store(&scope(&request)?)?;
        let sandbox: Sandbox = ok(required("the sandbox", request.into_inner().sandbox)?.try_into())?;
        let change = async move {
            let made = store.create(sandbox).await?;
            Ok(wire::StoreCreateResponse { sandbox: Some(made.into()) })
        };
        self.0.mutations.run(change).await
    }

    async fn update(
        &self,
        request: Request<wire::StoreUpdateRequest>,
    ) -> Result<Response<wire::StoreUpdateResponse>, Status> {
        let store = self.store(&scope(&request)?)?;
        let wire::StoreUpdateRequest { sandbox, fields } = request.into_inner();
        let sandbox: Sandbox = ok(required("the sandbox", sandbox)?.try_into())?;
        let update = SandboxUpdate { sandbox, mask: FieldMask::new(fields) };
        let change = async move {
            let updated = store.update(update).await?;
            Ok(wire::StoreUpdateResponse { sandbox: Some(updated.into()) })
        };
        self.0.mutations.run(change).await
    }

    async fn delete(
        &self,
        request: Request<wire::StoreDeleteRequest>,
    ) -> Result<Response<wire::StoreDeleteResponse>, Status> {
        let store = self.store(&scope(&request)?)?;
        let id: SandboxId = existing("sandbox", &request.into_inner().sandbox_id)?;
        let change = async move {
            store.delete(&id).await?;
            Ok(wire::StoreDeleteResponse {})
        };
        self.0.mutations.run(change).await
    }

    async fn list(
        &self,
        request: Request<wire::StoreListRequest>,
    ) -> Result<Response<wire::StoreListResponse>, Status> {
        let store = self.store(&scope(&request)?)?;
        let filters = ok(Filters::parse(&request.into_inner().filters))?;
        let list = ok(store.list(&filters).await)?.into_iter().map(Into::into).collect();
        self.0.bounded(wire::StoreListResponse { list })
    }

    async fn get(
        &self,
        request: Request<wire::StoreGetRequest>,
    ) -> Result<Response<wire::StoreGetResponse>, Status> {
        let store = self.store(&scope(&request)?)?;
        let id: SandboxId = existing("sandbox", &request.into_inner().sandbox_id)?;
        let sandbox = ok(store.sandbox(&id).await)?;
        Ok(Response::new(wire::StoreGetResponse { sandbox: Some(sandbox.into()) }))
    }
}
