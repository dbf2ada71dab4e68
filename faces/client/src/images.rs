//! Image records over the channel.

use async_trait::async_trait;
use berth_core::{Deletion, Images};
use berth_proto::containerd::services::images::v1 as proto;
use berth_proto::containerd::types;
use berth_proto::convert::{field_mask, required};
use berth_types::filter::Filters;
use berth_types::{Digest, FieldMask, Image, ImageName, Result};

use crate::bound::{Bound, RECORDS, WORK, call};

type Service = proto::images_client::ImagesClient<tonic::transport::Channel>;

pub(crate) struct Remote(pub(crate) Bound);

fn record(image: Option<proto::Image>) -> Result<Image> {
    required("the image in the daemon's answer", image)?.try_into()
}

#[async_trait]
impl Images for Remote {
    async fn image(&self, name: &ImageName) -> Result<Image> {
        let message = proto::GetImageRequest { name: name.to_string() };
        record(call!(self.0, Service, get, message, RECORDS)?.image)
    }

    async fn list(&self, filters: &Filters) -> Result<Vec<Image>> {
        let message = proto::ListImagesRequest { filters: filters.texts().to_vec() };
        let answer = call!(self.0, Service, list, message, RECORDS)?;
        answer.images.into_iter().map(TryInto::try_into).collect()
    }

    async fn create(&self, image: Image) -> Result<Image> {
        let message = proto::CreateImageRequest { image: Some(image.into()), source_date_epoch: None };
        record(call!(self.0, Service, create, message, RECORDS)?.image)
    }

    async fn update(&self, image: Image, mask: &FieldMask) -> Result<Image> {
        let message = proto::UpdateImageRequest {
            image: Some(image.into()),
            update_mask: field_mask(mask),
            source_date_epoch: None,
        };
        record(call!(self.0, Service, update, message, RECORDS)?.image)
    }

    async fn delete(&self, name: &ImageName, target: Option<&Digest>, deletion: Deletion) -> Result<()> {
        let target =
            target.map(|digest| types::Descriptor { digest: digest.to_string(), ..Default::default() });
        let sync = deletion == Deletion::Synchronous;
        let message = proto::DeleteImageRequest { name: name.to_string(), sync, target };
        let deadline = if sync { WORK } else { RECORDS };
        call!(self.0, Service, delete, message, deadline).map(drop)
    }
}
