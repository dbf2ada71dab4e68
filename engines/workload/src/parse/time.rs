//! Durations and points in time.

use std::time::{Duration, SystemTime};

use berth_types::{Error, Result};

/// A duration in Go's form: `300ms`, `1.5h`, `2h45m`; a bare number counts seconds.
pub fn duration(text: &str) -> Result<Duration> {
    let wrong = || Error::invalid_argument(format!("invalid duration '{text}' (like 10s, 1m30s or 2h)"));
    if let Ok(seconds) = text.parse::<u64>() {
        return Ok(Duration::from_secs(seconds));
    }
    let mut rest = text;
    let mut total = 0.0_f64;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.').ok_or_else(wrong)?;
        let number: f64 = rest[..digits].parse().map_err(|_| wrong())?;
        rest = &rest[digits..];
        let unit = rest.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(rest.len());
        total += number
            * match &rest[..unit] {
                "ns" => 1e-9,
                "us" | "µs" | "μs" => 1e-6,
                "ms" => 1e-3,
                "s" => 1.0,
                "m" => 60.0,
                "h" => 3600.0,
                _ => return Err(wrong()),
            };
        rest = &rest[unit..];
    }
    if text.is_empty() {
        return Err(wrong());
    }
    Duration::try_from_secs_f64(total).map_err(|_| wrong())
}

/// A point in time: seconds since 1970 (with a fraction), an RFC 3339 time or its beginning, or a
/// duration before `now`.
pub fn instant(text: &str, now: SystemTime) -> Result<SystemTime> {
    let wrong = || {
        Error::invalid_argument(format!(
            "invalid time '{text}' (like 2026-01-31T12:00:00, 1767225600 or 10m for ten minutes ago)"
        ))
    };
    if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.') {
        let seconds: f64 = text.parse().map_err(|_| wrong())?;
        let since = Duration::try_from_secs_f64(seconds).map_err(|_| wrong())?;
        return SystemTime::UNIX_EPOCH.checked_add(since).ok_or_else(wrong);
    }
    if let Ok(ago) = duration(text) {
        return now.checked_sub(ago).ok_or_else(wrong);
    }
    if let Ok(time) = text.parse::<jiff::Timestamp>() {
        return SystemTime::try_from(time).map_err(|_| wrong());
    }
    let padded = match text.len() {
        10 => format!("{text}T00:00:00"),
        13 => format!("{text}:00:00"),
        16 => format!("{text}:00"),
        _ => text.to_owned(),
    };
    let civil: jiff::civil::DateTime = padded.trim_end_matches('Z').parse().map_err(|_| wrong())?;
    let zone = if text.ends_with('Z') { jiff::tz::TimeZone::UTC } else { jiff::tz::TimeZone::system() };
    let zoned = civil.to_zoned_datetime(zone).map_err(|_| wrong())?;
    SystemTime::try_from(zoned.timestamp()).map_err(|_| wrong())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_gos() {
        assert_eq!(duration("1m30s").unwrap(), Duration::from_secs(90));
        assert_eq!(duration("300ms").unwrap(), Duration::from_millis(300));
        assert_eq!(duration("1.5h").unwrap(), Duration::from_secs(5400));
        assert_eq!(duration("10").unwrap(), Duration::from_secs(10));
        for bad in ["", "1x", "s", "1m 30s", "-5s", "1mm"] {
            assert!(duration(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn instants_take_every_form() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000);
        assert_eq!(instant("10m", now).unwrap(), now - Duration::from_secs(600));
        let half = SystemTime::UNIX_EPOCH + Duration::from_millis(1500);
        assert_eq!(instant("1.5", now).unwrap(), half);
        let day = SystemTime::UNIX_EPOCH + Duration::from_secs(86_400);
        assert_eq!(instant("1970-01-02T00:00:00Z", now).unwrap(), day);
        assert!(instant("1970-01-02", now).is_ok());
        assert!(instant("1970-01-02T10:00", now).is_ok());
        assert!(instant("yesterday", now).is_err());
    }
}
