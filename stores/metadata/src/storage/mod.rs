//! Where the records lie: ordered bytes in transactions, and nothing about what they mean.
//!
//! [`Storage`] is what the ledger asks of a database; [`redb`] gives it. Reads see the state of
//! the last commit and never wait for a writer. There is one writer at a time, the ledger's
//! thread.

mod redb;
mod reserve;

use std::ops::ControlFlow;
use std::path::PathBuf;

use berth_types::{Error, ErrorKind, Result};

pub(crate) use self::redb::{Check, Redb};

/// What a visitor of [`Read::scan`] says after each record.
pub(crate) type Visit<'a> = dyn FnMut(&[u8], &[u8]) -> Result<ControlFlow<()>> + 'a;

/// A consistent state of the records.
pub(crate) trait Read {
    /// The value of a key.
    fn load(&self, key: &[u8]) -> Result<Option<Vec<u8>>>;

    /// Every record whose key begins with `prefix`, in the order of their keys.
    fn scan(&self, prefix: &[u8], visit: &mut Visit<'_>) -> Result<()>;
}

/// A state that is being changed.
pub(crate) trait Write: Read {
    /// Stores a value and answers the one before.
    fn store(&mut self, key: &[u8], value: &[u8]) -> Result<Option<Vec<u8>>>;

    /// Removes a key and answers its value.
    fn remove(&mut self, key: &[u8]) -> Result<Option<Vec<u8>>>;
}

/// Whether a commit is waited for until it is on disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Durability {
    /// Visible now, on disk with the next [`Durability::Synced`] commit: never later than a
    /// record that was written after it.
    Relaxed,
    /// On disk, with everything before it, when the commit returns.
    Synced,
}

/// What is to happen with the changes of a transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Commit {
    /// Whether it is waited for.
    pub(crate) durability: Durability,
    /// Whether the records became no longer: such a commit may use the room that is kept for it.
    pub(crate) frees: bool,
}

impl Commit {
    /// A commit on disk of records that became longer.
    pub(crate) const SYNCED: Self = Self { durability: Durability::Synced, frees: false };
}

/// A database.
pub(crate) trait Storage: Send + Sync {
    /// Reads the last commit.
    fn view(&self, look: &mut dyn FnMut(&dyn Read) -> Result<()>) -> Result<()>;

    /// Runs one write transaction. What `change` answers says whether to commit, and how.
    fn update(&self, change: &mut dyn FnMut(&mut dyn Write) -> Option<Commit>) -> Result<(), StorageError>;

    /// Whether the disk is nearly full, so that each change should stand for itself.
    fn is_nearly_full(&self) -> bool {
        false
    }

    /// Puts everything on disk and lets go of the file.
    fn close(&self) -> Result<(), StorageError>;
}

/// A failure of the database itself.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StorageError {
    #[error("the metadata database {} is in use by another process: stop that daemon first, or use another root", path.display())]
    InUse { path: PathBuf },
    #[error("the metadata database {} is damaged", path.display())]
    Damaged { path: PathBuf, source: Box<dyn std::error::Error + Send + Sync> },
    #[error("cannot {what} the metadata database {}", path.display())]
    Io { what: &'static str, path: PathBuf, source: std::io::Error },
    #[error("cannot {what} the metadata database {}", path.display())]
    Failed { what: &'static str, path: PathBuf, source: Box<dyn std::error::Error + Send + Sync> },
}

impl From<StorageError> for Error {
    fn from(error: StorageError) -> Self {
        let kind = match &error {
            StorageError::InUse { .. } => ErrorKind::FailedPrecondition,
            StorageError::Damaged { .. } => ErrorKind::DataLoss,
            StorageError::Failed { .. } => ErrorKind::Internal,
            StorageError::Io { source, .. } => match source.kind() {
                std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded => {
                    ErrorKind::ResourceExhausted
                }
                std::io::ErrorKind::PermissionDenied => ErrorKind::PermissionDenied,
                _ => ErrorKind::Unavailable,
            },
        };
        let message = error.to_string();
        match error {
            StorageError::InUse { .. } => Error::new(kind, message),
            StorageError::Damaged { source, .. } | StorageError::Failed { source, .. } => {
                Error::new(kind, message).caused_by(source)
            }
            StorageError::Io { source, .. } => Error::new(kind, message).caused_by(source),
        }
    }
}
