//! `containerd.services.mounts.v1.Mounts`.

use std::sync::Arc;

use berth_core::{Extent, NewActivation, Scope};
use berth_proto as proto;
use berth_types::filter::Filters;
use berth_types::{Activation, Error};
use proto::containerd::services::mounts::v1::{self as wire, mounts_server};
use proto::convert::{from_field_mask, from_labels, mounts_from};
use tonic::{Request, Response, Status};

use crate::headers::scope;
use crate::shared::{Answers, Shared, ok, required};

/// The service.
pub(crate) struct Mounts(pub(crate) Shared);

impl Mounts {
    fn of(&self, scope: &Scope) -> Result<Arc<dyn berth_core::Mounts>, Status> {
        let mounts = self.0.catalog.mounts(scope);
        ok(mounts.ok_or_else(|| Error::not_implemented("this daemon mounts nothing for clients")))
    }
}

#[tonic::async_trait]
impl mounts_server::Mounts for Mounts {
    type ListStream = Answers<wire::ListMessage>;

    async fn activate(
        &self,
        request: Request<wire::ActivateRequest>,
    ) -> Result<Response<wire::ActivateResponse>, Status> {
        let of = self.of(&scope(&request)?)?;
        let wire::ActivateRequest { name, mounts, labels, temporary } = request.into_inner();
        let new = NewActivation {
            name,
            mounts: mounts_from(mounts),
            labels: from_labels(labels),
            extent: if temporary { Extent::Everything } else { Extent::Needed },
            by_client: Vec::new(),
        };
        let change = async move {
            let info = of.activate(new).await?;
            Ok(wire::ActivateResponse { info: Some(info.into()) })
        };
        self.0.mutations.run(change).await
    }

    async fn deactivate(&self, request: Request<wire::DeactivateRequest>) -> Result<Response<()>, Status> {
        let of = self.of(&scope(&request)?)?;
        let name = request.into_inner().name;
        self.0.mutations.run(async move { of.deactivate(&name).await }).await
    }

    async fn info(
        &self,
        request: Request<wire::InfoRequest>,
    ) -> Result<Response<wire::InfoResponse>, Status> {
        let of = self.of(&scope(&request)?)?;
        let info = ok(of.info(&request.into_inner().name).await)?;
        self.0.bounded(wire::InfoResponse { info: Some(info.into()) })
    }

    async fn update(
        &self,
        request: Request<wire::UpdateRequest>,
    ) -> Result<Response<wire::UpdateResponse>, Status> {
        let of = self.of(&scope(&request)?)?;
        let wire::UpdateRequest { info, update_mask } = request.into_inner();
        let Activation { name, labels, .. } = required("the activation", info)?.into();
        let mask = from_field_mask(update_mask);
        let change = async move {
            let info = of.update(&name, labels, &mask).await?;
            Ok(wire::UpdateResponse { info: Some(info.into()) })
        };
        self.0.mutations.run(change).await
    }

    async fn list(&self, request: Request<wire::ListRequest>) -> Result<Response<Self::ListStream>, Status> {
        let of = self.of(&scope(&request)?)?;
        let filters = ok(Filters::parse(&request.into_inner().filters))?;
        let found = ok(of.list(&filters).await)?;
        let messages = found.into_iter().map(|info| Ok(wire::ListMessage { info: Some(info.into()) }));
        Ok(Response::new(Box::pin(futures::stream::iter(messages))))
    }
}
