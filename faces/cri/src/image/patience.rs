//! A pull that stands still is given up.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use berth_core::{Requester, TransferStep};
use tokio::time::{Instant, sleep_until};

/// Somebody who goes away when nothing has moved for a while.
pub(super) struct Patience {
    limit: Duration,
    moved: Mutex<Instant>,
}

impl Patience {
    /// One that waits for `limit` between two steps; for ever if it is zero.
    pub(super) fn new(limit: Duration) -> Self {
        Self { limit, moved: Mutex::new(Instant::now()) }
    }

    fn moved(&self) -> Instant {
        *self.moved.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether it has gone.
    pub(super) fn lost(&self) -> bool {
        !self.limit.is_zero() && self.moved().elapsed() >= self.limit
    }
}

#[async_trait]
impl Requester for Patience {
    fn listens(&self) -> bool {
        true
    }

    async fn tell(&self, _step: TransferStep) {
        *self.moved.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
    }

    async fn gone(&self) {
        if self.limit.is_zero() {
            return std::future::pending().await;
        }
        while !self.lost() {
            sleep_until(self.moved() + self.limit).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn it_goes_when_nothing_has_moved_and_not_before() {
        let patience = Patience::new(Duration::from_secs(300));
        let gone = patience.gone();
        tokio::pin!(gone);
        tokio::time::sleep(Duration::from_secs(299)).await;
        patience.tell(TransferStep::default()).await;
        tokio::select! {
            () = &mut gone => panic!("it moved a moment ago"),
            () = tokio::time::sleep(Duration::from_secs(299)) => {}
        }
        let began = Instant::now();
        gone.await;
        assert!(began.elapsed() <= Duration::from_secs(2), "{:?}", began.elapsed());
        assert!(patience.lost());
    }

    #[tokio::test(start_paused = true)]
    async fn without_a_limit_it_stays() {
        let patience = Patience::new(Duration::ZERO);
        let stayed = tokio::time::timeout(Duration::from_secs(100_000), patience.gone()).await;
        assert!(stayed.is_err() && !patience.lost());
    }
}
