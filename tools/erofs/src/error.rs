//! Why an image cannot be made.

use std::io;

/// What stands against an image of these entries. Paths are as the entries have them.
#[derive(Debug, thiserror::Error)]
pub enum ErofsError {
    /// The image cannot be written.
    #[error("cannot write the image")]
    Write(#[source] io::Error),
    /// A file's data cannot be read, or ends too early.
    #[error("cannot read the data of {path:?}")]
    Data {
        /// The file.
        path: String,
        /// From whoever gives the data.
        source: io::Error,
    },
    /// What the layers below hold cannot be looked at.
    #[error("cannot look at {path:?} in the layers below")]
    Below {
        /// What was looked for.
        path: String,
        /// From whoever holds them.
        source: io::Error,
    },
    /// An entry that no file system could hold as it is.
    #[error("cannot make {path:?}: {why}")]
    Entry {
        /// The entry.
        path: String,
        /// What is wrong with it.
        why: &'static str,
    },
    /// A whiteout without a name.
    #[error("{path:?} is not a name that a whiteout can have")]
    Whiteout {
        /// The entry.
        path: String,
    },
    /// A bound is reached.
    #[error("the layer has too many {0}")]
    TooMany(&'static str),
    /// An image has no more than 2³² blocks of 4096 bytes.
    #[error("the layer is larger than the 16 TiB that an EROFS image can have")]
    TooLarge,
}

impl ErofsError {
    pub(crate) fn entry(path: &[u8], why: &'static str) -> Self {
        Self::Entry { path: text(path), why }
    }

    pub(crate) fn data(path: &[u8], source: io::Error) -> Self {
        Self::Data { path: text(path), source }
    }

    pub(crate) fn below(path: &[u8], source: io::Error) -> Self {
        Self::Below { path: text(path), source }
    }
}

/// A path for people.
pub(crate) fn text(path: &[u8]) -> String {
    String::from_utf8_lossy(path).into_owned()
}
