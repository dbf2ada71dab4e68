//! What a request for a layer says beyond containerd's fields.

use berth_types::{Error, IngestRef, Result};

/// The payload of `containerd.services.diff.v1.ApplyRequest` that names the ingest by which the layer comes. Only a
/// daemon with the differ's capability of the same name knows it.
pub const ARRIVING: &str = "berth.arriving";

/// Puts the name of an ingest into a payload.
pub fn arriving(reference: &IngestRef) -> prost_types::Any {
    prost_types::Any { type_url: ARRIVING.to_owned(), value: reference.as_str().into() }
}

/// Takes it out.
pub fn from_arriving(payload: prost_types::Any) -> Result<IngestRef> {
    String::from_utf8(payload.value)
        .map_err(|source| Error::invalid_argument("an ingest's name is not a text").caused_by(source))?
        .parse()
}
