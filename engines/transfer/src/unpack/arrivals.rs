//! Which blobs come and which are there already, for whoever waits for one.

use std::collections::HashMap;

use berth_types::{Digest, Error, IngestRef, Result};
use tokio::sync::watch;

/// Where a blob is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Arrival {
    /// It comes, by this ingest.
    Coming(IngestRef),
    /// It is there, verified.
    There,
}

/// The side that tells. Once it is dropped, what has not come will not.
pub(crate) struct Arrivals(watch::Sender<HashMap<Digest, Arrival>>);

impl Arrivals {
    /// Nothing is there.
    pub(crate) fn new() -> Self {
        Self(watch::Sender::new(HashMap::new()))
    }

    /// A blob begins to come, or is there.
    pub(crate) fn tell(&self, digest: &Digest, arrival: Arrival) {
        self.0.send_modify(|all| {
            all.insert(digest.clone(), arrival);
        });
    }

    /// The side that waits.
    pub(crate) fn waiting(&self) -> Waiting {
        Waiting(Some(self.0.subscribe()))
    }
}

/// The side that waits.
#[derive(Clone)]
pub(crate) struct Waiting(Option<watch::Receiver<HashMap<Digest, Arrival>>>);

impl Waiting {
    /// Everything is there.
    pub(crate) fn for_nothing() -> Self {
        Self(None)
    }

    /// Whether anything has to be waited for.
    pub(crate) fn is_needed(&self) -> bool {
        self.0.is_some()
    }

    /// Resolves when the blob comes or is there.
    pub(crate) async fn begun(&self, digest: &Digest) -> Result<Arrival> {
        self.wait(digest, |_| true).await
    }

    /// Resolves when the blob is there.
    pub(crate) async fn there(&self, digest: &Digest) -> Result<()> {
        self.wait(digest, |arrival| *arrival == Arrival::There).await.map(drop)
    }

    async fn wait(&self, digest: &Digest, enough: impl Fn(&Arrival) -> bool) -> Result<Arrival> {
        let Some(mut all) = self.0.clone() else { return Ok(Arrival::There) };
        match all.wait_for(|all| all.get(digest).is_some_and(&enough)).await {
            Ok(all) => Ok(all.get(digest).cloned().unwrap_or(Arrival::There)),
            Err(_) => Err(Error::cancelled(format!("{digest} does not come"))),
        }
    }
}
