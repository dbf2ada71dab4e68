//! Durations as Go writes them: `100ms`, `1m30s`, `0s`.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

const UNITS: [(&str, u128); 8] = [
    // The longer name first where one begins with another.
    ("ns", 1),
    ("us", 1_000),
    ("µs", 1_000),
    ("μs", 1_000),
    ("ms", 1_000_000),
    ("s", 1_000_000_000),
    ("m", 60_000_000_000),
    ("h", 3_600_000_000_000),
];

/// A duration that reads and prints in Go's form.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub(crate) struct GoDuration(Duration);

impl GoDuration {
    pub(crate) const fn from_secs(seconds: u64) -> Self {
        Self(Duration::from_secs(seconds))
    }

    pub(crate) const fn from_millis(milliseconds: u64) -> Self {
        Self(Duration::from_millis(milliseconds))
    }

    pub(crate) const fn as_std(self) -> Duration {
        self.0
    }
}

/// What is no duration.
#[derive(Debug, thiserror::Error)]
#[error("{0:?} is no duration: write for example \"10s\", \"100ms\" or \"1m30s\"")]
pub(crate) struct NoDuration(String);

impl FromStr for GoDuration {
    type Err = NoDuration;

    fn from_str(text: &str) -> Result<Self, NoDuration> {
        nanoseconds(text)
            .and_then(|total| u64::try_from(total).ok())
            .map(|total| Self(Duration::from_nanos(total)))
            .ok_or_else(|| NoDuration(text.to_owned()))
    }
}

impl TryFrom<String> for GoDuration {
    type Error = NoDuration;

    fn try_from(text: String) -> Result<Self, NoDuration> {
        text.parse()
    }
}

/// One or more numbers, each with its unit; a lone `0` needs none.
fn nanoseconds(text: &str) -> Option<u128> {
    if text == "0" {
        return Some(0);
    }
    let mut rest = text;
    let mut total = 0_u128;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let (number, after) = rest.split_at(digits);
        let unit_length = after.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(after.len());
        let (name, next) = after.split_at(unit_length);
        let unit = UNITS.iter().find(|(known, _)| *known == name)?.1;
        total = total.checked_add(scaled(number, unit)?)?;
        rest = next;
    }
    (!text.is_empty()).then_some(total)
}

/// `number`, which may have a fraction, times `unit`.
fn scaled(number: &str, unit: u128) -> Option<u128> {
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if whole.is_empty() && fraction.is_empty() {
        return None;
    }
    let whole: u128 = if whole.is_empty() { 0 } else { whole.parse().ok()? };
    let mut total = whole.checked_mul(unit)?;
    let mut place = unit;
    for digit in fraction.bytes() {
        place /= 10;
        total = total.checked_add(place * u128::from(char::from(digit).to_digit(10)?))?;
    }
    Some(total)
}

impl From<GoDuration> for String {
    fn from(duration: GoDuration) -> Self {
        duration.to_string()
    }
}

impl fmt::Display for GoDuration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let nanoseconds = self.0.as_nanos();
        if nanoseconds == 0 {
            return f.write_str("0s");
        }
        if nanoseconds < 1_000 {
            return write!(f, "{nanoseconds}ns");
        }
        if nanoseconds < 1_000_000 {
            return write!(f, "{}µs", decimal(nanoseconds, 1_000));
        }
        if nanoseconds < 1_000_000_000 {
            return write!(f, "{}ms", decimal(nanoseconds, 1_000_000));
        }
        let minutes = self.0.as_secs() / 60;
        let seconds = decimal(nanoseconds - u128::from(minutes) * 60_000_000_000, 1_000_000_000);
        match (minutes / 60, minutes % 60) {
            (0, 0) => write!(f, "{seconds}s"),
            (0, minutes) => write!(f, "{minutes}m{seconds}s"),
            (hours, minutes) => write!(f, "{hours}h{minutes}m{seconds}s"),
        }
    }
}

/// `value / unit` without trailing zeros.
fn decimal(value: u128, unit: u128) -> String {
    let width = unit.ilog10() as usize;
    let text = format!("{}.{:0width$}", value / unit, value % unit);
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn reads_and_prints_what_go_does() {
        for (text, nanoseconds, printed) in [
            ("0", 0, "0s"),
            ("0s", 0, "0s"),
            ("100ms", 100_000_000, "100ms"),
            ("1.5s", 1_500_000_000, "1.5s"),
            ("90s", 90_000_000_000, "1m30s"),
            ("1h0m0.25s", 3_600_250_000_000, "1h0m0.25s"),
            ("15us", 15_000, "15µs"),
            ("7ns", 7, "7ns"),
        ] {
            let duration: GoDuration = text.parse().unwrap();
            assert_eq!(duration.as_std().as_nanos(), nanoseconds, "{text}");
            assert_eq!(duration.to_string(), printed);
        }
    }

    #[test]
    fn what_is_no_duration_is_refused() {
        for bad in ["", "10", "s", ".s", "10 s", "-1s", "1x", "1..5s", "99999999999999h", "ä"] {
            assert!(bad.parse::<GoDuration>().is_err(), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn what_is_printed_reads_as_the_same(nanoseconds: u64) {
            let duration = GoDuration(Duration::from_nanos(nanoseconds));
            prop_assert_eq!(duration.to_string().parse::<GoDuration>().unwrap(), duration);
        }

        #[test]
        fn no_text_panics(text: String) {
            let _ = text.parse::<GoDuration>();
        }
    }
}
