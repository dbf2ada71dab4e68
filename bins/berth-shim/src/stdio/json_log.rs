//! Docker's JSON-file log: one object a line, rotated by size.
//!
//! ```json
//! {"log":"hello\n","stream":"stdout","time":"2026-01-02T03:04:05.678Z"}
//! ```
//! A line longer than 16 KiB, and one that the stream's end cuts off, is written in pieces without the closing
//! `\n`, by which readers know that more follows. `FILE.1` is the youngest of the old files.

use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use berth_types::{Error, Result};

use super::pump::Channel;
use super::uri::Uri;
use crate::clock;

/// The longest piece of a line.
const PIECE: usize = 16 << 10;

/// A log that is being written. What a full disk refuses is counted and lost.
#[derive(Debug)]
pub(crate) struct JsonLog {
    path: PathBuf,
    file: File,
    size: u64,
    /// Bytes after which the file is rotated; none for never.
    limit: Option<u64>,
    files: u32,
    partial: [Vec<u8>; 2],
    /// Lines of one turn, written with one call.
    batch: Vec<u8>,
    lost: u64,
}

impl JsonLog {
    /// Opens the log that a `berth-json` URI describes, and goes on where it ended.
    pub(super) fn open(uri: &Uri) -> Result<Self> {
        let limit = match uri.value("max-size") {
            None | Some("" | "-1") => None,
            Some(text) => Some(size(text).ok_or_else(|| {
                Error::invalid_argument(format!("max-size {text:?} is no size: give a number with k, m or g"))
            })?),
        };
        let files =
            match uri.value("max-file") {
                None | Some("") => 1,
                Some(text) => text.parse().ok().filter(|count| *count > 0).ok_or_else(|| {
                    Error::invalid_argument(format!("max-file {text:?} is no number of files"))
                })?,
            };
        for key in uri.query.iter().map(|(key, _)| key.as_str()) {
            if !matches!(key, "max-size" | "max-file") {
                return Err(Error::invalid_argument(format!(
                    "berth-json has no option {key:?}: max-size and max-file are known"
                )));
            }
        }
        let failed = |e| Error::io(format!("cannot open the log {}", uri.path.display()), e);
        if let Some(folder) = uri.path.parent() {
            std::fs::create_dir_all(folder).map_err(failed)?;
        }
        let file = open(&uri.path, Fresh::Append).map_err(failed)?;
        let size = file.metadata().map_err(failed)?.len();
        Ok(Self {
            path: uri.path.clone(),
            file,
            size,
            limit,
            files,
            partial: Default::default(),
            batch: Vec::new(),
            lost: 0,
        })
    }

    /// Takes in output; whole lines, and pieces of too long ones, are written.
    pub(crate) fn write(&mut self, channel: Channel, mut bytes: &[u8]) {
        let now = SystemTime::now();
        let slot = slot(channel);
        while !bytes.is_empty() {
            let held = self.partial[slot].len();
            let window = &bytes[..bytes.len().min(PIECE - held)];
            let (taken, whole) = match window.iter().position(|byte| *byte == b'\n') {
                Some(at) => (at + 1, true),
                None => (window.len(), held + window.len() == PIECE),
            };
            let (head, tail) = bytes.split_at(taken);
            bytes = tail;
            if !whole {
                self.partial[slot].extend_from_slice(head);
            } else if held == 0 {
                self.record(channel, head, now);
            } else {
                let mut line = std::mem::take(&mut self.partial[slot]);
                line.extend_from_slice(head);
                self.record(channel, &line, now);
            }
        }
        self.flush();
    }

    /// Writes what a stream left without an end of line.
    pub(crate) fn end(&mut self, channel: Channel) {
        let rest = std::mem::take(&mut self.partial[slot(channel)]);
        if !rest.is_empty() {
            self.record(channel, &rest, SystemTime::now());
            self.flush();
        }
    }

    /// Bytes that could not be written.
    pub(crate) fn lost(&self) -> u64 {
        self.lost
    }

    fn record(&mut self, channel: Channel, text: &[u8], time: SystemTime) {
        if self.limit.is_some_and(|limit| self.size + self.batch.len() as u64 >= limit) {
            self.flush();
            // With the old file still in place the next line tries again.
            let _ = self.rotate();
        }
        line(channel, text, time, &mut self.batch);
    }

    fn flush(&mut self) {
        let batch = std::mem::take(&mut self.batch);
        if self.file.write_all(&batch).is_ok() {
            self.size += batch.len() as u64;
        } else {
            self.lost += batch.len() as u64;
            // Half a line would spoil the next one.
            let _ = self.file.set_len(self.size);
        }
    }

    fn rotate(&mut self) -> io::Result<()> {
        for number in (1..self.files).rev() {
            let from = if number == 1 { self.path.clone() } else { numbered(&self.path, number - 1) };
            match std::fs::rename(from, numbered(&self.path, number)) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                other => other?,
            }
        }
        self.file = open(&self.path, Fresh::Truncate)?;
        self.size = 0;
        Ok(())
    }
}

/// What to do with what is there.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Fresh {
    Append,
    Truncate,
}

fn open(path: &Path, fresh: Fresh) -> io::Result<File> {
    let file = OpenOptions::new().create(true).append(true).mode(0o640).open(path)?;
    if fresh == Fresh::Truncate {
        file.set_len(0)?;
    }
    Ok(file)
}

fn numbered(path: &Path, number: u32) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".{number}"));
    name.into()
}

fn slot(channel: Channel) -> usize {
    usize::from(channel == Channel::Stderr)
}

fn line(channel: Channel, text: &[u8], time: SystemTime, into: &mut Vec<u8>) {
    into.extend_from_slice(b"{\"log\":\"");
    escape(text, into);
    let stream = if channel == Channel::Stderr { "stderr" } else { "stdout" };
    into.extend_from_slice(b"\",\"stream\":\"");
    into.extend_from_slice(stream.as_bytes());
    into.extend_from_slice(b"\",\"time\":\"");
    into.extend_from_slice(clock::rfc3339(time).as_bytes());
    into.extend_from_slice(b"\"}\n");
}

/// JSON's escapes, and those that Docker adds for HTML and JavaScript; what is no UTF-8 becomes U+FFFD.
fn escape(text: &[u8], into: &mut Vec<u8>) {
    for chunk in text.utf8_chunks() {
        for character in chunk.valid().chars() {
            match character {
                '"' => into.extend_from_slice(b"\\\""),
                '\\' => into.extend_from_slice(b"\\\\"),
                '\n' => into.extend_from_slice(b"\\n"),
                '\r' => into.extend_from_slice(b"\\r"),
                '\t' => into.extend_from_slice(b"\\t"),
                '<' | '>' | '&' | '\u{2028}' | '\u{2029}' | '\0'..='\u{1f}' | '\u{7f}' => {
                    into.extend_from_slice(format!("\\u{:04x}", character as u32).as_bytes());
                }
                plain => into.extend_from_slice(plain.encode_utf8(&mut [0; 4]).as_bytes()),
            }
        }
        for _ in chunk.invalid() {
            into.extend_from_slice(b"\\ufffd");
        }
    }
}

/// Docker's sizes: powers of 1024, with or without a unit.
fn size(text: &str) -> Option<u64> {
    let lower = text.trim().to_ascii_lowercase();
    let digits = lower.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let factor = match &lower[digits.len()..] {
        "" | "b" => 1,
        "k" | "kb" | "kib" => 1 << 10,
        "m" | "mb" | "mib" => 1 << 20,
        "g" | "gb" | "gib" => 1 << 30,
        _ => return None,
    };
    digits.trim().parse::<u64>().ok()?.checked_mul(factor).filter(|size| *size > 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn log(folder: &Path, query: &str) -> JsonLog {
        let text = format!("berth-json://{}/a-json.log?{query}", folder.display());
        JsonLog::open(&Uri::parse(&text).unwrap().unwrap()).unwrap()
    }

    fn lines(folder: &Path, name: &str) -> Vec<String> {
        let text = std::fs::read_to_string(folder.join(name)).unwrap();
        text.lines()
            .map(|line| {
                serde_json::from_str::<serde_json::Value>(line).unwrap()["log"].as_str().unwrap().to_owned()
            })
            .collect()
    }

    #[test]
    fn lines_are_cut_where_docker_cuts_them() {
        let scratch = tempfile::tempdir().unwrap();
        let mut log = log(scratch.path(), "");
        log.write(Channel::Stdout, b"one\ntw");
        log.write(Channel::Stderr, b"other\n");
        log.write(Channel::Stdout, b"o\n\nthree");
        log.end(Channel::Stdout);
        assert_eq!(lines(scratch.path(), "a-json.log"), ["one\n", "other\n", "two\n", "\n", "three"]);
    }

    #[test]
    fn a_long_line_comes_in_pieces() {
        let scratch = tempfile::tempdir().unwrap();
        let mut log = log(scratch.path(), "");
        let mut text = vec![b'x'; 2 * PIECE + 5];
        text.push(b'\n');
        text.chunks(1000).for_each(|part| log.write(Channel::Stdout, part));
        let lengths: Vec<usize> = lines(scratch.path(), "a-json.log").iter().map(String::len).collect();
        assert_eq!(lengths, [PIECE, PIECE, 6]);
    }

    #[test]
    fn a_full_file_makes_room_for_the_next() {
        let scratch = tempfile::tempdir().unwrap();
        let mut log = log(scratch.path(), "max-size=1&max-file=3");
        for word in ["a\n", "b\n", "c\n", "d\n"] {
            log.write(Channel::Stdout, word.as_bytes());
        }
        for (name, word) in [("a-json.log", "d\n"), ("a-json.log.1", "c\n"), ("a-json.log.2", "b\n")] {
            assert_eq!(lines(scratch.path(), name), [word]);
        }
        assert_eq!(std::fs::read_dir(scratch.path()).unwrap().count(), 3);
    }

    #[test]
    fn odd_bytes_stay_within_their_line() {
        let mut out = Vec::new();
        escape(b"<a&b>\"\\\x01\xff\xe2\x82\xac\r\n", &mut out);
        let text = String::from_utf8(out).unwrap();
        assert_eq!(text, r#"\u003ca\u0026b\u003e\"\\\u0001\ufffd€\r\n"#);
    }

    #[test]
    fn sizes_are_dockers() {
        assert_eq!(size("10m"), Some(10 << 20));
        assert_eq!(size("1K"), Some(1024));
        assert_eq!(size("7"), Some(7));
        assert_eq!(size("0"), None);
        assert_eq!(size("10x"), None);
    }

    #[test]
    fn an_unknown_option_is_refused() {
        let uri = Uri::parse("berth-json:///tmp/x?max-sice=1").unwrap().unwrap();
        assert!(JsonLog::open(&uri).unwrap_err().message().contains("max-sice"));
    }
}
