//! How often and how fast a request is repeated.

use std::time::Duration;

use reqwest::StatusCode;
use reqwest::header::{HeaderMap, RETRY_AFTER};

/// A registry that asks for more patience than this has failed.
const LONGEST: Duration = Duration::from_mins(1);

/// Whether a status may pass by itself.
pub(crate) fn passes(status: StatusCode) -> bool {
    matches!(status.as_u16(), 408 | 429 | 500 | 502 | 503 | 504)
}

/// The pause before repetition `number`, counted from 0: what the registry asks for, else twice the last one.
/// Nothing if it asks for too much.
pub(crate) fn pause(first: Duration, number: u32, headers: Option<&HeaderMap>) -> Option<Duration> {
    match headers.and_then(asked) {
        Some(asked) => (asked <= LONGEST).then_some(asked),
        None => Some(first.saturating_mul(1 << number.min(8)).min(LONGEST)),
    }
}

/// What a registry asks for.
pub(crate) fn asked(headers: &HeaderMap) -> Option<Duration> {
    headers.get(RETRY_AFTER)?.to_str().ok()?.trim().parse().ok().map(Duration::from_secs)
}

/// The longest pause that is granted.
pub(crate) fn is_granted(pause: Duration) -> bool {
    pause <= LONGEST
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_and_the_registry_is_listened_to_within_reason() {
        let first = Duration::from_millis(250);
        assert_eq!(pause(first, 0, None), Some(first));
        assert_eq!(pause(first, 2, None), Some(4 * first));
        let asked = |value: &str| HeaderMap::from_iter([(RETRY_AFTER, value.parse().unwrap())]);
        assert_eq!(pause(first, 0, Some(&asked("2"))), Some(Duration::from_secs(2)));
        assert_eq!(pause(first, 0, Some(&asked("3600"))), None);
        assert_eq!(pause(first, 0, Some(&asked("tomorrow"))), Some(first));
    }
}
