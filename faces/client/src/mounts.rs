//! Activated mounts over the channel.

use async_trait::async_trait;
use berth_core::{Extent, Mounts, NewActivation};
use berth_proto::containerd::services::mounts::v1 as proto;
use berth_proto::convert::{field_mask, labels, mounts, required};
use berth_types::filter::Filters;
use berth_types::{Activation, Error, FieldMask, Labels, Result};

use crate::bound::{Bound, RECORDS, WORK, call, service};

type Service = proto::mounts_client::MountsClient<tonic::transport::Channel>;

pub(crate) struct Remote(pub(crate) Bound);

#[async_trait]
impl Mounts for Remote {
    async fn activate(&self, new: NewActivation) -> Result<Activation> {
        let NewActivation { name, mounts: list, labels: marks, extent, by_client } = new;
        if !by_client.is_empty() {
            let text = "a remote daemon cannot be told which types of mounts its client performs";
            return Err(Error::invalid_argument(text));
        }
        let message = proto::ActivateRequest {
            name,
            mounts: mounts(list),
            labels: labels(marks),
            temporary: extent == Extent::Everything,
        };
        let answer = call!(self.0, Service, activate, message, WORK)?;
        Ok(required("the activation in the daemon's answer", answer.info)?.into())
    }

    async fn deactivate(&self, name: &str) -> Result<()> {
        let message = proto::DeactivateRequest { name: name.to_owned() };
        call!(self.0, Service, deactivate, message, WORK).map(drop)
    }

    async fn info(&self, name: &str) -> Result<Activation> {
        let message = proto::InfoRequest { name: name.to_owned() };
        let answer = call!(self.0, Service, info, message, RECORDS)?;
        Ok(required("the activation in the daemon's answer", answer.info)?.into())
    }

    async fn update(&self, name: &str, marks: Labels, mask: &FieldMask) -> Result<Activation> {
        let changed =
            Activation { name: name.to_owned(), active: Vec::new(), system: Vec::new(), labels: marks };
        let message = proto::UpdateRequest { info: Some(changed.into()), update_mask: field_mask(mask) };
        let answer = call!(self.0, Service, update, message, RECORDS)?;
        Ok(required("the activation in the daemon's answer", answer.info)?.into())
    }

    async fn list(&self, filters: &Filters) -> Result<Vec<Activation>> {
        let message = proto::ListRequest { filters: filters.texts().to_vec() };
        let request = self.0.request(message, RECORDS)?;
        let answer = service!(Service, self.0).list(request).await;
        let mut stream = answer.map_err(|status| self.0.error(status))?.into_inner();
        let mut found = Vec::new();
        while let Some(message) = stream.message().await.map_err(|status| self.0.error(status))? {
            found.extend(message.info.map(Activation::from));
        }
        Ok(found)
    }
}
