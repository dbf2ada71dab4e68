//! The garbage collector: containerd's roots and labels, without its pause.
//!
//! ```text
//!   mark (a state of the records) ─▶ sweep (batches, each a transaction) ─▶ sync ─▶ free (backends)
//!     └──────────── whatever is stored meanwhile is marked by the next batch ────────────┘
//! ```
//!
//! Roots are containers, images that have not expired, leases that hold and their resources,
//! ingests that are not abandoned, and whatever is labelled so ([`labels`]). No lock is held over
//! I/O but that of the one object that is being removed.

mod backends;
pub(crate) mod labels;
mod mark;
pub(crate) mod orphans;
mod restored;
mod schedule;
mod sweep;

use std::sync::{Arc, Weak};
use std::time::{Duration, Instant, SystemTime};

use berth_types::{Error, Result};

use self::orphans::Orphans;
pub(crate) use self::schedule::Schedule;
use self::sweep::{Removed, Sweep};
use crate::backup;
use crate::key::Kind;
use crate::ledger::Durability;
use crate::shared::Shared;
use crate::snapshots::{self, Interrupted};

/// What a collection did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Collected {
    /// Blobs that namespaces lost.
    pub blobs: u64,
    /// Snapshots that namespaces lost.
    pub snapshots: u64,
    /// Images that had expired.
    pub images: u64,
    /// Leases that had expired.
    pub leases: u64,
    /// Ingests that were abandoned.
    pub ingests: u64,
    /// Activated mounts that nothing held.
    pub mounts: u64,
    /// Blobs that went from the content store.
    pub blobs_freed: u64,
    /// Bytes of those.
    pub bytes_freed: u64,
    /// Snapshots that went from the snapshotters.
    pub snapshots_freed: u64,
    /// How long the records took, without the backends.
    pub elapsed: Duration,
}

impl Collected {
    fn count(&mut self, removed: &Removed) {
        match removed.kind {
            Kind::Blob => self.blobs += 1,
            Kind::Snapshot => self.snapshots += 1,
            Kind::Image => self.images += 1,
            Kind::Lease => self.leases += 1,
            Kind::Ingest => self.ingests += 1,
            _ => {}
        }
    }
}

/// How a daemon's start found things.
pub(crate) struct Beginning {
    /// Commits that a crash interrupted.
    pub(crate) interrupted: Vec<Interrupted>,
    /// Whether the records are those of a backup.
    pub(crate) restored: bool,
    /// Whether there was no database.
    pub(crate) new: bool,
}

/// Starts the scheduler, which first finishes what a crash interrupted. It ends with the store.
pub(crate) fn start(shared: &Arc<Shared>, beginning: Beginning) {
    let schedule = Arc::clone(&shared.schedule);
    let task = tokio::spawn(run(Arc::downgrade(shared), Arc::clone(&schedule), beginning));
    schedule.owns(task);
}

async fn run(shared: Weak<Shared>, schedule: Arc<Schedule>, beginning: Beginning) {
    let mut pace = schedule.pace();
    let mut orphans = match shared.upgrade() {
        Some(shared) => recover(&shared, beginning).await,
        None => return,
    };
    while schedule.due(&pace).await {
        let Some(shared) = shared.upgrade() else { return };
        let waiters = schedule.begin();
        let started = Instant::now();
        let done = collect(&shared, &mut orphans).await;
        schedule.end_mark();
        let took = done.as_ref().map_or_else(|_| started.elapsed(), |done| done.elapsed);
        schedule.paced(&mut pace, took);
        match &done {
            Ok(done) => tracing::debug!(?done, "garbage collected"),
            Err(error) => tracing::error!(error = error.chain(), "garbage collection failed"),
        }
        for waiter in waiters {
            let answer = match &done {
                Ok(done) => Ok(done.clone()),
                Err(error) => Err(Error::new(error.kind(), format!("gc failed: {}", error.chain()))),
            };
            let _ = waiter.send(answer);
        }
        shared.save(backup::INTERVAL).await;
    }
}

async fn recover(shared: &Shared, beginning: Beginning) -> Orphans {
    let opened = SystemTime::now();
    if beginning.restored
        && let Err(error) = restored::reconcile(shared).await
    {
        tracing::error!(error = error.chain(), "the restored records may name what is gone");
    }
    for commit in beginning.interrupted {
        if let Err(error) = snapshots::finish(shared, commit).await {
            tracing::error!(error = error.chain(), "a snapshot's interrupted commit stays as it is");
        }
    }
    shared.recovered.send_replace(true);
    if let Err(error) = shared.sequence.warm(&shared.ledger).await {
        tracing::error!(error = error.chain(), "no numbers reserved");
    }
    orphans::decide(shared, beginning.new, opened).await.unwrap_or_else(|error| {
        tracing::warn!(error = error.chain(), "orphans are kept this time");
        Orphans::Keep
    })
}

async fn collect(shared: &Arc<Shared>, orphans: &mut Orphans) -> Result<Collected> {
    let started = Instant::now();
    let mut collected = Collected::default();
    shared.schedule.begin_mark();
    // Before the records are looked at: what is activated later is not looked for among them.
    let mounts = shared.mounts.as_ref().map_or_else(Vec::new, |mounts| mounts.held());
    let sweep = shared.ledger.walk(move |read| Sweep::prepare(read, mounts)).await?;
    let mut unheld = Vec::new();
    let swept = sweep.run(&shared.ledger, &shared.schedule, &mut collected, &mut unheld).await?;
    shared.schedule.end_mark();
    collected.elapsed = started.elapsed();
    if let Some(mounts) = &shared.mounts {
        // With nothing to end it tries again what could not be ended before.
        collected.mounts = unheld.len() as u64;
        mounts.let_go(unheld).await;
    }
    let mut stale = shared.schedule.take_stale();
    stale.extend(swept);
    if shared.schedule.orphans_may_go() && *orphans == Orphans::Keep {
        orphans::let_go(shared).await?;
        *orphans = Orphans::Sweep;
    }
    if *orphans == Orphans::Sweep {
        match backends::everything(shared).await {
            Ok(all) => {
                stale.extend(all);
                *orphans = Orphans::Swept;
            }
            Err(error) => tracing::warn!(error = error.chain(), "orphans not looked for"),
        }
    }
    if stale.is_empty() {
        return Ok(collected);
    }
    // What the backends lose must be gone from the records for good.
    let sync = shared.ledger.update(Durability::Synced, |txn| {
        txn.force();
        Ok(())
    });
    if let Err(error) = sync.await {
        shared.schedule.keep_stale(stale);
        return Err(error);
    }
    let again = backends::free(shared, stale, &mut collected).await;
    shared.schedule.keep_stale(again);
    Ok(collected)
}
