//! Kubernetes' interface to runtimes at the same socket, as far as people look at pods.

use std::collections::HashMap;

use berth_proto::runtime::v1 as proto;
use berth_types::Result;
use tonic::transport::Channel;

use crate::bound::{Bound, FOREVER, RECORDS, call};

type Runtime = proto::runtime_service_client::RuntimeServiceClient<Channel>;
type Images = proto::image_service_client::ImageServiceClient<Channel>;

/// The pods of a daemon.
#[derive(Clone)]
pub struct Pods(pub(crate) Bound);

impl Pods {
    /// What the runtime says of itself beyond whether it is ready, each a JSON document under its name.
    pub async fn info(&self) -> Result<HashMap<String, String>> {
        let message = proto::StatusRequest { verbose: true };
        Ok(call!(self.0, Runtime, status, message, RECORDS)?.info)
    }

    /// The pods that are there as a whole.
    pub async fn list(&self) -> Result<Vec<proto::PodSandbox>> {
        let message = proto::ListPodSandboxRequest::default();
        Ok(call!(self.0, Runtime, list_pod_sandbox, message, RECORDS)?.items)
    }

    /// One pod, with what is told to people only.
    pub async fn inspect(&self, id: &str) -> Result<proto::PodSandboxStatusResponse> {
        let message = proto::PodSandboxStatusRequest { pod_sandbox_id: id.to_owned(), verbose: true };
        call!(self.0, Runtime, pod_sandbox_status, message, RECORDS)
    }

    /// The containers of a pod.
    pub async fn containers(&self, pod: &str) -> Result<Vec<proto::Container>> {
        let filter = proto::ContainerFilter { pod_sandbox_id: pod.to_owned(), ..Default::default() };
        let message = proto::ListContainersRequest { filter: Some(filter) };
        Ok(call!(self.0, Runtime, list_containers, message, RECORDS)?.containers)
    }

    /// A container.
    pub async fn container(&self, id: &str) -> Result<proto::ContainerStatus> {
        let message = proto::ContainerStatusRequest { container_id: id.to_owned(), verbose: false };
        Ok(call!(self.0, Runtime, container_status, message, RECORDS)?.status.unwrap_or_default())
    }

    /// Pulls an image as a kubelet would; answers its id.
    pub async fn pull(&self, image: &str) -> Result<String> {
        let image = proto::ImageSpec { image: image.to_owned(), ..Default::default() };
        let message = proto::PullImageRequest { image: Some(image), ..Default::default() };
        Ok(call!(self.0, Images, pull_image, message, FOREVER)?.image_ref)
    }
}
