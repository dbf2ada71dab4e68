//! What can be wrong with an archive.

use std::io;

/// Why an archive cannot be read or written. `offset` is that of the header in the archive.
#[derive(Debug, thiserror::Error)]
pub enum TarError {
    /// The source failed, or its decompression did.
    #[error("cannot read the archive at byte {offset}")]
    Read {
        /// Bytes read before.
        offset: u64,
        /// The source's error.
        source: io::Error,
    },
    /// The sink failed.
    #[error("cannot write the archive")]
    Write(#[source] io::Error),
    /// The archive ends inside a header or a file.
    #[error("archive is cut off at byte {offset}")]
    Truncated {
        /// Where it ends.
        offset: u64,
    },
    /// The header's checksum doesn't match: damage, or no tar at all.
    #[error("no tar header at byte {offset}")]
    Checksum {
        /// Where a header should be.
        offset: u64,
    },
    /// A field of the header doesn't hold what it should.
    #[error("tar header at byte {offset} has an invalid {field}")]
    Field {
        /// Where the header is.
        offset: u64,
        /// Which field.
        field: &'static str,
    },
    /// Readers disagree about such an archive, so none of their readings is taken.
    #[error("tar header at byte {offset} is ambiguous: {what}")]
    Ambiguous {
        /// Where the header is.
        offset: u64,
        /// What is ambiguous.
        what: &'static str,
    },
    /// An entry of a kind that layers don't have.
    #[error("tar header at byte {offset} has unsupported type {kind:?}")]
    Kind {
        /// Where the header is.
        offset: u64,
        /// The type byte.
        kind: char,
    },
    /// One of the [`Limits`](crate::Limits) is reached.
    #[error("tar header at byte {offset} exceeds the limit of {what}")]
    Limit {
        /// Where the header is.
        offset: u64,
        /// Which limit.
        what: &'static str,
    },
    /// An entry cannot be expressed in the format, or its data isn't as long as announced.
    #[error("cannot archive {path:?}: {why}")]
    Unwritable {
        /// The entry's path.
        path: String,
        /// Why.
        why: &'static str,
    },
}

impl From<TarError> for io::Error {
    fn from(error: TarError) -> Self {
        let kind = match &error {
            TarError::Read { source, .. } | TarError::Write(source) => source.kind(),
            TarError::Truncated { .. } => io::ErrorKind::UnexpectedEof,
            _ => io::ErrorKind::InvalidData,
        };
        Self::new(kind, error)
    }
}
