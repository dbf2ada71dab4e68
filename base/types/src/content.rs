//! What the content store says of a blob and of an ingest.

use std::time::SystemTime;

use crate::{Digest, IngestRef, Labels};

/// A blob that is committed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BlobInfo {
    /// Its address.
    pub digest: Digest,
    /// Bytes.
    pub size: u64,
    /// When it was committed.
    pub created_at: SystemTime,
    /// When its labels last changed.
    pub updated_at: SystemTime,
    /// Labels in the namespace that asks.
    pub labels: Labels,
}

/// An ingest that is under way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IngestStatus {
    /// The name under which it is resumed.
    pub reference: IngestRef,
    /// Bytes so far: where the next write goes.
    pub offset: u64,
    /// Bytes in all, 0 when nobody knows.
    pub total: u64,
    /// The address that it is going to have, when known.
    pub expected: Option<Digest>,
    /// When it began.
    pub started_at: SystemTime,
    /// When it last grew.
    pub updated_at: SystemTime,
}
