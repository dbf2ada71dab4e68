//! Blobs.

use std::time::SystemTime;

use berth_types::{BlobInfo, Digest, Labels, Result};

use super::{Record, namespaces};
use crate::codec::{Damaged, Decoder, Encoder};
use crate::key::{Kind, key};
use crate::storage::Read;

/// What is stored of a blob in a namespace.
#[derive(Debug)]
pub(crate) struct BlobRecord {
    pub(crate) size: u64,
    pub(crate) created_at: SystemTime,
    pub(crate) updated_at: SystemTime,
    pub(crate) labels: Labels,
}

impl BlobRecord {
    pub(crate) fn key(namespace: &str, digest: &Digest) -> Vec<u8> {
        key(Kind::Blob, &[namespace, digest.as_str()])
    }

    pub(crate) fn of(info: &BlobInfo) -> Self {
        let BlobInfo { digest: _, size, created_at, updated_at, labels } = info.clone();
        Self { size, created_at, updated_at, labels }
    }

    pub(crate) fn named(self, digest: Digest) -> BlobInfo {
        let Self { size, created_at, updated_at, labels } = self;
        BlobInfo { digest, size, created_at, updated_at, labels }
    }

    /// Whether any namespace has the blob.
    pub(crate) fn anywhere(from: &dyn Read, digest: &Digest) -> Result<bool> {
        for namespace in namespaces(from)? {
            if from.load(&Self::key(&namespace, digest))?.is_some() {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

impl Record for BlobRecord {
    fn write(&self, to: Encoder) -> Encoder {
        to.number(self.size).time(self.created_at).time(self.updated_at).labels(&self.labels)
    }

    fn read(from: &mut Decoder<'_>) -> Result<Self, Damaged> {
        Ok(Self {
            size: from.number()?,
            created_at: from.time()?,
            updated_at: from.time()?,
            labels: from.labels()?,
        })
    }
}
