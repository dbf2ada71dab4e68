//! The one writer of the records, and the many readers.
//!
//! ```text
//!   update ─┐                                   ┌─▶ events, in the order of commits
//!   update ─┼─▶ queue ─▶ writer thread ─ sync ──┤
//!   update ─┘            (one commit for all    └─▶ answers
//!                         that wait by then)
//! ```
//!
//! A request that fails takes its own changes back and leaves the others' alone. A request that
//! only needs its order kept ([`Durability::Relaxed`]) is answered before the sync: whatever is
//! written after it cannot reach the disk before it, and the thread syncs by itself after
//! [`LINGER`]. Dropping the future of an update leaves the update done, with its events told.

mod txn;
mod writer;

use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::thread::JoinHandle;
use std::time::Duration;

use berth_core::Events;
use berth_types::{Error, Result};
use tokio::sync::oneshot;

pub(crate) use self::txn::{Changes, Stale, Txn};
use self::writer::{Job, Message, Typed, Writer};
pub(crate) use crate::storage::Durability;
use crate::storage::{Read, Storage};

/// How long a relaxed commit stays off the disk at most.
const LINGER: Duration = Duration::from_millis(10);

/// What is told of each request that succeeded, before its commit.
pub(crate) type Observer = Arc<dyn Fn(&Changes) + Send + Sync>;

/// The records.
pub(crate) struct Ledger {
    storage: Arc<dyn Storage>,
    queue: mpsc::Sender<Message>,
    thread: Mutex<Option<JoinHandle<()>>>,
    teller: Mutex<Option<tokio::task::JoinHandle<()>>>,
}

impl Ledger {
    /// Starts the writer. Needs a tokio runtime, in which events are told.
    pub(crate) fn start(
        storage: Arc<dyn Storage>,
        events: Arc<dyn Events>,
        observer: Observer,
    ) -> Result<Self> {
        let (queue, requests) = mpsc::channel();
        let (told, mut tell) = tokio::sync::mpsc::unbounded_channel::<writer::Told>();
        let teller = tokio::spawn(async move {
            while let Some(writer::Told { events: all, then }) = tell.recv().await {
                for (namespace, event) in all {
                    let topic = event.topic().to_owned();
                    if let Err(error) = events.publish(&namespace, event).await {
                        tracing::warn!(%namespace, topic, error = error.chain(), "event not told");
                    }
                }
                then();
            }
        });
        let writer = Writer::new(Arc::clone(&storage), requests, told, observer);
        let thread = std::thread::Builder::new()
            .name("metadata".to_owned())
            .spawn(move || writer.run())
            .map_err(|source| Error::io("cannot start the metadata writer", source))?;
        Ok(Self { storage, queue, thread: Mutex::new(Some(thread)), teller: Mutex::new(Some(teller)) })
    }

    /// Runs a change on the writer's thread and waits until it is committed as asked.
    pub(crate) async fn update<T: Send + 'static>(
        &self,
        durability: Durability,
        change: impl FnOnce(&mut Txn<'_>) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let (reply, answer) = oneshot::channel();
        let job: Box<dyn Job> = Box::new(Typed::new(change, reply));
        self.queue.send(Message::Job { job, durability }).map_err(|_| closed())?;
        answer.await.map_err(|_| closed())?
    }

    /// Looks at the records as they are now. Short looks only: it runs where it is called.
    pub(crate) fn view<T>(&self, look: impl FnOnce(&dyn Read) -> Result<T>) -> Result<T> {
        view(&*self.storage, look)
    }

    /// Looks at many records, on the blocking pool.
    pub(crate) async fn walk<T: Send + 'static>(
        &self,
        look: impl FnOnce(&dyn Read) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let storage = Arc::clone(&self.storage);
        tokio::task::spawn_blocking(move || view(&*storage, look))
            .await
            .map_err(|error| Error::internal("reading the metadata failed").caused_by(error))?
    }

    /// Syncs, ends the writer, tells the last events and lets go of the file.
    pub(crate) async fn close(&self) -> Result<()> {
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Some(thread) = thread else { return Ok(()) };
        let _ = self.queue.send(Message::Stop);
        let storage = Arc::clone(&self.storage);
        let closed = tokio::task::spawn_blocking(move || {
            let ended = thread.join();
            storage.close()?;
            ended.map_err(|_| Error::internal("the metadata writer panicked"))
        });
        closed.await.map_err(|error| Error::internal("closing the metadata failed").caused_by(error))??;
        let teller = self.teller.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(teller) = teller {
            let _ = teller.await;
        }
        Ok(())
    }
}

fn view<T>(storage: &dyn Storage, look: impl FnOnce(&dyn Read) -> Result<T>) -> Result<T> {
    let mut look = Some(look);
    let mut out = None;
    storage.view(&mut |read| {
        if let Some(look) = look.take() {
            out = Some(look(read)?);
        }
        Ok(())
    })?;
    out.ok_or_else(|| Error::internal("the metadata storage did not read"))
}

fn closed() -> Error {
    Error::unavailable("the metadata store is closed")
}
