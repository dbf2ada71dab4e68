//! Reading a log over its rotations, once or for as long as it grows.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use berth_types::{Error, Result};
use jiff::Timestamp;

use super::{Entry, tail};

/// A line that is longer is none of ours.
const MAX_LINE: usize = 8 << 20;
/// More rotations than anybody keeps.
const MAX_FILES: usize = 1000;

/// Which part of a log.
#[derive(Clone, Debug, Default)]
pub struct Query {
    /// From this moment on.
    pub since: Option<SystemTime>,
    /// Up to this moment.
    pub until: Option<SystemTime>,
    /// Only as many lines from the end.
    pub tail: Option<usize>,
}

/// A place in a log.
#[derive(Debug)]
pub struct Reader {
    path: PathBuf,
    since: Option<Timestamp>,
    until: Option<Timestamp>,
    current: Option<File>,
    pending: Vec<u8>,
    done: bool,
}

impl Reader {
    /// Opens the log whose newest file is `path`. There may be no file yet.
    pub fn open(path: &Path, query: &Query) -> Result<Self> {
        let failed = |error| Error::io(format!("cannot read the log {}", path.display()), error);
        let time = |time: Option<SystemTime>| time.and_then(|time| Timestamp::try_from(time).ok());
        let mut reader = Self {
            path: path.to_owned(),
            since: time(query.since),
            until: time(query.until),
            current: None,
            pending: Vec::new(),
            done: false,
        };
        let mut wanted = query.tail;
        if wanted == Some(0) {
            // Nothing of what is there, everything that comes.
            if let Some(mut file) = open(path).map_err(failed)? {
                file.seek(SeekFrom::End(0)).map_err(failed)?;
                reader.current = Some(file);
            }
            return Ok(reader);
        }
        for number in 0..MAX_FILES {
            let Some(mut file) = open(&rotated(path, number)).map_err(failed)? else { break };
            if let Some(left) = wanted {
                let (offset, found) = tail::offset(&file, left).map_err(failed)?;
                file.seek(SeekFrom::Start(offset)).map_err(failed)?;
                wanted = Some(left - found);
            }
            reader.current = Some(file);
            if wanted == Some(0) {
                break;
            }
        }
        Ok(reader)
    }

    /// Gives every entry that is there by now to `take`, until it answers false. Answers whether more may come:
    /// false once the end of the time that was asked for has passed.
    pub fn read(&mut self, take: &mut dyn FnMut(Entry) -> Result<bool>) -> Result<bool> {
        while !self.done {
            if self.current.is_none() {
                self.current = open(&self.path).map_err(|error| self.failed(error))?;
                if self.current.is_none() {
                    return Ok(true);
                }
            }
            self.read_file(take)?;
            if self.done || !self.advance().map_err(|error| self.failed(error))? {
                break;
            }
        }
        Ok(!self.done)
    }

    fn read_file(&mut self, take: &mut dyn FnMut(Entry) -> Result<bool>) -> Result<()> {
        let mut block = vec![0_u8; 64 << 10];
        loop {
            let Some(file) = &mut self.current else { return Ok(()) };
            let count = match file.read(&mut block) {
                Ok(0) => return Ok(()),
                Ok(count) => count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(self.failed(error)),
            };
            for part in block[..count].split_inclusive(|byte| *byte == b'\n') {
                self.pending.extend_from_slice(part);
                if part.ends_with(b"\n") {
                    let entry = Entry::parse(&self.pending);
                    self.pending.clear();
                    if let Some(entry) = entry
                        && !self.pass(entry, take)?
                    {
                        self.done = true;
                        return Ok(());
                    }
                } else if self.pending.len() > MAX_LINE {
                    self.pending.clear();
                }
            }
        }
    }

    fn pass(&self, entry: Entry, take: &mut dyn FnMut(Entry) -> Result<bool>) -> Result<bool> {
        if self.until.is_some_and(|until| entry.time > until) {
            return Ok(false);
        }
        if self.since.is_some_and(|since| entry.time < since) {
            return Ok(true);
        }
        take(entry)
    }

    /// Goes on to the file after the current one; false when the current one is the newest.
    fn advance(&mut self) -> io::Result<bool> {
        let Some(current) = &self.current else { return Ok(false) };
        let inode = current.metadata()?.ino();
        let mut older: Option<File> = None;
        for number in 0..MAX_FILES {
            let Some(file) = open(&rotated(&self.path, number))? else { break };
            if file.metadata()?.ino() == inode {
                let Some(next) = older else { return Ok(false) };
                self.pending.clear();
                self.current = Some(next);
                return Ok(true);
            }
            older = Some(file);
        }
        // The current file was rotated away altogether: the oldest one that is left comes next.
        match older {
            Some(next) => {
                self.pending.clear();
                self.current = Some(next);
                Ok(true)
            }
            None => Ok(false),
        }
    }

    fn failed(&self, error: io::Error) -> Error {
        Error::io(format!("cannot read the log {}", self.path.display()), error)
    }
}

fn rotated(path: &Path, number: usize) -> PathBuf {
    if number == 0 {
        return path.to_owned();
    }
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".{number}"));
    name.into()
}

fn open(path: &Path) -> io::Result<Option<File>> {
    match File::open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        other => other.map(Some),
    }
}
