//! The labels that say what refers to what, as containerd reads them.
//!
//! | label | on | meaning |
//! |---|---|---|
//! | `containerd.io/gc.root` | blob, snapshot | is a root |
//! | `containerd.io/gc.ref.content[.NAME]`, `gc.ref.image[…]`, `gc.ref.mount[…]` | any | refers to a blob, an image, an activated mount |
//! | `containerd.io/gc.ref.snapshot.SNAPSHOTTER[/NAME]` | any | refers to a snapshot |
//! | `containerd.io/gc.bref.{container,content,image}[.NAME]`, `gc.bref.snapshot.SNAPSHOTTER[/NAME]` | any | is kept as long as that is |
//! | `containerd.io/gc.cond.snapshot.SNAPSHOTTER[/NAME]` | image, blob | refers to a snapshot if a condition on it holds |
//! | `containerd.io/gc.cond.value-usedat` | snapshot | what the condition asks for |
//! | `containerd.io/gc.expire` | lease, image | until when it holds |
//! | `containerd.io/gc.flat` | lease | holds the things themselves, not what they refer to |

use std::time::{Duration, SystemTime};

use berth_types::Labels;

use crate::key::{Kind, key};

pub(crate) const EXPIRE: &str = "containerd.io/gc.expire";
pub(super) const FLAT: &str = "containerd.io/gc.flat";
const ROOT: &str = "containerd.io/gc.root";
const CONDITION: &str = "containerd.io/gc.cond.snapshot";
const USED_AT: &str = "containerd.io/gc.cond.value-usedat";

/// Labels that name one kind of object each, with a name of their own after a `.` or `/`.
const NAMED: [(&str, &str, Kind); 6] = [
    ("containerd.io/gc.ref.content", "ref", Kind::Blob),
    ("containerd.io/gc.ref.image", "ref", Kind::Image),
    ("containerd.io/gc.ref.mount", "ref", Kind::Mount),
    ("containerd.io/gc.bref.container", "bref", Kind::Container),
    ("containerd.io/gc.bref.content", "bref", Kind::Blob),
    ("containerd.io/gc.bref.image", "bref", Kind::Image),
];

const SNAPSHOT_REFERENCE: &str = "containerd.io/gc.ref.snapshot.";
const SNAPSHOT_BACK_REFERENCE: &str = "containerd.io/gc.bref.snapshot.";

/// The records that labels refer to.
pub(super) fn references(namespace: &str, labels: &Labels) -> Vec<Vec<u8>> {
    named(namespace, labels, "ref", SNAPSHOT_REFERENCE)
}

/// The records that keep the one with these labels.
pub(super) fn back_references(namespace: &str, labels: &Labels) -> Vec<Vec<u8>> {
    named(namespace, labels, "bref", SNAPSHOT_BACK_REFERENCE)
}

fn named(namespace: &str, labels: &Labels, direction: &str, snapshot: &str) -> Vec<Vec<u8>> {
    let mut found = Vec::new();
    for (label, value) in labels.range("containerd.io/gc.".to_owned()..) {
        if !label.starts_with("containerd.io/gc.") {
            break;
        }
        if let Some(snapshotter) = label.strip_prefix(snapshot) {
            found.push(key(Kind::Snapshot, &[namespace, before_slash(snapshotter), value]));
            continue;
        }
        for (prefix, of, kind) in NAMED {
            let rest = if of == direction { label.strip_prefix(prefix) } else { None };
            if rest.is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '/'])) {
                found.push(key(kind, &[namespace, value]));
            }
        }
    }
    found
}

fn before_slash(text: &str) -> &str {
    text.split_once('/').map_or(text, |(before, _)| before)
}

pub(super) fn is_root(labels: &Labels) -> bool {
    // Whatever begins with it counts, as with containerd.
    labels.range(ROOT.to_owned()..).next().is_some_and(|(label, _)| label.starts_with(ROOT))
}

/// Whether `gc.expire` says that the time is over. A value that is no time says nothing.
pub(super) fn is_expired(labels: &Labels, now: SystemTime) -> bool {
    labels.get(EXPIRE).and_then(|text| instant(text)).is_some_and(|expires| expires < now)
}

fn instant(text: &str) -> Option<SystemTime> {
    SystemTime::try_from(text.parse::<jiff::Timestamp>().ok()?).ok()
}

/// A snapshot that is referred to if it was used at the right time.
#[derive(Debug)]
pub(super) struct Condition {
    pub(super) snapshot: Vec<u8>,
    /// One of them has to hold.
    tests: Vec<UsedAt>,
}

#[derive(Debug)]
enum UsedAt {
    Within(Duration),
    Before(Duration),
}

impl Condition {
    /// Whether a snapshot that was used then is meant.
    pub(super) fn holds(&self, used: SystemTime, now: SystemTime) -> bool {
        // A time to come is no time ago at all.
        let ago = now.duration_since(used).unwrap_or_default();
        self.tests.iter().any(|test| match test {
            UsedAt::Within(limit) => ago < *limit,
            UsedAt::Before(limit) => ago > *limit,
        })
    }
}

/// The conditional references among labels: `usedat<24h,usedat>48h|KEY`.
pub(super) fn conditions(namespace: &str, labels: &Labels) -> Vec<Condition> {
    let mut found = Vec::new();
    for (label, value) in labels.range(CONDITION.to_owned()..) {
        let Some(rest) = label.strip_prefix(CONDITION) else { break };
        let snapshotter = before_slash(rest.trim_start_matches(['.', '/']));
        let Some((tests, name)) = value.split_once('|') else { continue };
        let tests: Vec<UsedAt> = tests.split(',').filter_map(used_at).collect();
        if !tests.is_empty() {
            found.push(Condition { snapshot: key(Kind::Snapshot, &[namespace, snapshotter, name]), tests });
        }
    }
    found
}

fn used_at(test: &str) -> Option<UsedAt> {
    let rest = test.strip_prefix("usedat")?;
    if let Some(limit) = rest.strip_prefix('<') {
        duration(limit).map(UsedAt::Within)
    } else {
        duration(rest.strip_prefix('>')?).map(UsedAt::Before)
    }
}

/// When a snapshot was used, if it says so.
pub(super) fn used(labels: &Labels) -> Option<SystemTime> {
    labels.get(USED_AT).and_then(|text| instant(text))
}

/// A duration as Go writes it: `1h30m`, `1.5s`, `300ms`.
fn duration(text: &str) -> Option<Duration> {
    let mut rest = text;
    let mut seconds = 0.0_f64;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let number: f64 = rest[..digits].parse().ok()?;
        let unit = &rest[digits..];
        let length = unit.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(unit.len());
        let factor = match &unit[..length] {
            "ns" => 1e-9,
            "us" | "µs" => 1e-6,
            "ms" => 1e-3,
            "s" => 1.0,
            "m" => 60.0,
            "h" => 3600.0,
            _ => return None,
        };
        seconds += number * factor;
        rest = &unit[length..];
    }
    if text.is_empty() { None } else { Duration::try_from_secs_f64(seconds).ok() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(pairs: &[(&str, &str)]) -> Labels {
        pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn references_are_read_with_and_without_names() {
        let labels = labels(&[
            ("containerd.io/gc.ref.content", "a"),
            ("containerd.io/gc.ref.content.l.0", "b"),
            ("containerd.io/gc.ref.content/x", "c"),
            ("containerd.io/gc.ref.contents", "no"),
            ("containerd.io/gc.ref.image.x", "i"),
            ("containerd.io/gc.ref.mount.x", "m"),
            ("containerd.io/gc.ref.snapshot.overlayfs", "s"),
            ("containerd.io/gc.ref.snapshot.overlayfs/more", "t"),
            ("containerd.io/gc.bref.content.x", "back"),
            ("other", "no"),
        ]);
        let found = references("ns", &labels);
        for wanted in [
            key(Kind::Blob, &["ns", "a"]),
            key(Kind::Blob, &["ns", "b"]),
            key(Kind::Blob, &["ns", "c"]),
            key(Kind::Image, &["ns", "i"]),
            key(Kind::Mount, &["ns", "m"]),
            key(Kind::Snapshot, &["ns", "overlayfs", "s"]),
            key(Kind::Snapshot, &["ns", "overlayfs", "t"]),
        ] {
            assert!(found.contains(&wanted), "{}", wanted.escape_ascii());
        }
        assert_eq!(found.len(), 7);
        assert_eq!(back_references("ns", &labels), [key(Kind::Blob, &["ns", "back"])]);
    }

    #[test]
    fn expiry_is_a_time_in_any_zone_and_anything_else_is_none() {
        let now = SystemTime::now();
        assert!(is_expired(&labels(&[(EXPIRE, "2020-01-01T00:00:00Z")]), now));
        assert!(is_expired(&labels(&[(EXPIRE, "2020-01-01T00:00:00+02:00")]), now));
        assert!(!is_expired(&labels(&[(EXPIRE, "2999-01-01T00:00:00Z")]), now));
        assert!(!is_expired(&labels(&[(EXPIRE, "yesterday")]), now));
        assert!(!is_expired(&Labels::new(), now));
    }

    #[test]
    fn conditions_are_any_of_their_tests() {
        let labels =
            labels(&[("containerd.io/gc.cond.snapshot.overlayfs/x", "usedat<1h,size=3,usedat>48h|the key")]);
        let [condition] = &conditions("ns", &labels)[..] else { panic!("one condition") };
        assert_eq!(condition.snapshot, key(Kind::Snapshot, &["ns", "overlayfs", "the key"]));
        let now = SystemTime::now();
        for (hours, holds) in [(0, true), (2, false), (47, false), (49, true)] {
            assert_eq!(condition.holds(now - Duration::from_hours(hours), now), holds, "{hours}");
        }
    }

    #[test]
    fn durations_are_those_of_go() {
        for (text, seconds) in [("1h30m", 5400.0), ("1.5s", 1.5), ("300ms", 0.3), ("24h", 86400.0)] {
            assert_eq!(duration(text), Some(Duration::from_secs_f64(seconds)), "{text}");
        }
        for bad in ["", "5", "h", "1d", "-1h", "1h "] {
            assert_eq!(duration(bad), None, "{bad}");
        }
    }
}
