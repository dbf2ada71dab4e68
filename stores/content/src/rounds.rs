//! Waiting for the disk together.
//!
//! Whoever has something to be made durable joins the next round. A round begins when the one before it has ended and
//! covers everything that was written by whoever had joined until then, so that however many blobs are committed at the
//! same time, they cost one flush after the other and not one each. A commit that comes alone flushes its own file only.

use std::io;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

/// The rounds of one kind of flush.
#[derive(Debug, Default)]
pub(crate) struct Rounds {
    state: Mutex<State>,
    ended: Condvar,
}

#[derive(Debug, Default)]
struct State {
    /// Rounds that were begun.
    begun: u64,
    /// Rounds that have ended.
    ended: u64,
    /// How many have joined the round that has not begun yet.
    joined: usize,
    /// Whether a common flush has failed. The kernel tells of a failed write once: from then on each file is asked by
    /// itself, which is told of its own.
    broken: bool,
}

impl Rounds {
    /// Returns once what the caller has written is durable: by `all`, which flushes what everybody has written, or by
    /// `own`, which flushes what the caller has. Blocks.
    pub(crate) fn join(
        &self,
        own: impl FnOnce() -> io::Result<()>,
        all: impl FnOnce() -> io::Result<()>,
    ) -> io::Result<()> {
        let mut state = self.lock();
        let round = state.begun + 1;
        state.joined += 1;
        while state.begun < round && state.begun > state.ended {
            state = self.ended.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        if state.begun < round {
            return self.lead(state, own, all);
        }
        while state.ended < round {
            state = self.ended.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        let broken = state.broken;
        drop(state);
        if broken { own() } else { Ok(()) }
    }

    fn lead(
        &self,
        mut state: MutexGuard<'_, State>,
        own: impl FnOnce() -> io::Result<()>,
        all: impl FnOnce() -> io::Result<()>,
    ) -> io::Result<()> {
        let alone = std::mem::take(&mut state.joined) == 1;
        let broken = state.broken;
        state.begun += 1;
        drop(state);
        let common = if alone || broken { Ok(()) } else { all() };
        let done = if alone || broken || common.is_err() { own() } else { Ok(()) };
        let mut state = self.lock();
        state.ended += 1;
        state.broken |= common.is_err();
        drop(state);
        self.ended.notify_all();
        done
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Barrier;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    #[test]
    fn those_who_come_during_a_round_share_the_next() {
        let (rounds, own, all) = (Rounds::default(), AtomicUsize::new(0), AtomicUsize::new(0));
        let count = |counter: &AtomicUsize| {
            counter.fetch_add(1, Ordering::Relaxed);
            Ok(())
        };
        let begun = Barrier::new(2);
        let ends = Barrier::new(2);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let wait = || {
                    begun.wait();
                    ends.wait();
                    count(&own)
                };
                rounds.join(wait, || count(&all)).unwrap();
            });
            begun.wait();
            for _ in 0..5 {
                scope.spawn(|| rounds.join(|| count(&own), || count(&all)).unwrap());
            }
            while rounds.lock().joined < 5 {
                std::thread::yield_now();
            }
            ends.wait();
        });
        assert_eq!((own.into_inner(), all.into_inner()), (1, 1));
    }

    #[test]
    fn after_a_common_flush_that_failed_each_is_asked_by_itself() {
        let rounds = Rounds::default();
        let begun = Barrier::new(2);
        let ends = Barrier::new(2);
        let failing = || Err(io::Error::other("a bad disk"));
        let asked = AtomicUsize::new(0);
        let own = || {
            asked.fetch_add(1, Ordering::Relaxed);
            Ok(())
        };
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let wait = || {
                    begun.wait();
                    ends.wait();
                    Ok(())
                };
                rounds.join(wait, failing).unwrap();
            });
            begun.wait();
            for _ in 0..3 {
                scope.spawn(|| rounds.join(own, failing).unwrap());
            }
            while rounds.lock().joined < 3 {
                std::thread::yield_now();
            }
            ends.wait();
        });
        assert_eq!(asked.load(Ordering::Relaxed), 3);
        assert!(rounds.join(failing, || Ok(())).is_err());
    }
}
