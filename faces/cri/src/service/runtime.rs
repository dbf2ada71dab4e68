//! `runtime.v1.RuntimeService`.

use std::sync::Arc;

use berth_proto::runtime::v1 as proto;
use proto::runtime_service_server::RuntimeService;
use tonic::{Request, Response, Status};

use super::Answers;
use crate::Cri;

/// The service.
pub(crate) struct Runtime(pub(crate) Arc<Cri>);

/// What a call that is yet to come answers; clients take it as "this runtime is older".
fn to_come(call: &str) -> Status {
    Status::unimplemented(format!("berth does not run pods yet: {call}"))
}

/// The service, of calls that are there and the names of those to come.
macro_rules! service {
    (
        calls { $($call:ident($request:ident) -> $response:ident;)* }
        streams { $($stream:ident($stream_request:ident) -> $kind:ident of $stream_response:ident;)* }
    ) => {
        #[tonic::async_trait]
        impl RuntimeService for Runtime {
            async fn version(
                &self,
                _request: Request<proto::VersionRequest>,
            ) -> Result<Response<proto::VersionResponse>, Status> {
                Ok(Response::new(self.0.version()))
            }

            async fn status(
                &self,
                request: Request<proto::StatusRequest>,
            ) -> Result<Response<proto::StatusResponse>, Status> {
                Ok(Response::new(self.0.status(request.into_inner().verbose)))
            }

            async fn runtime_config(
                &self,
                _request: Request<proto::RuntimeConfigRequest>,
            ) -> Result<Response<proto::RuntimeConfigResponse>, Status> {
                Ok(Response::new(self.0.runtime_config()))
            }

            $(async fn $call(
                &self,
                _request: Request<proto::$request>,
            ) -> Result<Response<proto::$response>, Status> {
                Err(to_come(stringify!($call)))
            })*

            $(type $kind = Answers<proto::$stream_response>;

            async fn $stream(
                &self,
                _request: Request<proto::$stream_request>,
            ) -> Result<Response<Self::$kind>, Status> {
                Err(to_come(stringify!($stream)))
            })*
        }
    };
}

service! {
    calls {
        run_pod_sandbox(RunPodSandboxRequest) -> RunPodSandboxResponse;
        stop_pod_sandbox(StopPodSandboxRequest) -> StopPodSandboxResponse;
        remove_pod_sandbox(RemovePodSandboxRequest) -> RemovePodSandboxResponse;
        pod_sandbox_status(PodSandboxStatusRequest) -> PodSandboxStatusResponse;
        list_pod_sandbox(ListPodSandboxRequest) -> ListPodSandboxResponse;
        create_container(CreateContainerRequest) -> CreateContainerResponse;
        start_container(StartContainerRequest) -> StartContainerResponse;
        stop_container(StopContainerRequest) -> StopContainerResponse;
        remove_container(RemoveContainerRequest) -> RemoveContainerResponse;
        list_containers(ListContainersRequest) -> ListContainersResponse;
        container_status(ContainerStatusRequest) -> ContainerStatusResponse;
        update_container_resources(UpdateContainerResourcesRequest) -> UpdateContainerResourcesResponse;
        reopen_container_log(ReopenContainerLogRequest) -> ReopenContainerLogResponse;
        exec_sync(ExecSyncRequest) -> ExecSyncResponse;
        exec(ExecRequest) -> ExecResponse;
        attach(AttachRequest) -> AttachResponse;
        port_forward(PortForwardRequest) -> PortForwardResponse;
        container_stats(ContainerStatsRequest) -> ContainerStatsResponse;
        list_container_stats(ListContainerStatsRequest) -> ListContainerStatsResponse;
        pod_sandbox_stats(PodSandboxStatsRequest) -> PodSandboxStatsResponse;
        list_pod_sandbox_stats(ListPodSandboxStatsRequest) -> ListPodSandboxStatsResponse;
        update_runtime_config(UpdateRuntimeConfigRequest) -> UpdateRuntimeConfigResponse;
        checkpoint_container(CheckpointContainerRequest) -> CheckpointContainerResponse;
        list_metric_descriptors(ListMetricDescriptorsRequest) -> ListMetricDescriptorsResponse;
        list_pod_sandbox_metrics(ListPodSandboxMetricsRequest) -> ListPodSandboxMetricsResponse;
        update_pod_sandbox_resources(UpdatePodSandboxResourcesRequest) -> UpdatePodSandboxResourcesResponse;
    }
    streams {
        stream_pod_sandboxes(StreamPodSandboxesRequest) -> StreamPodSandboxesStream of StreamPodSandboxesResponse;
        stream_containers(StreamContainersRequest) -> StreamContainersStream of StreamContainersResponse;
        stream_container_stats(StreamContainerStatsRequest) -> StreamContainerStatsStream of StreamContainerStatsResponse;
        stream_pod_sandbox_stats(StreamPodSandboxStatsRequest) -> StreamPodSandboxStatsStream of StreamPodSandboxStatsResponse;
        get_container_events(GetEventsRequest) -> GetContainerEventsStream of ContainerEventResponse;
        stream_pod_sandbox_metrics(StreamPodSandboxMetricsRequest) -> StreamPodSandboxMetricsStream of StreamPodSandboxMetricsResponse;
    }
}
