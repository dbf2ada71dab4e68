//! Ingests: which of the backend's a namespace's reference means.

use std::time::SystemTime;

use berth_types::{Digest, IngestRef, Result};

use super::Record;
use crate::codec::{Damaged, Decoder, Encoder};
use crate::key::{Kind, key};

/// What is stored of an ingest.
#[derive(Debug)]
pub(crate) struct IngestRecord {
    /// The reference in the backend: `namespace/N/reference`.
    pub(crate) backend: IngestRef,
    /// The blob of another namespace that stands for what would be written.
    pub(crate) expected: Option<Digest>,
    /// When it may be thrown away if no lease holds it.
    pub(crate) expires: Option<SystemTime>,
}

impl IngestRecord {
    pub(crate) fn key(namespace: &str, reference: &str) -> Vec<u8> {
        key(Kind::Ingest, &[namespace, reference])
    }
}

impl Record for IngestRecord {
    fn write(&self, to: Encoder) -> Encoder {
        to.text(self.backend.as_str())
            .text(self.expected.as_ref().map_or("", Digest::as_str))
            .time(self.expires.unwrap_or(SystemTime::UNIX_EPOCH))
    }

    fn read(from: &mut Decoder<'_>) -> Result<Self, Damaged> {
        let backend = from.text()?.parse().map_err(|_| Damaged("reference"))?;
        let expected = from.text()?;
        let expected = match expected.as_str() {
            "" => None,
            digest => Some(digest.parse().map_err(|_| Damaged("digest"))?),
        };
        let expires = from.time()?;
        Ok(Self { backend, expected, expires: (expires != SystemTime::UNIX_EPOCH).then_some(expires) })
    }
}
