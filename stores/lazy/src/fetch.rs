//! Chunks from the cache, or from where the layer is.

use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use berth_stargz::{ChunkError, Stored};
use berth_types::Digest;
use bytes::Bytes;
use futures::{StreamExt as _, TryStreamExt as _};
use tokio::sync::Semaphore;

use crate::cache::Cache;
use crate::demand::Demand;
use crate::figures::{Counters, Reason};
use crate::flights::{Flight, Flights, Turn};
use crate::layer::Layer;

/// What may be in memory at once of all that is fetched, in units of [`UNIT`] bytes.
const ROOM: u32 = 128;
const UNIT: u64 = 1 << 20;

/// Parts of a layer that are fetched at once before anybody reads them.
const AT_ONCE: usize = 8;

/// Bytes that are fetched with each.
const LITTLE: u64 = 64 << 10;

/// How often a range is asked for whose bytes turn out wrong.
const TRIES: u32 = 2;

/// Why a chunk is not to be had now.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    /// The registry does not give it.
    #[error("cannot fetch bytes {} to {} of layer {layer}", range.start, range.end)]
    Unreachable {
        /// The layer.
        layer: Digest,
        /// Of its blob.
        range: Range<u64>,
        /// From the registry's client.
        source: berth_types::Error,
    },
    /// It did not come in time.
    #[error("bytes {} to {} of layer {layer} did not come within {} s", range.start, range.end, limit.as_secs())]
    Late {
        /// The layer.
        layer: Digest,
        /// Of its blob.
        range: Range<u64>,
        /// How long was waited.
        limit: Duration,
    },
    /// What came is not what it should be.
    #[error("layer {layer} holds wrong bytes")]
    Wrong {
        /// The layer.
        layer: Digest,
        /// What is wrong.
        source: ChunkError,
    },
    /// Whoever fetched it was stopped.
    #[error("the fetch was given up")]
    GivenUp,
}

/// Fetches for all layers.
#[derive(Clone, Debug)]
pub(crate) struct Fetcher {
    pub(crate) cache: Arc<Cache>,
    pub(crate) demand: Arc<Demand>,
    pub(crate) counters: Arc<Counters>,
    flights: Flights,
    room: Arc<Semaphore>,
    deadline: Duration,
    span: u64,
}

/// A chunk of a span: which it is, and its flight.
struct Seat {
    size: u64,
    stored: Stored,
    flight: Flight,
}

impl Fetcher {
    pub(crate) fn new(cache: Arc<Cache>, deadline: Duration, span: u64) -> Self {
        Self {
            cache,
            demand: Arc::default(),
            counters: Arc::default(),
            flights: Flights::default(),
            room: Arc::new(Semaphore::new(ROOM as usize)),
            deadline,
            span,
        }
    }

    /// A chunk's bytes, verified; `at` is its place in the order of the blob. Fetches what follows it in the blob as
    /// well where nobody has it: little at first, and more the longer reads follow one another. Bounded in time.
    pub(crate) async fn chunk(&self, layer: &Arc<Layer>, at: usize) -> Result<Bytes, Arc<FetchError>> {
        let Some((size, stored)) = layer.stored(at) else { return Err(Arc::new(FetchError::GivenUp)) };
        if let Some(bytes) = self.load(&stored.digest, size).await {
            return Ok(bytes);
        }
        let _waiting = self.demand.begin();
        match self.flights.take(&stored.digest) {
            Turn::Others(awaited) => awaited.landed().await,
            Turn::Own(flight) => {
                // It may have landed between the look and the turn.
                if let Some(bytes) = self.load(&stored.digest, size).await {
                    flight.land(Ok(bytes.clone()));
                    return Ok(bytes);
                }
                let awaited = flight.awaited();
                let span = layer.course().span(stored.range.start, self.span);
                self.span(layer, at, flight, (span, Reason::Demand)).await;
                awaited.landed().await
            }
        }
    }

    /// Fetches what is missing of a layer, a span at a time, up to a byte of the blob; if it is patient, only while nobody
    /// waits for anything. Stops at the first failure, for somebody else to try, and where it would cost others their chunks.
    pub(crate) async fn ahead(
        &self,
        layer: &Arc<Layer>,
        up_to: u64,
        span: u64,
        is_patient: bool,
    ) -> Result<(), Arc<FetchError>> {
        for at in 0..layer.places() {
            let Some((_, stored)) = layer.stored(at).filter(|(_, stored)| stored.range.start < up_to) else {
                break;
            };
            if self.cache.has(&stored.digest) {
                continue;
            }
            if self.cache.is_crowded() {
                break;
            }
            if is_patient {
                self.demand.calm().await;
            }
            if let Turn::Own(flight) = self.flights.take(&stored.digest) {
                let awaited = flight.awaited();
                let span = span.min(up_to - stored.range.start);
                self.span(layer, at, flight, (span, Reason::Ahead)).await;
                awaited.landed().await?;
            }
        }
        Ok(())
    }

    /// Fetches what is missing of some chunks, several at a time; each is a place in the order of the blob. Stops at the
    /// first failure, and where it would cost others their chunks.
    pub(crate) async fn first(&self, layer: &Arc<Layer>, places: Vec<usize>) -> Result<(), Arc<FetchError>> {
        let missing = places.into_iter().map(|at| async move {
            let Some((_, stored)) = layer.stored(at) else { return Ok(()) };
            if self.cache.has(&stored.digest) || self.cache.is_crowded() {
                return Ok(());
            }
            match self.flights.take(&stored.digest) {
                Turn::Others(_) => Ok(()),
                Turn::Own(flight) => {
                    let awaited = flight.awaited();
                    self.span(layer, at, flight, (LITTLE, Reason::Ahead)).await;
                    awaited.landed().await.map(drop)
                }
            }
        });
        futures::stream::iter(missing).buffer_unordered(AT_ONCE).try_collect().await
    }

    async fn load(&self, digest: &Digest, size: u64) -> Option<Bytes> {
        if !self.cache.has(digest) {
            return None;
        }
        let (cache, digest) = (Arc::clone(&self.cache), digest.clone());
        tokio::task::spawn_blocking(move || cache.load(&digest, size)).await.ok()?.map(Bytes::from)
    }

    /// Fetches a chunk and those behind it, and lands every flight.
    async fn span(&self, layer: &Arc<Layer>, at: usize, first: Flight, (span, reason): (u64, Reason)) {
        let seats = self.seats(layer, at, first, span);
        let start = seats.first().map_or(0, |seat| seat.stored.range.start);
        let end = seats.iter().map(|seat| seat.stored.range.end).max().unwrap_or(start);
        let range = start..end;
        let bringing = self.bring(layer, range.clone(), seats, reason);
        if tokio::time::timeout(self.deadline, bringing).await.is_err() {
            // Those who wait learn only that it was given up, for the flights went with what was waited for.
            let late = FetchError::Late { layer: layer.digest().clone(), range, limit: self.deadline };
            self.counters.late();
            tracing::warn!(error = %late, "a read fails");
        }
    }

    /// The chunk and those behind it that nobody has or fetches.
    fn seats(&self, layer: &Layer, at: usize, first: Flight, span: u64) -> Vec<Seat> {
        let mut seats = Vec::new();
        let Some((size, stored)) = layer.stored(at) else { return seats };
        // What shares a stream with the chunk comes with it.
        let reach = stored.range.start.saturating_add(span.max(1)).max(stored.range.end);
        seats.push(Seat { size, stored: stored.clone(), flight: first });
        for next in at + 1..layer.places() {
            let Some((size, stored)) = layer.stored(next).filter(|(_, stored)| stored.range.end <= reach)
            else {
                break;
            };
            if self.cache.has(&stored.digest) {
                continue;
            }
            if let Turn::Own(flight) = self.flights.take(&stored.digest) {
                seats.push(Seat { size, stored: stored.clone(), flight });
            }
        }
        seats
    }

    async fn bring(&self, layer: &Arc<Layer>, range: Range<u64>, mut seats: Vec<Seat>, reason: Reason) {
        let bytes = (range.end - range.start) + seats.iter().map(|seat| seat.size).sum::<u64>();
        let units = bytes.div_ceil(UNIT).clamp(1, u64::from(ROOM)) as u32;
        let Ok(_room) = self.room.acquire_many(units).await else { return };
        for tries in 1..=TRIES {
            let blob = match layer.source().read(range.clone()).await {
                Ok(blob) => blob,
                Err(source) => {
                    self.counters.failed(&source);
                    let digest = layer.digest().clone();
                    let error = Arc::new(FetchError::Unreachable { layer: digest, range, source });
                    tracing::warn!(error = chain(&*error), "a read fails");
                    return seats.into_iter().for_each(|seat| seat.flight.land(Err(Arc::clone(&error))));
                }
            };
            layer.count_fetched(blob.len() as u64);
            self.counters.fetched(reason, blob.len() as u64);
            seats = self.land(layer, range.start, blob, seats, tries == TRIES).await;
            if seats.is_empty() {
                return;
            }
        }
    }

    /// Lands what the bytes are good for, and gives back the rest; at the last try nothing is left.
    async fn land(
        &self,
        layer: &Arc<Layer>,
        start: u64,
        blob: Bytes,
        seats: Vec<Seat>,
        last: bool,
    ) -> Vec<Seat> {
        let (cache, layer) = (Arc::clone(&self.cache), Arc::clone(layer));
        let counters = Arc::clone(&self.counters);
        let landing = move || {
            let mut rest = Vec::new();
            // Seats are in the order of the blob, so those that share a stream have it decoded once.
            let mut unpacker = layer.index().unpacker(&blob, start);
            for seat in seats {
                match unpacker.chunk(seat.size, &seat.stored) {
                    Ok(bytes) => {
                        let digest = &seat.stored.digest;
                        let kept = if layer.index().names_chunks() {
                            cache.keep_named(digest, &bytes)
                        } else {
                            cache.keep(digest, &bytes)
                        };
                        if let Err(error) = kept {
                            tracing::warn!(%error, "cannot keep a chunk in the cache");
                        }
                        seat.flight.land(Ok(bytes.into()));
                    }
                    Err(source) if last => {
                        counters.wrong();
                        let error = FetchError::Wrong { layer: layer.digest().clone(), source };
                        tracing::warn!(error = chain(&error), "a read fails");
                        seat.flight.land(Err(Arc::new(error)));
                    }
                    Err(_) => {
                        counters.wrong();
                        rest.push(seat);
                    }
                }
            }
            rest
        };
        // A panic drops the flights, and so tells those who wait.
        tokio::task::spawn_blocking(landing).await.unwrap_or_default()
    }
}

/// An error with its causes in one line.
fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        next = cause.source();
    }
    text
}
