//! `runtime.v1.RuntimeService`.

use std::sync::Arc;

use berth_proto::runtime::v1 as proto;
use futures::stream::{self, BoxStream, StreamExt as _};
use proto::runtime_service_server::RuntimeService;
use tokio::sync::broadcast::error::RecvError;
use tonic::{Request, Response, Status};

use super::{Answers, ok};
use crate::Cri;
use crate::stats::descriptors;

/// Things in one message of a stream: what containerd sends at once.
const BLOCK: usize = 100;

/// The service.
pub(crate) struct Runtime(pub(crate) Arc<Cri>);

/// A list as a stream of messages of at most [`BLOCK`] of its items.
fn in_blocks<T: Send + 'static, M: Send + 'static>(
    items: Vec<T>,
    message: fn(Vec<T>) -> M,
) -> Response<BoxStream<'static, Result<M, Status>>> {
    let blocks = stream::iter(items).chunks(BLOCK).map(move |block| Ok(message(block)));
    Response::new(blocks.boxed())
}

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
        Ok(Response::new(self.0.status(request.into_inner().verbose).await))
    }

    async fn runtime_config(
        &self,
        _request: Request<proto::RuntimeConfigRequest>,
    ) -> Result<Response<proto::RuntimeConfigResponse>, Status> {
        Ok(Response::new(self.0.runtime_config()))
    }

    /// containerd heeds the pod network's range only where it writes a network configuration from a template.
    async fn update_runtime_config(
        &self,
        _request: Request<proto::UpdateRuntimeConfigRequest>,
    ) -> Result<Response<proto::UpdateRuntimeConfigResponse>, Status> {
        Ok(Response::new(proto::UpdateRuntimeConfigResponse {}))
    }

    async fn run_pod_sandbox(
        &self,
        request: Request<proto::RunPodSandboxRequest>,
    ) -> Result<Response<proto::RunPodSandboxResponse>, Status> {
        let proto::RunPodSandboxRequest { config, runtime_handler } = request.into_inner();
        let config =
            config.ok_or_else(|| Status::invalid_argument("the request must include a sandbox config"))?;
        let pod_sandbox_id = ok(self.0.run_pod(config, &runtime_handler).await)?;
        Ok(Response::new(proto::RunPodSandboxResponse { pod_sandbox_id }))
    }

    async fn stop_pod_sandbox(
        &self,
        request: Request<proto::StopPodSandboxRequest>,
    ) -> Result<Response<proto::StopPodSandboxResponse>, Status> {
        ok(self.0.stop_pod(&request.into_inner().pod_sandbox_id).await)?;
        Ok(Response::new(proto::StopPodSandboxResponse {}))
    }

    async fn remove_pod_sandbox(
        &self,
        request: Request<proto::RemovePodSandboxRequest>,
    ) -> Result<Response<proto::RemovePodSandboxResponse>, Status> {
        ok(self.0.remove_pod(&request.into_inner().pod_sandbox_id).await)?;
        Ok(Response::new(proto::RemovePodSandboxResponse {}))
    }

    async fn pod_sandbox_status(
        &self,
        request: Request<proto::PodSandboxStatusRequest>,
    ) -> Result<Response<proto::PodSandboxStatusResponse>, Status> {
        let request = request.into_inner();
        ok(self.0.pod_status(&request.pod_sandbox_id, request.verbose).await).map(Response::new)
    }

    async fn list_pod_sandbox(
        &self,
        request: Request<proto::ListPodSandboxRequest>,
    ) -> Result<Response<proto::ListPodSandboxResponse>, Status> {
        let items = self.0.list_pods(request.into_inner().filter);
        Ok(Response::new(proto::ListPodSandboxResponse { items }))
    }

    type StreamPodSandboxesStream = Answers<proto::StreamPodSandboxesResponse>;

    async fn stream_pod_sandboxes(
        &self,
        request: Request<proto::StreamPodSandboxesRequest>,
    ) -> Result<Response<Self::StreamPodSandboxesStream>, Status> {
        let pods = self.0.list_pods(request.into_inner().filter);
        Ok(in_blocks(pods, |pod_sandboxes| proto::StreamPodSandboxesResponse { pod_sandboxes }))
    }

    async fn create_container(
        &self,
        request: Request<proto::CreateContainerRequest>,
    ) -> Result<Response<proto::CreateContainerResponse>, Status> {
        let container_id = ok(self.0.create_container(request.into_inner()).await)?;
        Ok(Response::new(proto::CreateContainerResponse { container_id }))
    }

    async fn start_container(
        &self,
        request: Request<proto::StartContainerRequest>,
    ) -> Result<Response<proto::StartContainerResponse>, Status> {
        ok(self.0.start_container(&request.into_inner().container_id).await)?;
        Ok(Response::new(proto::StartContainerResponse {}))
    }

    async fn stop_container(
        &self,
        request: Request<proto::StopContainerRequest>,
    ) -> Result<Response<proto::StopContainerResponse>, Status> {
        let proto::StopContainerRequest { container_id, timeout } = request.into_inner();
        ok(self.0.stop_container(&container_id, timeout).await)?;
        Ok(Response::new(proto::StopContainerResponse {}))
    }

    async fn remove_container(
        &self,
        request: Request<proto::RemoveContainerRequest>,
    ) -> Result<Response<proto::RemoveContainerResponse>, Status> {
        ok(self.0.remove_container(&request.into_inner().container_id).await)?;
        Ok(Response::new(proto::RemoveContainerResponse {}))
    }

    async fn list_containers(
        &self,
        request: Request<proto::ListContainersRequest>,
    ) -> Result<Response<proto::ListContainersResponse>, Status> {
        let containers = self.0.list_containers(request.into_inner().filter);
        Ok(Response::new(proto::ListContainersResponse { containers }))
    }

    type StreamContainersStream = Answers<proto::StreamContainersResponse>;

    async fn stream_containers(
        &self,
        request: Request<proto::StreamContainersRequest>,
    ) -> Result<Response<Self::StreamContainersStream>, Status> {
        let containers = self.0.list_containers(request.into_inner().filter);
        Ok(in_blocks(containers, |containers| proto::StreamContainersResponse { containers }))
    }

    async fn container_status(
        &self,
        request: Request<proto::ContainerStatusRequest>,
    ) -> Result<Response<proto::ContainerStatusResponse>, Status> {
        let request = request.into_inner();
        ok(self.0.container_status(&request.container_id, request.verbose).await).map(Response::new)
    }

    async fn update_container_resources(
        &self,
        request: Request<proto::UpdateContainerResourcesRequest>,
    ) -> Result<Response<proto::UpdateContainerResourcesResponse>, Status> {
        ok(self.0.update_container(request.into_inner()).await)?;
        Ok(Response::new(proto::UpdateContainerResourcesResponse {}))
    }

    async fn reopen_container_log(
        &self,
        request: Request<proto::ReopenContainerLogRequest>,
    ) -> Result<Response<proto::ReopenContainerLogResponse>, Status> {
        ok(self.0.reopen_log(&request.into_inner().container_id).await)?;
        Ok(Response::new(proto::ReopenContainerLogResponse {}))
    }

    async fn exec_sync(
        &self,
        request: Request<proto::ExecSyncRequest>,
    ) -> Result<Response<proto::ExecSyncResponse>, Status> {
        ok(self.0.exec_sync(request.into_inner()).await).map(Response::new)
    }

    async fn exec(
        &self,
        request: Request<proto::ExecRequest>,
    ) -> Result<Response<proto::ExecResponse>, Status> {
        let url = ok(self.0.exec_url(request.into_inner()).await)?;
        Ok(Response::new(proto::ExecResponse { url }))
    }

    async fn attach(
        &self,
        request: Request<proto::AttachRequest>,
    ) -> Result<Response<proto::AttachResponse>, Status> {
        let url = ok(self.0.attach_url(&request.into_inner()).await)?;
        Ok(Response::new(proto::AttachResponse { url }))
    }

    async fn port_forward(
        &self,
        request: Request<proto::PortForwardRequest>,
    ) -> Result<Response<proto::PortForwardResponse>, Status> {
        let url = ok(self.0.port_forward_url(&request.into_inner()).await)?;
        Ok(Response::new(proto::PortForwardResponse { url }))
    }

    async fn container_stats(
        &self,
        request: Request<proto::ContainerStatsRequest>,
    ) -> Result<Response<proto::ContainerStatsResponse>, Status> {
        let stats = ok(self.0.container_stats(&request.into_inner().container_id).await)?;
        Ok(Response::new(proto::ContainerStatsResponse { stats: Some(stats) }))
    }

    async fn list_container_stats(
        &self,
        request: Request<proto::ListContainerStatsRequest>,
    ) -> Result<Response<proto::ListContainerStatsResponse>, Status> {
        let stats = self.0.list_container_stats(request.into_inner().filter).await;
        Ok(Response::new(proto::ListContainerStatsResponse { stats }))
    }

    type StreamContainerStatsStream = Answers<proto::StreamContainerStatsResponse>;

    async fn stream_container_stats(
        &self,
        request: Request<proto::StreamContainerStatsRequest>,
    ) -> Result<Response<Self::StreamContainerStatsStream>, Status> {
        let stats = self.0.list_container_stats(request.into_inner().filter).await;
        Ok(in_blocks(stats, |container_stats| proto::StreamContainerStatsResponse { container_stats }))
    }

    async fn pod_sandbox_stats(
        &self,
        request: Request<proto::PodSandboxStatsRequest>,
    ) -> Result<Response<proto::PodSandboxStatsResponse>, Status> {
        let stats = ok(self.0.pod_stats(&request.into_inner().pod_sandbox_id).await)?;
        Ok(Response::new(proto::PodSandboxStatsResponse { stats: Some(stats) }))
    }

    async fn list_pod_sandbox_stats(
        &self,
        request: Request<proto::ListPodSandboxStatsRequest>,
    ) -> Result<Response<proto::ListPodSandboxStatsResponse>, Status> {
        let stats = self.0.list_pod_stats(request.into_inner().filter).await;
        Ok(Response::new(proto::ListPodSandboxStatsResponse { stats }))
    }

    type StreamPodSandboxStatsStream = Answers<proto::StreamPodSandboxStatsResponse>;

    async fn stream_pod_sandbox_stats(
        &self,
        request: Request<proto::StreamPodSandboxStatsRequest>,
    ) -> Result<Response<Self::StreamPodSandboxStatsStream>, Status> {
        let stats = self.0.list_pod_stats(request.into_inner().filter).await;
        Ok(in_blocks(stats, |pod_sandbox_stats| proto::StreamPodSandboxStatsResponse { pod_sandbox_stats }))
    }

    async fn checkpoint_container(
        &self,
        request: Request<proto::CheckpointContainerRequest>,
    ) -> Result<Response<proto::CheckpointContainerResponse>, Status> {
        ok(self.0.checkpoint_container(request.into_inner()).await)?;
        Ok(Response::new(proto::CheckpointContainerResponse {}))
    }

    type GetContainerEventsStream = Answers<proto::ContainerEventResponse>;

    async fn get_container_events(
        &self,
        _request: Request<proto::GetEventsRequest>,
    ) -> Result<Response<Self::GetContainerEventsStream>, Status> {
        let events = stream::unfold(self.0.events.listen(), |mut events| async move {
            loop {
                match events.recv().await {
                    Ok(event) => return Some((Ok(event), events)),
                    // A kubelet asks for everything from time to time all the same.
                    Err(RecvError::Lagged(lost)) => {
                        tracing::warn!(lost, "a listener to container events is slow");
                    }
                    Err(RecvError::Closed) => return None,
                }
            }
        });
        Ok(Response::new(events.boxed()))
    }

    async fn list_metric_descriptors(
        &self,
        _request: Request<proto::ListMetricDescriptorsRequest>,
    ) -> Result<Response<proto::ListMetricDescriptorsResponse>, Status> {
        Ok(Response::new(proto::ListMetricDescriptorsResponse { descriptors: descriptors() }))
    }

    async fn list_pod_sandbox_metrics(
        &self,
        _request: Request<proto::ListPodSandboxMetricsRequest>,
    ) -> Result<Response<proto::ListPodSandboxMetricsResponse>, Status> {
        let pod_metrics = self.0.list_pod_metrics().await;
        Ok(Response::new(proto::ListPodSandboxMetricsResponse { pod_metrics }))
    }

    type StreamPodSandboxMetricsStream = Answers<proto::StreamPodSandboxMetricsResponse>;

    async fn stream_pod_sandbox_metrics(
        &self,
        _request: Request<proto::StreamPodSandboxMetricsRequest>,
    ) -> Result<Response<Self::StreamPodSandboxMetricsStream>, Status> {
        let metrics = self.0.list_pod_metrics().await;
        Ok(in_blocks(metrics, |pod_sandbox_metrics| proto::StreamPodSandboxMetricsResponse {
            pod_sandbox_metrics,
        }))
    }

    async fn update_pod_sandbox_resources(
        &self,
        request: Request<proto::UpdatePodSandboxResourcesRequest>,
    ) -> Result<Response<proto::UpdatePodSandboxResourcesResponse>, Status> {
        ok(self.0.update_pod(request.into_inner()).await)?;
        Ok(Response::new(proto::UpdatePodSandboxResourcesResponse {}))
    }
}
