//! The writer's thread.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, mpsc};

use berth_types::{Error, Event, Namespace, Result};
use tokio::sync::oneshot;

use super::txn::Finished;
use super::{Durability, LINGER, Observer, Txn};
use crate::storage::{Commit, Storage, Write};

/// How many requests one commit takes at most: what came later waits for the next.
const BATCH: usize = 256;

pub(super) enum Message {
    Job { job: Box<dyn Job>, durability: Durability },
    Stop,
}

/// Events to be told, and what to do after that.
pub(super) struct Told {
    pub(super) events: Vec<(Namespace, Event)>,
    pub(super) then: Box<dyn FnOnce() + Send>,
}

/// A request, without its types.
pub(super) trait Job: Send {
    /// Runs the change; false if it failed and its changes have to go.
    fn apply(&mut self, txn: &mut Txn<'_>) -> bool;

    /// Answers, with the commit's failure if it failed.
    fn answer(self: Box<Self>, failure: Option<Error>);
}

pub(super) struct Typed<T, F> {
    change: Option<F>,
    outcome: Option<Result<T>>,
    reply: oneshot::Sender<Result<T>>,
}

impl<T, F> Typed<T, F> {
    pub(super) fn new(change: F, reply: oneshot::Sender<Result<T>>) -> Self {
        Self { change: Some(change), outcome: None, reply }
    }
}

impl<T: Send, F: FnOnce(&mut Txn<'_>) -> Result<T> + Send> Job for Typed<T, F> {
    fn apply(&mut self, txn: &mut Txn<'_>) -> bool {
        let Some(change) = self.change.take() else { return false };
        let outcome = catch_unwind(AssertUnwindSafe(|| change(txn)))
            .unwrap_or_else(|_| Err(Error::internal("a change of the metadata panicked")));
        let succeeded = outcome.is_ok();
        self.outcome = Some(outcome);
        succeeded
    }

    fn answer(self: Box<Self>, failure: Option<Error>) {
        let answer = match (self.outcome, failure) {
            (Some(Ok(_)) | None, Some(failure)) => Err(failure),
            (Some(outcome), _) => outcome,
            (None, None) => Err(Error::internal("a change of the metadata did not run")),
        };
        // Whoever asked may be gone.
        let _ = self.reply.send(answer);
    }
}

pub(super) struct Writer {
    storage: Arc<dyn Storage>,
    requests: mpsc::Receiver<Message>,
    tell: tokio::sync::mpsc::UnboundedSender<Told>,
    observer: Observer,
}

struct Batch {
    jobs: Vec<(Box<dyn Job>, Durability)>,
    stop: bool,
}

impl Writer {
    pub(super) fn new(
        storage: Arc<dyn Storage>,
        requests: mpsc::Receiver<Message>,
        tell: tokio::sync::mpsc::UnboundedSender<Told>,
        observer: Observer,
    ) -> Self {
        Self { storage, requests, tell, observer }
    }

    pub(super) fn run(self) {
        let mut unsynced = false;
        loop {
            let first = if unsynced {
                self.requests.recv_timeout(LINGER)
            } else {
                self.requests.recv().map_err(mpsc::RecvTimeoutError::from)
            };
            let stop = match first {
                Ok(first) => {
                    let batch = self.collect(first);
                    let stop = batch.stop;
                    unsynced = self.commit(batch, unsynced);
                    stop
                }
                Err(mpsc::RecvTimeoutError::Timeout) => {
                    self.sync();
                    unsynced = false;
                    false
                }
                Err(mpsc::RecvTimeoutError::Disconnected) => true,
            };
            if stop {
                if unsynced {
                    self.sync();
                }
                return;
            }
        }
    }

    /// Takes whatever else waits already. On a disk that is nearly full a request stands alone: what does
    /// not fit must not take along what would make room.
    fn collect(&self, first: Message) -> Batch {
        let most = if self.storage.is_nearly_full() { 1 } else { BATCH };
        let mut batch = Batch { jobs: Vec::new(), stop: false };
        let mut next = Some(first);
        while let Some(message) = next {
            match message {
                Message::Job { job, durability } => batch.jobs.push((job, durability)),
                Message::Stop => batch.stop = true,
            }
            next = if batch.jobs.len() < most { self.requests.try_recv().ok() } else { None };
        }
        batch
    }

    /// Commits a batch, answers it, and says whether something is left to be synced.
    fn commit(&self, batch: Batch, unsynced: bool) -> bool {
        let mut jobs = batch.jobs;
        let mut finished: Vec<Option<Finished>> = Vec::with_capacity(jobs.len());
        let mut wanted = None;
        let mut broken = None;
        let mut growth = 0;
        let committed = self.storage.update(&mut |records| {
            for (job, durability) in &mut jobs {
                match run(&mut **job, records) {
                    Ok(done) => {
                        if let Some(done) = &done {
                            (self.observer)(&done.changes);
                            growth += done.growth;
                            if done.wrote {
                                wanted = wanted.max(Some(*durability));
                            }
                        }
                        finished.push(done);
                    }
                    Err(error) => {
                        broken = Some(error);
                        return None;
                    }
                }
            }
            wanted.map(|durability| Commit { durability, frees: growth <= 0 })
        });
        let failure = match (broken, committed) {
            (Some(error), _) => Some(Arc::new(error)),
            (None, Err(error)) => Some(Arc::new(Error::from(error))),
            (None, Ok(())) => None,
        };
        if failure.is_some() {
            finished.clear();
        }
        finished.resize_with(jobs.len(), || None);
        for ((job, _), done) in jobs.into_iter().zip(finished) {
            let failure = failure
                .as_ref()
                .map(|error| Error::new(error.kind(), error.message()).caused_by(Shared(Arc::clone(error))));
            let events = done.map(|done| done.events).unwrap_or_default();
            if events.is_empty() {
                job.answer(failure);
                continue;
            }
            let then: Box<dyn FnOnce() + Send> = Box::new(move || job.answer(failure));
            if let Err(unsent) = self.tell.send(Told { events, then }) {
                (unsent.0.then)();
            }
        }
        match (failure, wanted) {
            // A reopened database holds only what was synced.
            (Some(_), _) | (None, Some(Durability::Synced)) => false,
            (None, Some(Durability::Relaxed)) => true,
            (None, None) => unsynced,
        }
    }

    fn sync(&self) {
        let nothing_new = Commit { frees: true, ..Commit::SYNCED };
        if let Err(error) = self.storage.update(&mut |_| Some(nothing_new)) {
            tracing::error!(error = Error::from(error).chain(), "cannot sync the metadata");
        }
    }
}

/// Runs one request. `None` if it failed by itself, an error if its changes cannot be taken back.
fn run(job: &mut dyn Job, records: &mut dyn Write) -> Result<Option<Finished>> {
    let mut txn = Txn::new(records);
    if job.apply(&mut txn) {
        return Ok(Some(txn.finish()));
    }
    txn.roll_back()?;
    Ok(None)
}

/// The cause that every request of a failed commit shares.
#[derive(Debug)]
struct Shared(Arc<Error>);

impl std::fmt::Display for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("the commit failed")
    }
}

impl std::error::Error for Shared {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        // The text of the error itself is that of the request's already.
        std::error::Error::source(&*self.0)
    }
}
