//! When garbage is collected.
//!
//! As containerd decides it: at once when somebody waits for it or so many deletions came
//! together, otherwise after deletions or many changes, but so that collections take no more than
//! their share of time. With nothing to collect there is no timer either.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use berth_types::{Error, Result};
use tokio::sync::{Notify, oneshot, watch};
use tokio::time::Instant;

use super::Collected;
use crate::config::GcConfig;
use crate::ledger::{Changes, Stale};

/// What a collection is taken to last at least, so that quick ones don't follow each other
/// closely.
const SHORTEST: Duration = Duration::from_millis(5);

type Waiter = oneshot::Sender<Result<Collected>>;

/// What happened since the last collection, and who waits for the next.
pub(crate) struct Schedule {
    config: GcConfig,
    revision: AtomicU64,
    mutations: AtomicU64,
    deletions: AtomicU64,
    /// The keys stored since the mark of the collection that is under way.
    stored: Mutex<Option<Vec<Vec<u8>>>>,
    stale: Mutex<BTreeSet<Stale>>,
    /// Whether somebody said that orphans which are kept may go.
    forget: AtomicBool,
    waiters: Mutex<Vec<Waiter>>,
    changed: Notify,
    stopping: watch::Sender<bool>,
    task: Mutex<Option<tokio::task::JoinHandle<()>>>,
}

/// The pace of one scheduler.
pub(super) struct Pace {
    /// Before this, no collection that can wait.
    not_before: Instant,
    /// Whether the next one happens without a cause.
    first: bool,
    total: Duration,
    count: u32,
}

impl Schedule {
    pub(crate) fn new(config: GcConfig) -> Self {
        let pause_threshold = if config.pause_threshold.is_nan() { 0.0 } else { config.pause_threshold };
        Self {
            config: GcConfig { pause_threshold: pause_threshold.clamp(0.0, 0.5), ..config },
            revision: AtomicU64::new(0),
            mutations: AtomicU64::new(0),
            deletions: AtomicU64::new(0),
            stored: Mutex::new(None),
            stale: Mutex::new(BTreeSet::new()),
            forget: AtomicBool::new(false),
            waiters: Mutex::new(Vec::new()),
            changed: Notify::new(),
            stopping: watch::Sender::new(false),
            task: Mutex::new(None),
        }
    }

    /// Takes note of a request that is about to be committed. Called by the ledger's thread.
    pub(crate) fn observe(&self, changes: &Changes) {
        if changes.stored.is_empty() && !changes.released {
            return;
        }
        if let Some(stored) = &mut *lock(&self.stored) {
            stored.extend(changes.stored.iter().cloned());
        }
        if !changes.stale.is_empty() {
            lock(&self.stale).extend(changes.stale.iter().cloned());
        }
        self.revision.fetch_add(1, Ordering::Relaxed);
        self.mutations.fetch_add(1, Ordering::Relaxed);
        if changes.released {
            self.deletions.fetch_add(1, Ordering::Relaxed);
            self.changed.notify_one();
        } else if self.mutations.load(Ordering::Relaxed) == self.config.mutation_threshold {
            self.changed.notify_one();
        }
    }

    /// How many changes there were.
    pub(crate) fn revision(&self) -> u64 {
        self.revision.load(Ordering::Relaxed)
    }

    /// Takes note of something that a backend holds for nobody.
    pub(crate) fn found_stale(&self, stale: Stale) {
        lock(&self.stale).insert(stale);
        self.deletions.fetch_add(1, Ordering::Relaxed);
        self.changed.notify_one();
    }

    /// Asks for a collection and waits for the end of one that begins after this.
    pub(crate) async fn collect(&self) -> Result<Collected> {
        let stopped = || Error::unavailable("the garbage collector has ended");
        if *self.stopping.borrow() {
            return Err(stopped());
        }
        let (waiter, done) = oneshot::channel();
        lock(&self.waiters).push(waiter);
        self.changed.notify_one();
        done.await.map_err(|_| stopped())?
    }

    /// Lets the next collection take what was kept after a database was lost.
    pub(crate) fn let_orphans_go(&self) {
        self.forget.store(true, Ordering::Relaxed);
    }

    pub(super) fn orphans_may_go(&self) -> bool {
        self.forget.swap(false, Ordering::Relaxed)
    }

    pub(crate) fn ask_to_stop(&self) {
        self.stopping.send_replace(true);
    }

    /// Ends the scheduler, after the collection that is under way.
    pub(crate) async fn stop(&self) {
        self.ask_to_stop();
        let task = lock(&self.task).take();
        if let Some(task) = task {
            let _ = task.await;
        }
        lock(&self.waiters).clear();
    }

    pub(super) fn owns(&self, task: tokio::task::JoinHandle<()>) {
        *lock(&self.task) = Some(task);
    }

    /// From now on every stored key is remembered.
    pub(super) fn begin_mark(&self) {
        *lock(&self.stored) = Some(Vec::new());
    }

    /// The keys stored since the mark, or since the last call.
    pub(super) fn stored_since_mark(&self) -> Vec<Vec<u8>> {
        lock(&self.stored).as_mut().map(std::mem::take).unwrap_or_default()
    }

    pub(super) fn end_mark(&self) {
        *lock(&self.stored) = None;
    }

    pub(super) fn take_stale(&self) -> BTreeSet<Stale> {
        std::mem::take(&mut *lock(&self.stale))
    }

    /// What could not be freed waits for the next collection, but causes none.
    pub(super) fn keep_stale(&self, stale: impl IntoIterator<Item = Stale>) {
        lock(&self.stale).extend(stale);
    }

    /// Whoever waits for the collection that begins now; the counters begin anew.
    pub(super) fn begin(&self) -> Vec<Waiter> {
        self.mutations.store(0, Ordering::Relaxed);
        self.deletions.store(0, Ordering::Relaxed);
        std::mem::take(&mut *lock(&self.waiters))
    }

    pub(super) fn pace(&self) -> Pace {
        let delay = self.config.startup_delay;
        Pace { not_before: Instant::now() + delay, first: !delay.is_zero(), total: Duration::ZERO, count: 0 }
    }

    /// Waits until a collection is due; false when the scheduler has to end.
    pub(super) async fn due(&self, pace: &Pace) -> bool {
        let mut stopping = self.stopping.subscribe();
        loop {
            if *stopping.borrow_and_update() {
                return false;
            }
            let when = self.when(pace);
            tokio::select! {
                biased;
                _ = stopping.changed() => {}
                () = at(when) => return true,
                () = self.changed.notified() => {}
            }
        }
    }

    fn when(&self, pace: &Pace) -> Option<Instant> {
        let GcConfig { deletion_threshold, mutation_threshold, schedule_delay, .. } = self.config;
        let deletions = self.deletions.load(Ordering::Relaxed);
        let mutations = self.mutations.load(Ordering::Relaxed);
        let soon = Instant::now() + schedule_delay;
        if !lock(&self.waiters).is_empty() || (deletion_threshold > 0 && deletions >= deletion_threshold) {
            return Some(soon);
        }
        let wanted =
            pace.first || deletions > 0 || (mutation_threshold > 0 && mutations >= mutation_threshold);
        wanted.then(|| soon.max(pace.not_before))
    }

    /// Takes the length of a collection into account.
    pub(super) fn paced(&self, pace: &mut Pace, took: Duration) {
        pace.first = false;
        pace.total += took;
        pace.count += 1;
        let average = (pace.total / pace.count).max(SHORTEST);
        let threshold = self.config.pause_threshold;
        let interval = if threshold > 0.0 {
            average.div_f64(threshold).saturating_sub(average)
        } else {
            Duration::from_secs(1)
        };
        pace.not_before = Instant::now() + interval;
    }
}

async fn at(when: Option<Instant>) {
    match when {
        Some(when) => tokio::time::sleep_until(when).await,
        None => std::future::pending().await,
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
