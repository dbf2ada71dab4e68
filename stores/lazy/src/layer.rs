//! One layer: its table, where its bytes are, and what became of them.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use berth_stargz::{Layer as Index, Prefetch, Stored};
use berth_types::{Digest, ImageRef};
use serde::{Deserialize, Serialize};

use crate::cache::Cache;
use crate::demand::Course;
use crate::source::Source;

/// How much of a layer was used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LayerFigures {
    /// Bytes that came from the registry.
    pub fetched: u64,
    /// Reads that were answered with what was there.
    pub hits: u64,
    /// Reads that had to wait for the registry, or for a chunk to be verified.
    pub misses: u64,
    /// Reads that failed.
    pub failures: u64,
}

/// A layer.
pub struct Layer {
    digest: Digest,
    index: Index,
    source: Arc<dyn Source>,
    /// The digest of the tar in it, where that is known.
    diff_id: Option<Digest>,
    /// In whose repository an index of it was published that nobody has confirmed.
    published: Option<ImageRef>,
    confirmed: AtomicBool,
    /// Whether its index has turned out to be a lie.
    condemned: AtomicBool,
    /// The chunks that are in the blob, in its order.
    order: Vec<u32>,
    /// Where each chunk is in that order; holes are nowhere.
    places: Vec<u32>,
    course: Course,
    fetched: AtomicU64,
    hits: AtomicU64,
    misses: AtomicU64,
    failures: AtomicU64,
}

/// What became of a read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Served {
    Hit,
    Miss,
    Failure,
}

impl Layer {
    /// A layer of which the table has been read.
    pub fn new(digest: Digest, index: Index, source: Arc<dyn Source>) -> Self {
        let chunks = index.all_chunks();
        let start =
            |at: &u32| chunks[*at as usize].stored.as_ref().map(|stored| (stored.range.start, stored.skip));
        let mut order: Vec<u32> = (0..chunks.len() as u32).filter(|at| start(at).is_some()).collect();
        order.sort_by_key(start);
        let mut places = vec![u32::MAX; chunks.len()];
        for (place, at) in order.iter().enumerate() {
            places[*at as usize] = place as u32;
        }
        let counter = || AtomicU64::new(0);
        Self {
            digest,
            index,
            source,
            diff_id: None,
            published: None,
            confirmed: AtomicBool::new(false),
            condemned: AtomicBool::new(false),
            order,
            places,
            course: Course::default(),
            fetched: counter(),
            hits: counter(),
            misses: counter(),
            failures: counter(),
        }
    }

    /// The same, of which it is known what it holds.
    pub(crate) fn holding(mut self, diff_id: Digest) -> Self {
        self.diff_id = Some(diff_id);
        self
    }

    /// The same, by an index that was published in an image's repository.
    pub(crate) fn published_in(mut self, image: ImageRef) -> Self {
        self.published = Some(image);
        self
    }

    /// In whose repository its index was published, as long as nobody has confirmed it.
    pub(crate) fn unconfirmed(&self) -> Option<&ImageRef> {
        self.published.as_ref().filter(|_| !self.confirmed.load(Ordering::Acquire))
    }

    /// Its index is as good as one that was made here.
    pub(crate) fn confirm(&self) {
        self.confirmed.store(true, Ordering::Release);
    }

    /// Its index is a lie.
    pub(crate) fn condemn(&self) {
        self.condemned.store(true, Ordering::Release);
    }

    /// Whether its index is a lie, so that nothing of it may be served.
    pub(crate) fn is_condemned(&self) -> bool {
        self.condemned.load(Ordering::Acquire)
    }

    /// The digest of the tar in it, where that is known.
    pub(crate) fn diff_id(&self) -> Option<&Digest> {
        self.diff_id.as_ref()
    }

    /// Bytes of its files, and how many of them a cache has. Holes are not counted.
    pub(crate) fn local(&self, cache: &Cache) -> (u64, u64) {
        let chunks = (0..self.places()).filter_map(|place| self.stored(place));
        chunks.fold((0, 0), |(all, here), (size, stored)| {
            (all + size, here + if cache.has(&stored.digest) { size } else { 0 })
        })
    }

    /// Its digest.
    pub fn digest(&self) -> &Digest {
        &self.digest
    }

    /// How much of it was used.
    pub fn figures(&self) -> LayerFigures {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        LayerFigures {
            fetched: read(&self.fetched),
            hits: read(&self.hits),
            misses: read(&self.misses),
            failures: read(&self.failures),
        }
    }

    pub(crate) fn index(&self) -> &Index {
        &self.index
    }

    /// How reads of it have followed one another.
    pub(crate) fn course(&self) -> &Course {
        &self.course
    }

    pub(crate) fn source(&self) -> &dyn Source {
        &*self.source
    }

    /// How many chunks are in the blob.
    pub(crate) fn places(&self) -> usize {
        self.order.len()
    }

    /// The chunk at a place in the order of the blob.
    pub(crate) fn stored(&self, place: usize) -> Option<(u64, &Stored)> {
        let chunk = &self.index.all_chunks()[*self.order.get(place)? as usize];
        Some((chunk.size, chunk.stored.as_ref()?))
    }

    /// The place of a chunk by its number in the table.
    pub(crate) fn place(&self, chunk: usize) -> usize {
        self.places.get(chunk).map_or(usize::MAX, |place| *place as usize)
    }

    /// Up to which byte of the blob whoever made the layer wants it fetched at once.
    pub(crate) fn prefetch(&self) -> u64 {
        match self.index.prefetch() {
            Prefetch::UpTo(end) => end,
            Prefetch::Unsaid | Prefetch::Nothing => 0,
        }
    }

    pub(crate) fn count_fetched(&self, bytes: u64) {
        self.fetched.fetch_add(bytes, Ordering::Relaxed);
    }

    pub(crate) fn count(&self, served: Served) {
        let counter = match served {
            Served::Hit => &self.hits,
            Served::Miss => &self.misses,
            Served::Failure => &self.failures,
        };
        counter.fetch_add(1, Ordering::Relaxed);
    }
}

impl std::fmt::Debug for Layer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Layer").field("digest", &self.digest).finish_non_exhaustive()
    }
}
