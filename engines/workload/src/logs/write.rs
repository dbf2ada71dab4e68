//! Writing a log, for shims that cannot.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use berth_types::Result;

use super::{Entry, Stream};

/// The longest part of a line that is one entry.
const MAX_PART: usize = 16 << 10;

/// When a log is rotated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of a file, none for no limit.
    pub max_size: Option<u64>,
    /// Files in all, at least one.
    pub max_files: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { max_size: None, max_files: 1 }
    }
}

impl Limits {
    /// The limits in the options of a log driver.
    pub fn of(options: &BTreeMap<String, String>) -> Result<Self> {
        let max_size = options.get("max-size").map(|text| crate::parse::bytes(text)).transpose()?;
        let max_files = options.get("max-file").and_then(|text| text.parse().ok()).unwrap_or(1).max(1);
        Ok(Self { max_size, max_files })
    }
}

/// A log being written.
#[derive(Debug)]
pub struct Writer {
    path: PathBuf,
    limits: Limits,
    file: File,
    size: u64,
    lines: [Vec<u8>; 2],
    encoded: Vec<u8>,
}

impl Writer {
    /// Opens a log to write at its end.
    pub fn open(path: &Path, limits: Limits) -> io::Result<Self> {
        let file = append(path)?;
        let size = file.metadata()?.len();
        let lines = [Vec::new(), Vec::new()];
        Ok(Self { path: path.to_owned(), limits, file, size, lines, encoded: Vec::new() })
    }

    /// Takes output as it comes; whole lines are written at once.
    pub fn write(&mut self, stream: Stream, bytes: &[u8]) -> io::Result<()> {
        let index = usize::from(stream == Stream::Stderr);
        let now = SystemTime::now();
        self.encoded.clear();
        let mut line = std::mem::take(&mut self.lines[index]);
        for part in bytes.split_inclusive(|byte| *byte == b'\n') {
            for part in part.chunks(MAX_PART) {
                if line.len() + part.len() > MAX_PART {
                    Entry::encode(&line, stream, now, &mut self.encoded);
                    line.clear();
                }
                line.extend_from_slice(part);
            }
            if line.ends_with(b"\n") {
                Entry::encode(&line, stream, now, &mut self.encoded);
                line.clear();
            }
        }
        self.lines[index] = line;
        self.flush()
    }

    /// Writes what has come of a last line without an end.
    pub fn finish(&mut self, stream: Stream) -> io::Result<()> {
        let line = std::mem::take(&mut self.lines[usize::from(stream == Stream::Stderr)]);
        self.encoded.clear();
        if !line.is_empty() {
            Entry::encode(&line, stream, SystemTime::now(), &mut self.encoded);
        }
        self.flush()
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.encoded.is_empty() {
            return Ok(());
        }
        if self
            .limits
            .max_size
            .is_some_and(|max| self.size > 0 && self.size + self.encoded.len() as u64 > max)
        {
            self.rotate()?;
        }
        self.file.write_all(&self.encoded)?;
        self.size += self.encoded.len() as u64;
        Ok(())
    }

    fn rotate(&mut self) -> io::Result<()> {
        let numbered = |number: usize| {
            let mut name = self.path.as_os_str().to_owned();
            name.push(format!(".{number}"));
            PathBuf::from(name)
        };
        let absent_is_fine = |answer: io::Result<()>| match answer {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            other => other,
        };
        if self.limits.max_files <= 1 {
            absent_is_fine(fs::remove_file(&self.path))?;
        } else {
            for number in (1..self.limits.max_files - 1).rev() {
                absent_is_fine(fs::rename(numbered(number), numbered(number + 1)))?;
            }
            absent_is_fine(fs::rename(&self.path, numbered(1)))?;
        }
        self.file = append(&self.path)?;
        self.size = 0;
        Ok(())
    }
}

fn append(path: &Path) -> io::Result<File> {
    OpenOptions::new().create(true).append(true).mode(0o640).open(path)
}
