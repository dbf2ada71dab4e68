//! `containerd.services.introspection.v1.Introspection`.

use berth_proto as proto;
use proto::containerd::services::introspection::v1::{self as wire, introspection_server};
use proto::convert::{any, from_any};
use tonic::{Request, Response, Status};

use crate::shared::{Shared, ok};

/// The service.
pub(crate) struct Introspection(pub(crate) Shared);

#[tonic::async_trait]
impl introspection_server::Introspection for Introspection {
    async fn plugins(
        &self,
        request: Request<wire::PluginsRequest>,
    ) -> Result<Response<wire::PluginsResponse>, Status> {
        let plugins = ok(self.0.catalog.introspection().plugins(&request.into_inner().filters).await)?;
        Ok(Response::new(wire::PluginsResponse { plugins: plugins.into_iter().map(Into::into).collect() }))
    }

    async fn server(&self, _request: Request<()>) -> Result<Response<wire::ServerResponse>, Status> {
        let server = ok(self.0.catalog.introspection().server().await)?;
        Ok(Response::new(server.into()))
    }

    async fn plugin_info(
        &self,
        request: Request<wire::PluginInfoRequest>,
    ) -> Result<Response<wire::PluginInfoResponse>, Status> {
        let wire::PluginInfoRequest { r#type, id, options } = request.into_inner();
        let introspection = self.0.catalog.introspection();
        let (plugin, extra) = ok(introspection.plugin(&r#type, &id, options.map(from_any)).await)?;
        Ok(Response::new(wire::PluginInfoResponse { plugin: Some(plugin.into()), extra: extra.map(any) }))
    }
}
