//! What is asked for, and so how much is fetched with it and when anything else may be.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// How long nobody has waited for a chunk before others are fetched that nobody has asked for: a container that starts
/// computes between its reads.
const CALM: Duration = Duration::from_secs(3);

/// Bytes that are fetched at once when the last read was elsewhere.
const FIRST: u64 = 64 << 10;
/// How far behind what was fetched last a read may be to be one that follows: what lies between is another file's.
const NEAR: u64 = 64 << 10;

/// Who waits for chunks, and since when nobody does.
#[derive(Debug)]
pub(crate) struct Demand(Mutex<Waiting>);

#[derive(Debug)]
struct Waiting {
    readers: usize,
    /// When the last of them had what it wanted.
    last: Instant,
}

/// Somebody who waits. Dropped when the wait is over.
#[derive(Debug)]
pub(crate) struct Reader<'a>(&'a Demand);

impl Default for Demand {
    fn default() -> Self {
        Self(Mutex::new(Waiting { readers: 0, last: Instant::now() }))
    }
}

impl Demand {
    /// Somebody begins to wait.
    pub(crate) fn begin(&self) -> Reader<'_> {
        self.waiting().readers += 1;
        Reader(self)
    }

    /// Somebody will soon: a layer is mounted to be used.
    pub(crate) fn expect(&self) {
        self.waiting().last = Instant::now();
    }

    /// Resolves when nobody has waited for a while.
    pub(crate) async fn calm(&self) {
        loop {
            let rest = {
                let waiting = self.waiting();
                if waiting.readers > 0 { CALM } else { CALM.saturating_sub(waiting.last.elapsed()) }
            };
            if rest.is_zero() {
                return;
            }
            tokio::time::sleep(rest).await;
        }
    }

    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Reader<'_> {
    fn drop(&mut self) {
        let mut waiting = self.0.waiting();
        waiting.readers -= 1;
        waiting.last = Instant::now();
    }
}

/// How far reads of one layer have followed one another.
#[derive(Debug, Default)]
pub(crate) struct Course(Mutex<Run>);

#[derive(Debug, Default)]
struct Run {
    /// Where in the blob the last fetch ended.
    end: u64,
    /// How much it was to bring.
    span: u64,
}

impl Course {
    /// How many bytes are to be fetched for a read at a place of the blob: little where the last one was elsewhere, twice
    /// as much each time that they follow one another, up to `most`.
    pub(crate) fn span(&self, at: u64, most: u64) -> u64 {
        let mut run = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let follows = (run.end.saturating_sub(run.span)..=run.end.saturating_add(NEAR)).contains(&at);
        run.span = if follows && run.span > 0 { run.span.saturating_mul(2) } else { FIRST }.min(most);
        run.end = at.saturating_add(run.span);
        run.span
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_that_follow_one_another_bring_more_and_more() {
        let course = Course::default();
        let most = 300 << 10;
        assert_eq!(course.span(5 << 20, most), FIRST);
        assert_eq!(course.span((5 << 20) + FIRST, most), 2 * FIRST);
        // Some of what was fetched was there already, or is somebody else's.
        assert_eq!(course.span((5 << 20) + 3 * FIRST + NEAR, most), 4 * FIRST);
        assert_eq!(course.span((5 << 20) + 8 * FIRST, most), most);
        assert_eq!(course.span(1 << 20, most), FIRST, "elsewhere");
        assert_eq!(course.span(0, 1000), 1000, "never more than is wanted");
    }

    #[tokio::test]
    async fn it_is_calm_when_nobody_has_waited_for_a_while() {
        let (demand, soon) = (Demand::default(), Duration::from_millis(20));
        let reader = demand.begin();
        assert!(tokio::time::timeout(soon, demand.calm()).await.is_err(), "somebody waits");
        drop(reader);
        demand.waiting().last = Instant::now().checked_sub(CALM).expect("the machine runs longer");
        assert!(tokio::time::timeout(soon, demand.calm()).await.is_ok(), "nobody waits");
        demand.expect();
        assert!(tokio::time::timeout(soon, demand.calm()).await.is_err(), "somebody will wait");
    }
}
