//! What can go wrong, in containerd's words where its clients see them.

use std::io;
use std::path::{Path, PathBuf};

use berth_types::{Digest, Error};

#[derive(Debug, thiserror::Error)]
pub(crate) enum ContentError {
    #[error("content {0}: not found")]
    NoBlob(Digest),
    #[error("content {0}: already exists")]
    Exists(Digest),
    #[error("ingest ref {0:?}: not found")]
    NoIngest(String),
    #[error("ref {reference} locked for {seconds:.3}s: another writer has it, wait for its end")]
    Locked { reference: String, seconds: f64 },
    #[error("write @{offset} must occur at current offset {present}")]
    Offset { offset: u64, present: u64 },
    #[error("ingest {reference:?} has {present} bytes, it cannot be cut to {size}")]
    Cut { reference: String, present: u64, size: u64 },
    #[error("unexpected commit size {actual}, expected {expected}")]
    Size { actual: u64, expected: u64 },
    #[error("unexpected commit digest {actual}, expected {expected}")]
    Digest { actual: Digest, expected: Digest },
    #[error("cannot write to ingest {0:?}: it is committed")]
    Committed(String),
    #[error("cannot {what} {}", path.display())]
    Io { what: &'static str, path: PathBuf, source: io::Error },
}

impl ContentError {
    /// Says what was being done to which file.
    pub(crate) fn io(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Io { what, path, source }
    }
}

impl From<ContentError> for Error {
    fn from(error: ContentError) -> Self {
        let message = error.to_string();
        match error {
            ContentError::NoBlob(_) | ContentError::NoIngest(_) => Error::not_found(message),
            ContentError::Exists(_) => Error::already_exists(message),
            ContentError::Locked { .. } => Error::unavailable(message),
            ContentError::Offset { .. } | ContentError::Cut { .. } => Error::out_of_range(message),
            ContentError::Size { .. } | ContentError::Digest { .. } | ContentError::Committed(_) => {
                Error::failed_precondition(message)
            }
            ContentError::Io { source, .. } => Error::io(message, source),
        }
    }
}
