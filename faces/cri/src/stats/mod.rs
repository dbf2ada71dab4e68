//! What containers and pods use.
//!
//! The figures of a container are read from its cgroup where it lies, which costs the shim nothing; those of a shim
//! that is not berth's are its own to tell. A rate needs two readings: the one before is kept.

mod container;
mod metrics;
mod network;
mod pod;
mod reading;

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

pub(crate) use container::Measured;
pub(crate) use metrics::descriptors;
use reading::Reading;

/// The shortest time between two readings that a rate is made of, in nanoseconds: shorter ones say little.
const SHORTEST: i64 = 1_000_000_000;

/// The readings before, by what they are of.
#[derive(Debug, Default)]
pub(crate) struct Rates(Mutex<BTreeMap<String, Rate>>);

#[derive(Clone, Copy, Debug)]
struct Rate {
    at: i64,
    used: u64,
    /// Nanoseconds of processor time a second.
    rate: Option<u64>,
}

impl Rates {
    /// Takes in a reading and answers the processor time that was used a second, once that is known.
    fn of(&self, id: &str, at: i64, used: u64) -> Option<u64> {
        let mut rates = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(before) = rates.get_mut(id) else {
            rates.insert(id.to_owned(), Rate { at, used, rate: None });
            return None;
        };
        let passed = at.saturating_sub(before.at);
        if passed >= SHORTEST {
            let more = u128::from(used.saturating_sub(before.used));
            let rate = more * 1_000_000_000 / passed.unsigned_abs().max(1) as u128;
            *before = Rate { at, used, rate: Some(u64::try_from(rate).unwrap_or(u64::MAX)) };
        }
        before.rate
    }

    /// Forgets everything but what `is_there`.
    fn keep(&self, is_there: impl Fn(&str) -> bool) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).retain(|id, _| is_there(id));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_is_known_from_the_second_reading_on() {
        let rates = Rates::default();
        let second = 1_000_000_000;
        assert_eq!(rates.of("a", second, 100), None);
        assert_eq!(rates.of("a", second + 5, 200), None);
        assert_eq!(rates.of("a", 3 * second, 2_000_000_100), Some(1_000_000_000));
        assert_eq!(rates.of("a", 3 * second + 5, 2_000_000_100), Some(1_000_000_000));
        rates.keep(|id| id == "b");
        assert_eq!(rates.of("a", 9 * second, 0), None);
    }
}
