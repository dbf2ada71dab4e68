//! `containerd.services.version.v1.Version`.

use berth_proto as proto;
use proto::containerd::services::version::v1::{VersionResponse, version_server};
use tonic::{Request, Response, Status};

use crate::shared::{Shared, ok};

/// The service.
pub(crate) struct Version(pub(crate) Shared);

#[tonic::async_trait]
impl version_server::Version for Version {
    async fn version(&self, _request: Request<()>) -> Result<Response<VersionResponse>, Status> {
        let (version, revision) = ok(self.0.catalog.introspection().version().await)?;
        Ok(Response::new(VersionResponse { version, revision }))
    }
}
