//! Images.

use std::time::SystemTime;

use berth_types::{Descriptor, Image, ImageName, Labels, Result};

use super::Record;
use crate::codec::{Damaged, Decoder, Encoder};
use crate::key::{Kind, key};

/// What is stored of an image: of its target, what containerd's API has.
#[derive(Debug)]
pub(crate) struct ImageRecord {
    pub(crate) labels: Labels,
    pub(crate) target: Descriptor,
    created_at: SystemTime,
    updated_at: SystemTime,
}

impl ImageRecord {
    pub(crate) fn key(namespace: &str, name: &str) -> Vec<u8> {
        key(Kind::Image, &[namespace, name])
    }

    pub(crate) fn new(image: &Image) -> Self {
        Self {
            labels: image.labels.clone(),
            target: image.target.clone(),
            created_at: image.created_at,
            updated_at: image.updated_at,
        }
    }

    pub(crate) fn named(self, name: ImageName) -> Image {
        let Self { labels, target, created_at, updated_at } = self;
        Image { name, labels, target, created_at, updated_at }
    }
}

impl Record for ImageRecord {
    fn write(&self, to: Encoder) -> Encoder {
        to.labels(&self.labels)
            .text(&self.target.media_type)
            .text(self.target.digest.as_str())
            .number(self.target.size)
            .labels(&self.target.annotations)
            .time(self.created_at)
            .time(self.updated_at)
    }

    fn read(from: &mut Decoder<'_>) -> Result<Self, Damaged> {
        let labels = from.labels()?;
        let media_type = from.text()?;
        let digest = from.text()?.parse().map_err(|_| Damaged("digest"))?;
        let mut target = Descriptor::new(media_type, digest, from.number()?);
        target.annotations = from.labels()?;
        Ok(Self { labels, target, created_at: from.time()?, updated_at: from.time()? })
    }
}
