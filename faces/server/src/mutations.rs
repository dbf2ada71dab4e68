//! Changes that outlive their client.
//!
//! tonic drops a request's future when its client goes away. A change is therefore made in a task of its own: it
//! comes to its end, and only the answer is lost. The daemon's stop waits for those under way.

use std::future::Future;
use std::sync::Arc;

use tokio::sync::watch;
use tonic::{Response, Status};
use tracing::Instrument as _;

use crate::shared::status;

/// The changes under way.
#[derive(Clone)]
pub(crate) struct Mutations(Arc<watch::Sender<usize>>);

/// Counts one change for as long as it lives.
struct Underway(Arc<watch::Sender<usize>>);

impl Mutations {
    /// None under way.
    pub(crate) fn new() -> Self {
        Self(Arc::new(watch::Sender::new(0)))
    }

    /// Makes a change and answers with what came of it. A panic in it is answered with Internal.
    pub(crate) async fn run<T: Send + 'static>(
        &self,
        change: impl Future<Output = berth_types::Result<T>> + Send + 'static,
    ) -> Result<Response<T>, Status> {
        let underway = self.enter();
        let change = async move {
            let result = change.await;
            drop(underway);
            result
        };
        // What it does belongs to the request in traces.
        let task = tokio::spawn(change.in_current_span());
        match task.await {
            Ok(Ok(value)) => Ok(Response::new(value)),
            Ok(Err(error)) => Err(status(&error)),
            Err(_) => Err(panicked()),
        }
    }

    /// Starts a change that answers by a channel of its own.
    pub(crate) fn start(&self, change: impl Future<Output = ()> + Send + 'static) {
        let underway = self.enter();
        tokio::spawn(async move {
            change.await;
            drop(underway);
        });
    }

    /// Resolves when none is under way.
    pub(crate) async fn idle(&self) {
        let mut count = self.0.subscribe();
        // The sender lives in `self`, so the wait cannot fail.
        let _ = count.wait_for(|count| *count == 0).await;
    }

    fn enter(&self) -> Underway {
        self.0.send_modify(|count| *count += 1);
        Underway(self.0.clone())
    }
}

impl Drop for Underway {
    fn drop(&mut self) {
        self.0.send_modify(|count| *count -= 1);
    }
}

/// What a client is told of a request that panicked; the panic itself is in the daemon's log.
pub(crate) fn panicked() -> Status {
    Status::internal("the daemon failed inside this request; its log says where")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(flavor = "current_thread")]
    async fn a_change_comes_to_its_end_when_nobody_waits_for_it() {
        let mutations = Mutations::new();
        let (begun, begin) = tokio::sync::oneshot::channel::<()>();
        let (done, mut is_done) = watch::channel(false);
        let change = async move {
            begin.await.unwrap();
            done.send_replace(true);
            Ok(())
        };
        {
            let waiting = mutations.run(change);
            tokio::pin!(waiting);
            assert!(futures::poll!(&mut waiting).is_pending());
        }
        begun.send(()).unwrap();
        mutations.idle().await;
        assert!(*is_done.borrow_and_update());
    }

    #[tokio::test(flavor = "current_thread")]
    async fn a_panic_is_an_answer() {
        let mutations = Mutations::new();
        let status = mutations.run::<()>(async { panic!("on purpose") }).await.unwrap_err();
        assert_eq!(status.code(), tonic::Code::Internal);
        mutations.idle().await;
    }
}
