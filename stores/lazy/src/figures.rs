//! What has happened since the process began, for whoever draws curves of it.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use berth_types::{Error, ErrorKind};

use crate::layer::Served;

/// Upper bounds, in seconds, between which waits are told apart.
pub const WAIT_BOUNDS: [f64; 12] = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0, 30.0];

/// Counters of one process: each only goes up.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Figures {
    /// Layers that are mounted now.
    pub mounted: u64,
    /// Layers that were offered and are used lazily.
    pub taken: u64,
    /// Layers that were offered and had to be unpacked.
    pub left: u64,
    /// Bytes that came because somebody read them, with what is fetched around them.
    pub demanded: u64,
    /// Bytes that came before anybody read them.
    pub ahead: u64,
    /// Bytes of layers without tables that came whole.
    pub whole: u64,
    /// Reads that were answered with what was there.
    pub hits: u64,
    /// Reads that had to wait for the registry, or for a chunk to be verified.
    pub misses: u64,
    /// Reads that failed.
    pub failures: u64,
    /// Requests that the registry did not answer as it should.
    pub refused: u64,
    /// Requests that took too long.
    pub late: u64,
    /// Layers, tables and chunks that were not what their digests say.
    pub wrong: u64,
    /// How many reads that were answered later waited up to each of [`WAIT_BOUNDS`] and longer than the bound before,
    /// and last those that waited longer than all.
    pub waits: [u64; WAIT_BOUNDS.len() + 1],
    /// How long they waited together, in microseconds.
    pub waited: u64,
}

/// Why bytes were fetched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reason {
    /// Somebody reads.
    Demand,
    /// Somebody may read.
    Ahead,
    /// The layer has no table.
    Whole,
}

/// The counters as they count.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    taken: AtomicU64,
    left: AtomicU64,
    demanded: AtomicU64,
    ahead: AtomicU64,
    whole: AtomicU64,
    hits: AtomicU64,
    misses: AtomicU64,
    failures: AtomicU64,
    refused: AtomicU64,
    late: AtomicU64,
    wrong: AtomicU64,
    waits: [AtomicU64; WAIT_BOUNDS.len() + 1],
    waited: AtomicU64,
}

impl Counters {
    /// A layer was offered, and taken or left to be unpacked.
    pub(crate) fn offered(&self, taken: bool) {
        up(if taken { &self.taken } else { &self.left }, 1);
    }

    pub(crate) fn fetched(&self, reason: Reason, bytes: u64) {
        let counter = match reason {
            Reason::Demand => &self.demanded,
            Reason::Ahead => &self.ahead,
            Reason::Whole => &self.whole,
        };
        up(counter, bytes);
    }

    /// A read was answered at once.
    pub(crate) fn hit(&self) {
        up(&self.hits, 1);
    }

    /// A read was answered later.
    pub(crate) fn answered(&self, served: Served, waited: Duration) {
        let counter = match served {
            Served::Hit => return self.hit(),
            Served::Miss => &self.misses,
            Served::Failure => &self.failures,
        };
        up(counter, 1);
        let seconds = waited.as_secs_f64();
        let place = WAIT_BOUNDS.iter().position(|bound| seconds <= *bound);
        up(&self.waits[place.unwrap_or(WAIT_BOUNDS.len())], 1);
        up(&self.waited, waited.as_micros() as u64);
    }

    /// Something was not what its digest says.
    pub(crate) fn wrong(&self) {
        up(&self.wrong, 1);
    }

    /// Something did not come in time.
    pub(crate) fn late(&self) {
        up(&self.late, 1);
    }

    /// Something was not to be had, if that was the registry's fault.
    pub(crate) fn failed(&self, error: &Error) {
        match error.kind() {
            ErrorKind::DataLoss => self.wrong(),
            ErrorKind::DeadlineExceeded => self.late(),
            // The layer is as it is.
            ErrorKind::FailedPrecondition => {}
            _ => up(&self.refused, 1),
        }
    }

    /// The counters as they are now.
    pub(crate) fn read(&self, mounted: u64) -> Figures {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Figures {
            mounted,
            taken: read(&self.taken),
            left: read(&self.left),
            demanded: read(&self.demanded),
            ahead: read(&self.ahead),
            whole: read(&self.whole),
            hits: read(&self.hits),
            misses: read(&self.misses),
            failures: read(&self.failures),
            refused: read(&self.refused),
            late: read(&self.late),
            wrong: read(&self.wrong),
            waits: std::array::from_fn(|place| read(&self.waits[place])),
            waited: read(&self.waited),
        }
    }
}

fn up(counter: &AtomicU64, by: u64) {
    counter.fetch_add(by, Ordering::Relaxed);
}
