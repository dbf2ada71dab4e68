//! An ingest that is read while it is written.
//!
//! The writer tells how far it is; a follower reads the file up to there. The file stays the same through the commit,
//! which only renames it. When the writer goes away without one, or cuts what it had written, the channel closes and
//! every follower learns that its bytes are worth nothing.

use std::fs::File;
use std::path::PathBuf;
use std::sync::Arc;

use async_trait::async_trait;
use berth_core::BlobReader;
use berth_types::{Error, Result};
use bytes::Bytes;
use tokio::sync::watch;

use crate::reader;

/// How far a writer is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Reached {
    /// Bytes that are in the file.
    pub(crate) offset: u64,
    /// Bytes in all, 0 when nobody knows.
    pub(crate) total: u64,
    /// Whether there will not be more.
    pub(crate) committed: bool,
}

impl Reached {
    /// Whether nothing follows after `offset`.
    fn is_whole(self) -> bool {
        self.committed || (self.total > 0 && self.offset >= self.total)
    }
}

/// A reader of an ingest.
pub(crate) struct Follower {
    pub(crate) file: Arc<File>,
    pub(crate) path: PathBuf,
    pub(crate) growth: watch::Receiver<Reached>,
}

#[async_trait]
impl BlobReader for Follower {
    fn size(&self) -> u64 {
        self.growth.borrow().total
    }

    async fn reach(&self, beyond: u64) -> Result<u64> {
        let mut growth = self.growth.clone();
        let enough = |reached: &Reached| reached.offset > beyond || reached.is_whole();
        let reached = growth.wait_for(enough).await.map(|reached| *reached);
        match reached {
            // Bytes that were reached before are worth nothing once their writer has gone.
            Ok(reached) if reached.committed || growth.has_changed().is_ok() => Ok(reached.offset),
            _ => {
                let text = format!("whoever writes {} has gone before its end", self.path.display());
                Err(Error::unavailable(text))
            }
        }
    }

    async fn read_at(&self, offset: u64, length: usize) -> Result<Bytes> {
        let left = self.reach(offset).await?.saturating_sub(offset);
        reader::read(&self.file, &self.path, offset, length.min(usize::try_from(left).unwrap_or(usize::MAX)))
            .await
    }

    fn file(&self) -> Option<&File> {
        Some(&self.file)
    }
}
