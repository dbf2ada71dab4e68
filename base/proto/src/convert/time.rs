//! Times. A record has no "never": what the wire leaves out, or gives as Go's zero time, is the epoch.

use std::time::SystemTime;

use prost_types::Timestamp;

/// Go's `time.Time{}`, which its programs send for "never": the first second of the year 1.
const GO_ZERO: i64 = -62_135_596_800;

/// A time for the wire; the epoch, which records use for "never", is left out.
pub fn timestamp(time: SystemTime) -> Option<Timestamp> {
    (time != SystemTime::UNIX_EPOCH).then(|| Timestamp::from(time))
}

/// A time from the wire. What the machine's clock cannot express is the epoch.
pub fn time(timestamp: Option<Timestamp>) -> SystemTime {
    timestamp
        .filter(|stamp| stamp.seconds != GO_ZERO)
        .and_then(|stamp| SystemTime::try_from(stamp).ok())
        .unwrap_or(SystemTime::UNIX_EPOCH)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn times_keep_their_nanoseconds() {
        let at = SystemTime::UNIX_EPOCH + Duration::new(1_700_000_000, 123_456_789);
        assert_eq!(time(timestamp(at)), at);
    }

    #[test]
    fn never_is_the_epoch_however_it_is_said() {
        assert_eq!(timestamp(SystemTime::UNIX_EPOCH), None);
        for stamp in [
            None,
            Some(Timestamp { seconds: GO_ZERO, nanos: 0 }),
            Some(Timestamp { seconds: i64::MIN, nanos: -1 }),
        ] {
            assert_eq!(time(stamp), SystemTime::UNIX_EPOCH);
        }
    }
}
