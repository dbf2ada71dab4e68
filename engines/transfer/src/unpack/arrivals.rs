//! Which blobs are there already, for whoever waits for one.

use std::collections::HashSet;

use berth_types::{Digest, Error, Result};
use tokio::sync::watch;

/// The side that tells. Once it is dropped, what has not come will not.
pub(crate) struct Arrivals(watch::Sender<HashSet<Digest>>);

impl Arrivals {
    /// Nothing is there.
    pub(crate) fn new() -> Self {
        Self(watch::Sender::new(HashSet::new()))
    }

    /// A blob is there, verified.
    pub(crate) fn tell(&self, digest: &Digest) {
        self.0.send_modify(|there| {
            there.insert(digest.clone());
        });
    }

    /// The side that waits.
    pub(crate) fn waiting(&self) -> Waiting {
        Waiting(Some(self.0.subscribe()))
    }
}

/// The side that waits.
#[derive(Clone)]
pub(crate) struct Waiting(Option<watch::Receiver<HashSet<Digest>>>);

impl Waiting {
    /// Everything is there.
    pub(crate) fn for_nothing() -> Self {
        Self(None)
    }

    /// Resolves when the blob is there.
    pub(crate) async fn wait(&self, digest: &Digest) -> Result<()> {
        let Some(mut there) = self.0.clone() else { return Ok(()) };
        match there.wait_for(|there| there.contains(digest)).await {
            Ok(_) => Ok(()),
            Err(_) => Err(Error::cancelled(format!("{digest} does not come"))),
        }
    }
}
