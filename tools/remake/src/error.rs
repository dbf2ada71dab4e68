//! Why a recipe cannot be made, or a layer not be made again.

use std::io;

/// What is wrong. Inside the crate it travels in an [`io::Error`], because readers and writers stand on one another.
#[derive(Debug, thiserror::Error)]
pub enum RemakeError {
    /// The compressed stream is none that can be read.
    #[error("the compressed stream is damaged: {0}")]
    Stream(&'static str),
    /// No way is known to make such a stream again.
    #[error("{0}")]
    Unsupported(&'static str),
    /// A recipe that takes too much room is of no use.
    #[error("the recipe would have more than {limit} bytes")]
    TooLarge {
        /// Bytes that were allowed.
        limit: u64,
    },
    /// The recipe is not what was written.
    #[error("the recipe is damaged: {0}")]
    Recipe(&'static str),
    /// A file of the tree is not there.
    #[error("{path:?} of the snapshot is not there any more")]
    Gone {
        /// Its place in the tree.
        path: String,
    },
    /// A file of the tree has other bytes.
    #[error("{path:?} of the snapshot is not what the layer had")]
    Changed {
        /// Its place in the tree.
        path: String,
    },
    /// The plain bytes are no archive that is taken.
    #[error("the layer's archive is malformed")]
    Archive(#[source] berth_archive::TarError),
    /// Reading or writing failed.
    #[error("reading or writing failed")]
    Io(#[source] io::Error),
}

impl From<RemakeError> for io::Error {
    fn from(error: RemakeError) -> Self {
        match error {
            RemakeError::Io(error) => error,
            error => Self::new(io::ErrorKind::InvalidData, error),
        }
    }
}

impl From<io::Error> for RemakeError {
    fn from(error: io::Error) -> Self {
        error.downcast::<Self>().unwrap_or_else(Self::Io)
    }
}

impl From<berth_archive::TarError> for RemakeError {
    fn from(error: berth_archive::TarError) -> Self {
        match error {
            berth_archive::TarError::Read { source, .. } => source.into(),
            error => Self::Archive(error),
        }
    }
}

/// A compressed stream that cannot be read.
pub(crate) fn stream(what: &'static str) -> io::Error {
    RemakeError::Stream(what).into()
}

/// A recipe that cannot be read.
pub(crate) fn recipe(what: &'static str) -> io::Error {
    RemakeError::Recipe(what).into()
}
