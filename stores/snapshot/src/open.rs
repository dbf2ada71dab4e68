//! Why a snapshotter cannot be used.

use std::path::{Path, PathBuf};

use berth_types::Error;

/// Why a snapshotter is not there: by nature or by accident.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// This machine or folder cannot have it; another snapshotter can do the work.
    #[error("skipped: {0}")]
    Skipped(String),
    /// It should work and does not.
    #[error("snapshotter at {}", root.display())]
    Failed {
        /// Its folder.
        root: PathBuf,
        /// What went wrong.
        source: Error,
    },
}

impl OpenError {
    pub(crate) fn failed(root: impl Into<PathBuf>, source: Error) -> Self {
        Self::Failed { root: root.into(), source }
    }
}

/// The folder of a snapshotter, in full: the configured one, or `root` where that is empty.
pub(crate) fn folder(root: &Path, configured: &Path) -> Result<PathBuf, OpenError> {
    let folder = if configured.as_os_str().is_empty() { root } else { configured };
    std::path::absolute(folder)
        .map_err(|error| OpenError::failed(folder, Error::io("cannot tell the folder's full path", error)))
}
