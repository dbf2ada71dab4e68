//! Blobs and ingests.

use berth_types::{BlobInfo, Error, IngestRef, IngestStatus};

use super::{from_labels, labels, signed, time, timestamp, unsigned};
use crate::containerd::services::content::v1 as wire;

impl From<BlobInfo> for wire::Info {
    fn from(info: BlobInfo) -> Self {
        Self {
            digest: info.digest.into(),
            size: signed(info.size),
            created_at: timestamp(info.created_at),
            updated_at: timestamp(info.updated_at),
            labels: labels(info.labels),
        }
    }
}

impl TryFrom<wire::Info> for BlobInfo {
    type Error = Error;

    fn try_from(info: wire::Info) -> Result<Self, Error> {
        Ok(Self {
            digest: info.digest.parse()?,
            size: unsigned("size of a blob", info.size)?,
            created_at: time(info.created_at),
            updated_at: time(info.updated_at),
            labels: from_labels(info.labels),
        })
    }
}

impl From<IngestStatus> for wire::Status {
    fn from(status: IngestStatus) -> Self {
        Self {
            started_at: timestamp(status.started_at),
            updated_at: timestamp(status.updated_at),
            r#ref: status.reference.into(),
            offset: signed(status.offset),
            total: signed(status.total),
            expected: status.expected.map(String::from).unwrap_or_default(),
        }
    }
}

impl TryFrom<wire::Status> for IngestStatus {
    type Error = Error;

    fn try_from(status: wire::Status) -> Result<Self, Error> {
        let expected = Some(status.expected).filter(|digest| !digest.is_empty());
        Ok(Self {
            reference: IngestRef::try_from(status.r#ref)?,
            offset: unsigned("offset of an ingest", status.offset)?,
            total: unsigned("total of an ingest", status.total)?,
            expected: expected.map(|digest| digest.parse()).transpose()?,
            started_at: time(status.started_at),
            updated_at: time(status.updated_at),
        })
    }
}
