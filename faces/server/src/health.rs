//! `grpc.health.v1.Health`, as Go's health server answers it: the server as a whole is serving, and it knows no
//! service by name.

use berth_proto as proto;
use futures::StreamExt;
use proto::grpc::health::v1::health_check_response::ServingStatus;
use proto::grpc::health::v1::{
    HealthCheckRequest, HealthCheckResponse, HealthListRequest, HealthListResponse, health_server,
};
use tonic::{Request, Response, Status};

use crate::shared::Answers;

/// The service.
pub(crate) struct Health;

fn message(status: ServingStatus) -> HealthCheckResponse {
    HealthCheckResponse { status: status as i32 }
}

#[tonic::async_trait]
impl health_server::Health for Health {
    type WatchStream = Answers<HealthCheckResponse>;

    async fn check(
        &self,
        request: Request<HealthCheckRequest>,
    ) -> Result<Response<HealthCheckResponse>, Status> {
        if request.into_inner().service.is_empty() {
            Ok(Response::new(message(ServingStatus::Serving)))
        } else {
            Err(Status::not_found("unknown service"))
        }
    }

    async fn list(
        &self,
        _request: Request<HealthListRequest>,
    ) -> Result<Response<HealthListResponse>, Status> {
        let statuses = [(String::new(), message(ServingStatus::Serving))].into();
        Ok(Response::new(HealthListResponse { statuses }))
    }

    /// One message, then silence: the state of a daemon that answers does not change.
    async fn watch(
        &self,
        request: Request<HealthCheckRequest>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        let known = request.into_inner().service.is_empty();
        let status = if known { ServingStatus::Serving } else { ServingStatus::ServiceUnknown };
        let first = futures::stream::iter([Ok(message(status))]);
        Ok(Response::new(Box::pin(first.chain(futures::stream::pending()))))
    }
}
