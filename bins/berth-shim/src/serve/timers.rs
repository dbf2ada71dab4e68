//! What is to happen later.

use std::time::{Duration, Instant};

use super::task::ProcessKey;

/// What a timer is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Timer {
    /// The output of an ended process has had its time to be read.
    Drained(ProcessKey),
    /// A logging program has had its time to end.
    Logger(u32),
    /// Events wait for the daemon.
    Publish,
    /// The shim has had its time to publish its last events.
    Leave,
}

/// The timers, few and in no order.
#[derive(Debug, Default)]
pub(crate) struct Timers(Vec<(Instant, Timer)>);

impl Timers {
    /// Sets a timer.
    pub(crate) fn set(&mut self, after: Duration, timer: Timer) {
        self.0.push((Instant::now() + after, timer));
    }

    /// Takes a timer back.
    pub(crate) fn cancel(&mut self, timer: &Timer) {
        self.0.retain(|(_, set)| set != timer);
    }

    /// How long the loop may sleep.
    pub(crate) fn next(&self) -> Option<Duration> {
        let first = self.0.iter().map(|(at, _)| *at).min()?;
        Some(first.saturating_duration_since(Instant::now()))
    }

    /// The timers whose time has come.
    pub(crate) fn due(&mut self) -> Vec<Timer> {
        let now = Instant::now();
        let mut due = Vec::new();
        self.0.retain(|(at, timer)| {
            let is_due = *at <= now;
            if is_due {
                due.push(timer.clone());
            }
            !is_due
        });
        if self.0.is_empty() {
            self.0 = Vec::new();
        }
        due
    }
}
