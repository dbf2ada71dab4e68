//! One line.

use std::collections::BTreeMap;
use std::time::SystemTime;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// Where a line came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Stream {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

/// One line, or a part of a long one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// When it was written.
    pub time: Timestamp,
    /// Where it came from.
    pub stream: Stream,
    /// The text, with its newline if it is the end of a line.
    pub text: String,
    /// Labels and variables that were asked to be kept with it.
    pub attributes: BTreeMap<String, String>,
}

#[derive(Serialize, Deserialize)]
struct Record<'a> {
    #[serde(borrow)]
    log: std::borrow::Cow<'a, str>,
    stream: Stream,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    attrs: BTreeMap<String, String>,
    time: String,
}

impl Entry {
    /// Reads a line of a log file; none when it is no entry.
    pub(super) fn parse(line: &[u8]) -> Option<Self> {
        let record: Record<'_> = serde_json::from_slice(line).ok()?;
        let time = record.time.parse().ok()?;
        Some(Self { time, stream: record.stream, text: record.log.into_owned(), attributes: record.attrs })
    }

    /// Writes a line of a log file. Bytes that are no text become the replacement character.
    pub(super) fn encode(text: &[u8], stream: Stream, now: SystemTime, into: &mut Vec<u8>) {
        let record = Record {
            log: String::from_utf8_lossy(text),
            stream,
            attrs: BTreeMap::new(),
            time: format!("{:.9}", Timestamp::try_from(now).unwrap_or_default()),
        };
        serde_json::to_writer(&mut *into, &record).expect("a vector takes every write");
        into.push(b'\n');
    }
}
