//! Chunks that are being fetched: each by one, however many wait for it.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use berth_types::Digest;
use bytes::Bytes;
use tokio::sync::watch;

use crate::fetch::FetchError;

/// What comes of a fetch.
pub(crate) type Landed = Result<Bytes, Arc<FetchError>>;

/// Chunks under way, of all layers.
#[derive(Clone, Debug, Default)]
pub(crate) struct Flights(Arc<Mutex<HashMap<Digest, watch::Receiver<Option<Landed>>>>>);

/// A chunk that its holder fetches. Dropped without an answer, those who wait are told that it was given up.
#[derive(Debug)]
pub(crate) struct Flight {
    flights: Flights,
    digest: Digest,
    landed: watch::Sender<Option<Landed>>,
}

/// A chunk that somebody else fetches.
#[derive(Debug)]
pub(crate) struct Awaited(watch::Receiver<Option<Landed>>);

/// Whose a chunk is.
#[derive(Debug)]
pub(crate) enum Turn {
    /// The caller's.
    Own(Flight),
    /// Somebody else's.
    Others(Awaited),
}

impl Flights {
    /// Begins to fetch a chunk, or joins whoever has begun.
    pub(crate) fn take(&self, digest: &Digest) -> Turn {
        let mut all = self.all();
        if let Some(landed) = all.get(digest) {
            return Turn::Others(Awaited(landed.clone()));
        }
        let (landed, waiting) = watch::channel(None);
        all.insert(digest.clone(), waiting);
        drop(all);
        Turn::Own(Flight { flights: self.clone(), digest: digest.clone(), landed })
    }

    fn all(&self) -> MutexGuard<'_, HashMap<Digest, watch::Receiver<Option<Landed>>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Flight {
    /// Tells everybody what came of it.
    pub(crate) fn land(self, landed: Landed) {
        self.landed.send_replace(Some(landed));
    }

    /// Another one who waits for it.
    pub(crate) fn awaited(&self) -> Awaited {
        Awaited(self.landed.subscribe())
    }
}

impl Drop for Flight {
    fn drop(&mut self) {
        self.flights.all().remove(&self.digest);
    }
}

impl Awaited {
    /// Resolves when it is known what came of it.
    pub(crate) async fn landed(mut self) -> Landed {
        match self.0.wait_for(Option::is_some).await {
            Ok(landed) => landed.clone().unwrap_or_else(|| Err(Arc::new(FetchError::GivenUp))),
            Err(_) => Err(Arc::new(FetchError::GivenUp)),
        }
    }
}
