//! Image records.

use berth_types::{Error, Image, ImageName};

use super::{from_labels, labels, required, time, timestamp};
use crate::containerd::services::images::v1 as wire;

impl From<Image> for wire::Image {
    fn from(image: Image) -> Self {
        Self {
            name: image.name.into(),
            labels: labels(image.labels),
            target: Some(image.target.into()),
            created_at: timestamp(image.created_at),
            updated_at: timestamp(image.updated_at),
        }
    }
}

impl TryFrom<wire::Image> for Image {
    type Error = Error;

    fn try_from(image: wire::Image) -> Result<Self, Error> {
        Ok(Self {
            name: ImageName::try_from(image.name)?,
            labels: from_labels(image.labels),
            target: required("the image's target", image.target)?.try_into()?,
            created_at: time(image.created_at),
            updated_at: time(image.updated_at),
        })
    }
}
