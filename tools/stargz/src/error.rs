//! Why a table of contents is refused.

use std::io;

use berth_archive::TarError;
use berth_types::Digest;

/// What is wrong with a layer's footer or table. Such a layer can still be unpacked whole.
#[derive(Debug, thiserror::Error)]
pub enum StargzError {
    /// The end of the blob is no footer that is known here.
    #[error("the layer has no table of contents")]
    NoFooter,
    /// A footer or annotation that points outside of its blob.
    #[error("the table of contents is said to be where it cannot be: {0}")]
    Position(String),
    /// The table's stream is damaged.
    #[error("cannot read the table of contents")]
    Stream(#[source] io::Error),
    /// The archive around the table is damaged.
    #[error("cannot read the archive around the table of contents")]
    Archive(#[source] TarError),
    /// The table is not the document that it should be.
    #[error("the table of contents is not what it should be")]
    Document(#[source] serde_json::Error),
    /// The table is another one than the manifest says.
    #[error("the table of contents should have the digest {expected} and has {actual}")]
    Digest {
        /// From the manifest.
        expected: Digest,
        /// What was read.
        actual: Digest,
    },
    /// An entry that no file system could have, or that does not fit the others.
    #[error("the table's entry {path:?} cannot be used: {why}")]
    Entry {
        /// Its name.
        path: String,
        /// What is wrong with it.
        why: &'static str,
    },
    /// A file's data has no digest by which it could be verified.
    #[error("the table gives no digest for the data of {path:?}, so it could not be verified")]
    Unverifiable {
        /// The file.
        path: String,
    },
    /// A bound is reached.
    #[error("the table of contents has too many {0}")]
    TooMany(&'static str),
}

impl StargzError {
    pub(crate) fn entry(path: &str, why: &'static str) -> Self {
        Self::Entry { path: path.to_owned(), why }
    }
}
