//! The one crossing to threads that may wait for a disk.

use berth_types::{Error, Result};

use crate::error::ContentError;

/// Runs `work` on the blocking pool. It runs to its end even if nobody waits for it any more.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, ContentError> + Send + 'static,
) -> Result<T> {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done.map_err(Error::from),
        Err(error) if error.is_cancelled() => Err(Error::cancelled("the daemon is ending")),
        Err(error) => Err(Error::internal("the content store panicked").caused_by(error)),
    }
}
