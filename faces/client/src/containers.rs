//! Container records over the channel.

use async_trait::async_trait;
use berth_core::Containers;
use berth_proto::containerd::services::containers::v1 as proto;
use berth_proto::convert::{field_mask, required};
use berth_types::filter::Filters;
use berth_types::{Container, ContainerId, ContainerUpdate, Result};
use tonic::Code;

use crate::bound::{Bound, RECORDS, call, service};

type Service = proto::containers_client::ContainersClient<tonic::transport::Channel>;

pub(crate) struct Remote(pub(crate) Bound);

fn record(container: Option<proto::Container>) -> Result<Container> {
    required("the container in the daemon's answer", container)?.try_into()
}

impl Remote {
    /// The list as a stream, which has no limit of size; nothing from a daemon that lacks the call.
    async fn stream(&self, message: proto::ListContainersRequest) -> Result<Option<Vec<Container>>> {
        let request = self.0.request(message, RECORDS)?;
        let mut stream = match service!(Service, self.0).list_stream(request).await {
            Ok(answer) => answer.into_inner(),
            Err(status) if status.code() == Code::Unimplemented => return Ok(None),
            Err(status) => return Err(self.0.error(status)),
        };
        let mut containers = Vec::new();
        loop {
            match stream.message().await {
                Ok(Some(message)) => containers.push(record(message.container)?),
                Ok(None) => return Ok(Some(containers)),
                Err(status) if status.code() == Code::Unimplemented && containers.is_empty() => {
                    return Ok(None);
                }
                Err(status) => return Err(self.0.error(status)),
            }
        }
    }
}

#[async_trait]
impl Containers for Remote {
    async fn container(&self, id: &ContainerId) -> Result<Container> {
        let message = proto::GetContainerRequest { id: id.to_string() };
        record(call!(self.0, Service, get, message, RECORDS)?.container)
    }

    async fn list(&self, filters: &Filters) -> Result<Vec<Container>> {
        let message = proto::ListContainersRequest { filters: filters.texts().to_vec() };
        if let Some(containers) = self.stream(message.clone()).await? {
            return Ok(containers);
        }
        let answer = call!(self.0, Service, list, message, RECORDS)?;
        answer.containers.into_iter().map(TryInto::try_into).collect()
    }

    async fn create(&self, container: Container) -> Result<Container> {
        let message = proto::CreateContainerRequest { container: Some(container.into()) };
        record(call!(self.0, Service, create, message, RECORDS)?.container)
    }

    async fn update(&self, update: ContainerUpdate) -> Result<Container> {
        let ContainerUpdate { container, mask } = update;
        let message = proto::UpdateContainerRequest {
            container: Some(container.into()),
            update_mask: field_mask(&mask),
        };
        record(call!(self.0, Service, update, message, RECORDS)?.container)
    }

    async fn delete(&self, id: &ContainerId) -> Result<()> {
        let message = proto::DeleteContainerRequest { id: id.to_string() };
        call!(self.0, Service, delete, message, RECORDS).map(drop)
    }
}
