//! Why a snapshotter cannot be used.

use std::path::PathBuf;

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
