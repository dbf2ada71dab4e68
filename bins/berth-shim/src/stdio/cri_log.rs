//! The log of a container as a kubelet reads it: a record a line, of which the kubelet rotates the file.
//!
//! ```text
//!   2026-01-02T03:04:05.678901234Z stdout F a whole line
//!   2026-01-02T03:04:05.678901234Z stderr P the beginning of one, whose rest follows
//! ```
//! (kubernetes/design-proposals, "kubelet CRI logging".) `P` is what was cut at the limit and what a stream left
//! without an end of line. The file lies beneath the pod's folder of logs and no link leads to it, since the name
//! comes with a request.

use std::fs::File;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use berth_sys::beneath::Root;
use berth_types::{Error, Result};
use rustix::fs::{Mode, OFlags, fstat, ftruncate};

use super::pump::Channel;
use super::uri::Uri;
use crate::clock;

/// The longest piece of a line where nothing else is said: containerd's `max_container_log_line_size`.
const PIECE: usize = 16 << 10;
/// The longest that can be asked for: a stream holds so much.
const LARGEST: usize = 1 << 20;

/// A log that is being written. What a full disk refuses is counted and lost.
#[derive(Debug)]
pub(crate) struct CriLog {
    folder: PathBuf,
    name: PathBuf,
    /// None for a container whose output nobody keeps.
    file: Option<File>,
    piece: usize,
    partial: [Vec<u8>; 2],
    /// Records of one turn, written with one call.
    batch: Vec<u8>,
    lost: u64,
}

impl CriLog {
    /// Opens the log that a `berth-cri://FOLDER?file=NAME&limit=BYTES` URI describes, and goes on where it ended.
    pub(super) fn open(uri: &Uri) -> Result<Self> {
        let mut log = Self {
            folder: uri.path.clone(),
            name: PathBuf::new(),
            file: None,
            piece: PIECE,
            partial: Default::default(),
            batch: Vec::new(),
            lost: 0,
        };
        for (key, value) in &uri.query {
            match key.as_str() {
                "file" => log.name = PathBuf::from(value),
                "limit" => {
                    let limit = value.parse::<usize>().ok().filter(|limit| (1..=LARGEST).contains(limit));
                    log.piece = limit.ok_or_else(|| {
                        Error::invalid_argument(format!(
                            "limit {value:?} is no length of a line: give 1 to {LARGEST} bytes"
                        ))
                    })?;
                }
                other => {
                    return Err(Error::invalid_argument(format!(
                        "berth-cri has no option {other:?}: file and limit are known"
                    )));
                }
            }
        }
        log.reopen()?;
        Ok(log)
    }

    /// Goes on in the file that has the name now: a kubelet has given the old one another.
    pub(super) fn reopen(&mut self) -> Result<()> {
        if !self.name.as_os_str().is_empty() {
            self.flush();
            self.file = Some(open(&self.folder, &self.name).map_err(|error| {
                let path = self.folder.join(&self.name);
                Error::io(format!("cannot open the log {}", path.display()), error)
            })?);
        }
        Ok(())
    }

    /// Takes in output; whole lines, and pieces of too long ones, are written.
    pub(super) fn write(&mut self, channel: Channel, mut bytes: &[u8]) {
        if self.file.is_none() {
            return;
        }
        let now = clock::rfc3339(SystemTime::now());
        let slot = usize::from(channel == Channel::Stderr);
        while !bytes.is_empty() {
            let held = self.partial[slot].len();
            let window = &bytes[..bytes.len().min(self.piece - held + 1)];
            if let Some(at) = window.iter().position(|byte| *byte == b'\n') {
                let mut line = std::mem::take(&mut self.partial[slot]);
                line.extend_from_slice(&bytes[..at]);
                self.record(&now, channel, Tag::Full, &line);
                bytes = &bytes[at + 1..];
            } else if held + window.len() > self.piece {
                let mut line = std::mem::take(&mut self.partial[slot]);
                let room = self.piece - held;
                line.extend_from_slice(&bytes[..room]);
                self.record(&now, channel, Tag::Partial, &line);
                bytes = &bytes[room..];
            } else {
                self.partial[slot].extend_from_slice(bytes);
                bytes = &[];
            }
        }
        self.flush();
    }

    /// Writes what a stream left without an end of line.
    pub(super) fn end(&mut self, channel: Channel) {
        let rest = std::mem::take(&mut self.partial[usize::from(channel == Channel::Stderr)]);
        if !rest.is_empty() {
            self.record(&clock::rfc3339(SystemTime::now()), channel, Tag::Partial, &rest);
            self.flush();
        }
    }

    /// Bytes that could not be written.
    pub(super) fn lost(&self) -> u64 {
        self.lost
    }

    fn record(&mut self, time: &str, channel: Channel, tag: Tag, text: &[u8]) {
        let stream: &[u8] = if channel == Channel::Stderr { b" stderr " } else { b" stdout " };
        let tag: &[u8] = if tag == Tag::Full { b"F " } else { b"P " };
        for part in [time.as_bytes(), stream, tag, text, b"\n"] {
            self.batch.extend_from_slice(part);
        }
    }

    fn flush(&mut self) {
        let batch = std::mem::take(&mut self.batch);
        let Some(file) = self.file.as_mut().filter(|_| !batch.is_empty()) else { return };
        let before = fstat(&*file).map(|stat| stat.st_size);
        if file.write_all(&batch).is_err() {
            self.lost += batch.len() as u64;
            // Half a record would spoil the next one.
            if let Ok(size) = before {
                let _ = ftruncate(&*file, size as u64);
            }
        }
    }
}

/// Whether a record ends its line.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Tag {
    Full,
    Partial,
}

/// Opens a file beneath the folder of logs, with the folders between them.
fn open(folder: &Path, name: &Path) -> std::io::Result<File> {
    std::fs::create_dir_all(folder)?;
    let root = Root::open(folder)?;
    if let Some(parent) = name.parent().filter(|parent| !parent.as_os_str().is_empty()) {
        root.make_dirs(parent)?;
    }
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::APPEND | OFlags::NOCTTY;
    root.open_file_without_links(name, flags, Mode::from_raw_mode(0o640)).map(File::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn log(folder: &Path, query: &str) -> Result<CriLog> {
        let text = format!("berth-cri://{}?{query}", folder.display());
        CriLog::open(&Uri::parse(&text).unwrap().unwrap())
    }

    /// The records without their times.
    fn records(path: &Path) -> Vec<String> {
        let text = std::fs::read_to_string(path).unwrap();
        text.lines().map(|line| line.split_once(' ').unwrap().1.to_owned()).collect()
    }

    #[test]
    fn whole_lines_are_full_and_what_is_left_is_partial() {
        let scratch = tempfile::tempdir().unwrap();
        let mut log = log(scratch.path(), "file=web/0.log").unwrap();
        log.write(Channel::Stdout, b"one\ntw");
        log.write(Channel::Stderr, b"other\n");
        log.write(Channel::Stdout, b"o\n\nthree");
        log.end(Channel::Stdout);
        assert_eq!(
            records(&scratch.path().join("web/0.log")),
            ["stdout F one", "stderr F other", "stdout F two", "stdout F ", "stdout P three"]
        );
    }

    #[test]
    fn a_line_of_the_limit_is_whole_and_a_longer_one_comes_in_pieces() {
        let scratch = tempfile::tempdir().unwrap();
        for step in [1, 3, 100] {
            let name = format!("{step}.log");
            let mut log = log(scratch.path(), &format!("limit=4&file={name}")).unwrap();
            b"abcd\nabcdefghij\n".chunks(step).for_each(|part| log.write(Channel::Stdout, part));
            assert_eq!(
                records(&scratch.path().join(name)),
                ["stdout F abcd", "stdout P abcd", "stdout P efgh", "stdout F ij"]
            );
        }
    }

    #[test]
    fn it_goes_on_in_a_new_file_when_it_is_told_to() {
        let scratch = tempfile::tempdir().unwrap();
        let (now, old) = (scratch.path().join("0.log"), scratch.path().join("0.log.1"));
        let mut log = log(scratch.path(), "file=0.log").unwrap();
        log.write(Channel::Stdout, b"first\n");
        std::fs::rename(&now, &old).unwrap();
        log.write(Channel::Stdout, b"second\n");
        log.reopen().unwrap();
        log.write(Channel::Stdout, b"third\n");
        assert_eq!(records(&old), ["stdout F first", "stdout F second"]);
        assert_eq!(records(&now), ["stdout F third"]);
    }

    #[test]
    fn no_name_leads_out_of_the_folder() {
        let scratch = tempfile::tempdir().unwrap();
        let (logs, canary) = (scratch.path().join("logs"), scratch.path().join("canary"));
        std::fs::create_dir(&logs).unwrap();
        std::fs::write(&canary, "safe").unwrap();
        std::os::unix::fs::symlink(&canary, logs.join("link.log")).unwrap();
        std::os::unix::fs::symlink(scratch.path(), logs.join("folder")).unwrap();
        for name in ["../canary", "link.log", "folder/canary"] {
            assert!(log(&logs, &format!("file={name}")).is_err(), "{name}");
        }
        assert_eq!(std::fs::read(&canary).unwrap(), b"safe");
    }

    #[test]
    fn without_a_name_nothing_is_kept() {
        let scratch = tempfile::tempdir().unwrap();
        let mut log = log(scratch.path(), "").unwrap();
        log.write(Channel::Stdout, b"lost\n");
        log.end(Channel::Stdout);
        assert_eq!((std::fs::read_dir(scratch.path()).unwrap().count(), log.lost()), (0, 0));
        assert!(CriLog::open(&Uri::parse("berth-cri:///x?limits=4").unwrap().unwrap()).is_err());
    }
}
