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

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use async_trait::async_trait;
    use berth_core::EventStream;
    use berth_types::filter::Filters;
    use berth_types::{Envelope, ErrorKind, Event, Namespace};
    use testkit::Scratch;

    use super::*;
    use crate::storage::{Check, Redb};

    #[derive(Default)]
    struct Told(Mutex<Vec<String>>);

    #[async_trait]
    impl Events for Told {
        async fn publish(&self, _: &Namespace, event: Event) -> Result<()> {
            self.0.lock().unwrap().push(event.topic().to_owned());
            Ok(())
        }

        async fn forward(&self, _: Envelope) -> Result<()> {
            Ok(())
        }

        async fn subscribe(&self, _: Filters) -> Result<EventStream> {
            Ok(Box::pin(futures::stream::empty()))
        }
    }

    /// Counts commits.
    struct Counted(Redb, AtomicUsize);

    impl Storage for Counted {
        fn view(&self, look: &mut dyn FnMut(&dyn Read) -> Result<()>) -> Result<()> {
            self.0.view(look)
        }

        fn update(
            &self,
            change: &mut dyn FnMut(&mut dyn crate::storage::Write) -> Option<crate::storage::Commit>,
        ) -> Result<(), crate::storage::StorageError> {
            self.1.fetch_add(1, Ordering::Relaxed);
            self.0.update(change)
        }

        fn close(&self) -> Result<(), crate::storage::StorageError> {
            self.0.close()
        }
    }

    fn start(scratch: &Scratch) -> (Arc<Ledger>, Arc<Counted>, Arc<Told>) {
        let redb = Redb::open(&scratch.path("ledger"), Check::Header).unwrap();
        let storage = Arc::new(Counted(redb, AtomicUsize::new(0)));
        let told = Arc::new(Told::default());
        let ledger = Ledger::start(
            Arc::clone(&storage) as Arc<dyn Storage>,
            Arc::clone(&told) as Arc<dyn Events>,
            Arc::new(|_| {}),
        );
        (Arc::new(ledger.unwrap()), storage, told)
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_request_that_fails_takes_back_its_own_changes_only() {
        let scratch = Scratch::new();
        let (ledger, storage, told) = start(&scratch);
        // The writer is busy until all of them wait.
        let (go, gone) = std::sync::mpsc::channel::<()>();
        let busy = tokio::spawn({
            let ledger = Arc::clone(&ledger);
            async move {
                ledger
                    .update(Durability::Relaxed, move |_| {
                        let _ = gone.recv();
                        Ok(())
                    })
                    .await
            }
        });
        let changes = (0..60_u8).map(|number| {
            let ledger = Arc::clone(&ledger);
            let change = move |txn: &mut Txn<'_>| {
                let namespace: Namespace = "here".parse()?;
                txn.put(&[1, number], &[number])?;
                txn.put(&[2], &[number])?;
                txn.tell(&namespace, Event::ImageDelete { name: number.to_string() });
                match number % 3 {
                    0 => Ok(()),
                    1 => Err(Error::aborted("as asked")),
                    _ => panic!("as asked"),
                }
            };
            async move { ledger.update(Durability::Synced, change).await }
        });
        let all = tokio::spawn(futures::future::join_all(changes));
        testkit::wait::soon("the requests to wait", || storage.1.load(Ordering::Relaxed) == 1);
        tokio::task::yield_now().await;
        go.send(()).unwrap();
        busy.await.unwrap().unwrap();
        for (number, outcome) in all.await.unwrap().into_iter().enumerate() {
            match number % 3 {
                0 => outcome.unwrap(),
                1 => assert_eq!(outcome.unwrap_err().kind(), ErrorKind::Aborted),
                _ => assert_eq!(outcome.unwrap_err().kind(), ErrorKind::Internal),
            }
        }
        let stored = ledger.view(|read| {
            let mut stored = Vec::new();
            read.scan(&[1], &mut |key, _| {
                stored.push(key[1]);
                Ok(std::ops::ControlFlow::Continue(()))
            })?;
            Ok((stored, read.load(&[2])?))
        });
        let wanted: Vec<u8> = (0..60).filter(|number| number % 3 == 0).collect();
        assert_eq!(stored.unwrap(), (wanted, Some(vec![57])));
        assert_eq!(told.0.lock().unwrap().len(), 20);
        assert!(storage.1.load(Ordering::Relaxed) < 30, "they share commits");
        ledger.close().await.unwrap();
        let late = ledger.update(Durability::Synced, |_| Ok(())).await;
        assert_eq!(late.unwrap_err().kind(), ErrorKind::Unavailable);
        ledger.close().await.unwrap();
    }

    #[tokio::test]
    async fn a_relaxed_change_is_synced_soon_by_itself() {
        let scratch = Scratch::new();
        let (ledger, storage, _) = start(&scratch);
        ledger.update(Durability::Relaxed, |txn| txn.put(&[1], &[1])).await.unwrap();
        testkit::wait::soon("the sync", || storage.1.load(Ordering::Relaxed) == 2);
        // A request whose caller went away is done, and told, anyway.
        let namespace: Namespace = "here".parse().unwrap();
        let forgotten = ledger.update(Durability::Synced, move |txn| {
            txn.tell(&namespace, Event::ImageDelete { name: "x".into() });
            txn.put(&[2], &[2])
        });
        let mut forgotten = Box::pin(forgotten);
        assert!(futures::poll!(&mut forgotten).is_pending());
        drop(forgotten);
        testkit::wait::soon("the change", || ledger.view(|read| Ok(read.load(&[2])?.is_some())).unwrap());
        ledger.close().await.unwrap();
    }
}
