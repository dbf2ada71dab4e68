//! Notes what is read of one mount in its first seconds.

use std::collections::HashSet;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use super::list::{List, PARTS};
use crate::layer::Layer;

/// Notes until its time is over, which begins with the first read.
#[derive(Debug)]
pub(crate) struct Learner {
    /// Where the list goes.
    path: PathBuf,
    /// How long it notes.
    period: Duration,
    over: AtomicBool,
    seen: Mutex<Seen>,
}

#[derive(Debug, Default)]
struct Seen {
    order: Vec<u32>,
    known: HashSet<u32>,
}

impl Learner {
    pub(crate) fn new(path: PathBuf, period: Duration) -> Self {
        Self { path, period, over: AtomicBool::new(false), seen: Mutex::default() }
    }

    /// Notes chunks that are read, by their numbers in the table. True for the first ones: then somebody has to see
    /// to it that [`Learner::learn`] runs.
    pub(crate) fn note(&self, chunks: impl Iterator<Item = usize>) -> bool {
        if self.over.load(Ordering::Relaxed) {
            return false;
        }
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let first = seen.order.is_empty();
        for number in chunks.map(|number| number as u32) {
            if seen.order.len() < PARTS && seen.known.insert(number) {
                seen.order.push(number);
            }
        }
        first && !seen.order.is_empty()
    }

    /// Waits until the time is over, and keeps what was noted.
    pub(crate) async fn learn(self: Arc<Self>, layer: Arc<Layer>) {
        tokio::time::sleep(self.period).await;
        self.over.store(true, Ordering::Relaxed);
        let Seen { order, .. } =
            std::mem::take(&mut *self.seen.lock().unwrap_or_else(PoisonError::into_inner));
        let learning = tokio::task::spawn_blocking(move || {
            let list = List::of(layer.index(), &order);
            if list.is_empty() {
                return;
            }
            if let Err(error) = super::keep(list, &self.path) {
                tracing::warn!(layer = %layer.digest(), %error, "what was read first is not kept");
            }
        });
        if let Err(error) = learning.await {
            tracing::warn!(%error, "what was read first is not kept");
        }
    }
}
