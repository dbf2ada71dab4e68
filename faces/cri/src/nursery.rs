//! Work that goes on whoever waits for it, and its owner.

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError};

use berth_types::{Error, ErrorKind, Result};
use futures::FutureExt as _;
use futures::future::{BoxFuture, Shared};
use tokio::task::JoinSet;
use tracing::Instrument as _;

/// An error that several callers get.
type Told = Arc<(ErrorKind, String)>;
type Flight = Shared<BoxFuture<'static, Result<String, Told>>>;

/// The owner of all tasks of the interface, and of operations that several requests may wait for. Clones share it.
#[derive(Clone, Default)]
pub(crate) struct Nursery {
    tasks: Arc<Mutex<Option<JoinSet<()>>>>,
    flights: Arc<Mutex<BTreeMap<String, Flight>>>,
}

impl Nursery {
    /// One that takes tasks.
    pub(crate) fn open() -> Self {
        Self { tasks: Arc::new(Mutex::new(Some(JoinSet::new()))), flights: Arc::default() }
    }

    /// Lets a task run, unless the nursery is closed.
    pub(crate) fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        let mut tasks = self.tasks.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(tasks) = tasks.as_mut() {
            while tasks.try_join_next().is_some() {}
            tasks.spawn(task);
        }
    }

    /// Runs `work` to its end, whatever becomes of whoever asked for it. A request with the same key that comes
    /// meanwhile waits for the same work: a kubelet that lost patience asks again, and gets what the first would have.
    pub(crate) async fn join(
        &self,
        key: String,
        work: impl Future<Output = Result<String>> + Send + 'static,
    ) -> Result<String> {
        let flight = self.board(&key, work);
        flight.await.map_err(|told| Error::new(told.0, told.1.clone()))
    }

    fn board(&self, key: &str, work: impl Future<Output = Result<String>> + Send + 'static) -> Flight {
        let mut flights = self.flights.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(flight) = flights.get(key) {
            return flight.clone();
        }
        let (tell, told) = tokio::sync::oneshot::channel();
        let ending = || Arc::new((ErrorKind::Unavailable, "the daemon is ending".to_owned()));
        let flight = told.map(move |told| told.unwrap_or_else(|_| Err(ending()))).boxed().shared();
        flights.insert(key.to_owned(), flight.clone());
        let (all, key) = (self.flights.clone(), key.to_owned());
        // What it does belongs to the first request in traces.
        let work = work.in_current_span();
        self.spawn(async move {
            let done = work.await.map_err(|error| Arc::new((error.kind(), error.chain())));
            all.lock().unwrap_or_else(PoisonError::into_inner).remove(&key);
            // Everybody may have left.
            let _ = tell.send(done);
        });
        flight
    }

    /// Ends all of them.
    pub(crate) async fn close(&self) {
        let tasks = self.tasks.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(mut tasks) = tasks {
            tasks.shutdown().await;
        }
        self.flights.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_second_request_waits_for_the_first_ones_work() {
        let nursery = Nursery::open();
        let (go, wait) = tokio::sync::oneshot::channel::<()>();
        let work = async move {
            let _ = wait.await;
            Ok("made once".to_owned())
        };
        // A caller that gives up takes nothing with it.
        drop(nursery.board("key", work));
        let second = nursery.board("key", async { Ok("made twice".to_owned()) });
        go.send(()).unwrap();
        assert_eq!(second.await.unwrap(), "made once");
        let third = nursery.join("key".to_owned(), async { Err(Error::not_found("gone")) }).await;
        assert_eq!(third.unwrap_err().kind(), ErrorKind::NotFound);
    }

    #[tokio::test]
    async fn a_closed_nursery_answers_instead_of_hanging() {
        let nursery = Nursery::open();
        nursery.close().await;
        let answer = nursery.join("key".to_owned(), async { Ok(String::new()) }).await;
        assert_eq!(answer.unwrap_err().kind(), ErrorKind::Unavailable);
    }
}
