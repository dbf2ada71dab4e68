//! The records: their keys, their values, and how they are found.

mod blob;
mod container;
mod image;
mod ingest;
mod lease;
mod namespace;
mod sandbox;
mod snapshot;

use std::ops::ControlFlow;

use berth_types::{Error, FieldMask, Labels, Result, validate_labels};

pub(crate) use self::blob::BlobRecord;
pub(crate) use self::container::ContainerRecord;
pub(crate) use self::image::ImageRecord;
pub(crate) use self::ingest::IngestRecord;
pub(crate) use self::lease::{LeaseRecord, Resource, hold, let_go};
pub(crate) use self::namespace::{NamespaceRow, ensure_namespace, namespaces};
pub(crate) use self::sandbox::SandboxRecord;
pub(crate) use self::snapshot::{CommitRecord, SnapshotRecord};
use crate::codec::{Damaged, Decoder, Encoder};
use crate::key::names;
use crate::ledger::Txn;
use crate::storage::Read;

/// A value that is stored under the names of its key.
pub(crate) trait Record: Sized {
    /// Writes the fields.
    fn write(&self, to: Encoder) -> Encoder;

    /// Reads them back.
    fn read(from: &mut Decoder<'_>) -> Result<Self, Damaged>;
}

/// The record of a key.
pub(crate) fn load<R: Record>(from: &dyn Read, key: &[u8]) -> Result<Option<R>> {
    let Some(value) = from.load(key)? else { return Ok(None) };
    decode(key, &value).map(Some)
}

/// Stores the record of a key.
pub(crate) fn store<R: Record>(txn: &mut Txn<'_>, key: &[u8], record: &R) -> Result<()> {
    txn.put(key, &record.write(Encoder::new()).finish())
}

/// Reads a value.
pub(crate) fn decode<R: Record>(key: &[u8], value: &[u8]) -> Result<R> {
    Decoder::new(value).and_then(|mut from| R::read(&mut from)).map_err(|error| {
        let shown = key.get(1..).unwrap_or_default().escape_ascii();
        Error::data_loss(format!(
            "the metadata record {shown} is damaged: delete the object and make it again"
        ))
        .caused_by(error)
    })
}

/// Every record whose key begins with `prefix`, with the names of its key. One that is damaged is
/// reported and left out, so that it does not hide the others.
pub(crate) fn each<R: Record, const N: usize>(
    from: &dyn Read,
    prefix: &[u8],
    mut visit: impl FnMut([String; N], R) -> Result<()>,
) -> Result<()> {
    from.scan(prefix, &mut |key, value| {
        match names::<N>(key).and_then(|names| Ok((names, decode::<R>(key, value)?))) {
            Ok((names, record)) => visit(names, record)?,
            Err(error) => tracing::error!(error = error.chain(), "metadata record left out"),
        }
        Ok(ControlFlow::Continue(()))
    })
}

/// Whether any key begins with `prefix`.
pub(crate) fn any(from: &dyn Read, prefix: &[u8]) -> Result<bool> {
    let mut found = false;
    from.scan(prefix, &mut |_, _| {
        found = true;
        Ok(ControlFlow::Break(()))
    })?;
    Ok(found)
}

/// Checks labels and leaves out those without a value, which containerd does not store; `owner`
/// is how containerd names whose they are.
pub(crate) fn checked_labels(owner: &str, labels: Labels) -> Result<Labels> {
    validate_labels(&labels)
        .map_err(|error| Error::new(error.kind(), format!("{owner}.Labels: {}", error.message())))?;
    Ok(labels.into_iter().filter(|(_, value)| !value.is_empty()).collect())
}

/// Applies a mask of `labels` and `labels.KEY` and nothing else; `what` names the object in the
/// error.
pub(crate) fn merge_labels(what: &str, mask: &FieldMask, current: &mut Labels, new: &Labels) -> Result<()> {
    for path in mask.paths() {
        if path != "labels" && !path.starts_with("labels.") {
            return Err(Error::invalid_argument(format!("cannot update {path:?} field on {what}")));
        }
    }
    mask.merge_map("labels", current, new);
    Ok(())
}
