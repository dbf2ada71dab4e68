//! The file that the records are read from: one line for each change.
//!
//! A line is its own checksum, a blank and JSON. What is written survives the end of the process; what
//! has to survive a power cut is flushed by the one who asks for it ([`Journal::file`]). A last line
//! that is not whole was never acknowledged and is cut off; damage before it costs that line only, and
//! a copy of the file is kept for whoever wants to look.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::FileExt;

use rustix::fs::{AtFlags, FallocateFlags, Mode, OFlags};
use rustix::io::Errno;
use serde::Serialize;
use serde::de::DeserializeOwned;

const NAME: &str = "journal";
const NEXT: &str = "journal.next";
const DAMAGED: &str = "journal.damaged";

/// Space allocated ahead of the end, so that removals can be written on a full disk.
const RESERVE: u64 = 16 * 1024;
const AHEAD: u64 = 64 * 1024;

/// What a line may cost: lines that add need room beyond the reserve, lines that free something don't.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// A snapshot is made or changed.
    Grow,
    /// A snapshot goes away.
    Shrink,
}

#[derive(Debug)]
pub(crate) struct Journal {
    folder: OwnedFd,
    file: File,
    /// Bytes of whole lines.
    length: u64,
    /// Lines in the file, to know when it is worth rewriting.
    lines: usize,
    allocated: u64,
}

/// The journal and what its lines said.
pub(crate) struct Opened<T> {
    pub(crate) journal: Journal,
    pub(crate) lines: Vec<T>,
    /// Damaged lines that were left out.
    pub(crate) damaged: usize,
}

impl Journal {
    /// Opens the journal in `folder`, or begins one.
    pub(crate) fn open<T: DeserializeOwned>(folder: OwnedFd) -> io::Result<Opened<T>> {
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = File::from(rustix::fs::openat(&folder, NAME, flags, Mode::RUSR | Mode::WUSR)?);
        let size = file.metadata()?.len();
        let mut bytes = vec![0; usize::try_from(size).unwrap_or(usize::MAX)];
        file.read_exact_at(&mut bytes, 0)?;
        let Scan { lines, length, damaged } = scan(&bytes);
        if damaged > 0 {
            keep_copy(&folder, &bytes)?;
        }
        let allocated = length;
        let journal = Self { folder, file, length, lines: lines.len(), allocated };
        if size > length {
            journal.file.set_len(length)?;
        }
        Ok(Opened { journal, lines, damaged })
    }

    /// Lines in the file.
    pub(crate) fn lines(&self) -> usize {
        self.lines
    }

    /// Writes one line. After an error the file is as before.
    pub(crate) fn append(&mut self, line: &impl Serialize, purpose: Purpose) -> io::Result<()> {
        let line = render(line)?;
        let end = self.length + line.len() as u64;
        if purpose == Purpose::Grow {
            self.allocate(end + RESERVE)?;
        }
        if let Err(error) = self.file.write_all_at(&line, self.length) {
            // A part that was written would be cut off at the next start anyway.
            let _ = self.file.set_len(self.length);
            self.allocated = self.length;
            return Err(error);
        }
        self.length = end;
        self.lines += 1;
        Ok(())
    }

    /// A handle to flush without holding the journal.
    pub(crate) fn file(&self) -> io::Result<File> {
        self.file.try_clone()
    }

    /// Puts `lines` in the place of all that was written, durably.
    pub(crate) fn rewrite<T: Serialize>(&mut self, lines: impl Iterator<Item = T>) -> io::Result<()> {
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::TRUNC | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = File::from(rustix::fs::openat(&self.folder, NEXT, flags, Mode::RUSR | Mode::WUSR)?);
        let (mut bytes, mut count) = (Vec::new(), 0);
        for line in lines {
            bytes.extend_from_slice(&render(&line)?);
            count += 1;
        }
        let written = file.write_all_at(&bytes, 0).and_then(|()| file.sync_data());
        if let Err(error) = written {
            let _ = rustix::fs::unlinkat(&self.folder, NEXT, AtFlags::empty());
            return Err(error);
        }
        rustix::fs::renameat(&self.folder, NEXT, &self.folder, NAME)?;
        (self.file, self.length, self.lines) = (file, bytes.len() as u64, count);
        self.allocated = self.length;
        Ok(rustix::fs::fsync(&self.folder)?)
    }

    fn allocate(&mut self, end: u64) -> io::Result<()> {
        if end <= self.allocated {
            return Ok(());
        }
        let length = end + AHEAD - self.length;
        let allocated = loop {
            match rustix::fs::fallocate(self.file.as_fd(), FallocateFlags::KEEP_SIZE, self.length, length) {
                Err(Errno::INTR) => {}
                done => break done,
            }
        };
        match allocated {
            // A filesystem that cannot promise room has to be taken as it is.
            Ok(()) | Err(Errno::OPNOTSUPP | Errno::NOSYS) => {
                self.allocated = end + AHEAD;
                Ok(())
            }
            Err(error) => Err(error.into()),
        }
    }
}

struct Scan<T> {
    lines: Vec<T>,
    length: u64,
    damaged: usize,
}

/// Reads whole lines; what follows the last good one is not counted as damage.
fn scan<T: DeserializeOwned>(bytes: &[u8]) -> Scan<T> {
    let mut found = Scan { lines: Vec::new(), length: 0, damaged: 0 };
    let (mut at, mut suspects) = (0, 0);
    for line in bytes.split_inclusive(|byte| *byte == b'\n') {
        at += line.len() as u64;
        match parse(line) {
            Some(parsed) => {
                found.lines.push(parsed);
                found.damaged += std::mem::take(&mut suspects);
                found.length = at;
            }
            None => suspects += 1,
        }
    }
    found
}

fn parse<T: DeserializeOwned>(line: &[u8]) -> Option<T> {
    let line = line.strip_suffix(b"\n")?;
    let (sum, body) = line.split_at_checked(17)?;
    if sum != format!("{:016x} ", checksum(body)).as_bytes() {
        return None;
    }
    serde_json::from_slice(body).ok()
}

fn render(line: &impl Serialize) -> io::Result<Vec<u8>> {
    let body = serde_json::to_vec(line)?;
    let mut bytes = format!("{:016x} ", checksum(&body)).into_bytes();
    bytes.extend_from_slice(&body);
    bytes.push(b'\n');
    Ok(bytes)
}

/// FNV-1a: against torn writes and rot, not against an enemy, who could write the right sum as well.
fn checksum(bytes: &[u8]) -> u64 {
    bytes
        .iter()
        .fold(0xcbf2_9ce4_8422_2325, |sum, byte| (sum ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3))
}

fn keep_copy(folder: &OwnedFd, bytes: &[u8]) -> io::Result<()> {
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::TRUNC | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let copy = File::from(rustix::fs::openat(folder, DAMAGED, flags, Mode::RUSR | Mode::WUSR)?);
    copy.write_all_at(bytes, 0)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use super::*;

    fn open(folder: &Path) -> Opened<String> {
        Journal::open(fs::File::open(folder).unwrap().into()).unwrap()
    }

    #[test]
    fn lines_come_back_in_order() {
        let folder = tempfile::tempdir().unwrap();
        let mut journal = open(folder.path()).journal;
        journal.append(&"one\n", Purpose::Grow).unwrap();
        journal.append(&"two", Purpose::Shrink).unwrap();
        drop(journal);
        let opened = open(folder.path());
        assert_eq!((opened.lines, opened.damaged), (vec!["one\n".to_owned(), "two".to_owned()], 0));
    }

    #[test]
    fn a_cut_anywhere_leaves_the_whole_lines() {
        let folder = tempfile::tempdir().unwrap();
        let mut journal = open(folder.path()).journal;
        journal.append(&"one", Purpose::Grow).unwrap();
        let first = journal.length;
        journal.append(&"two", Purpose::Grow).unwrap();
        let whole = fs::read(folder.path().join(NAME)).unwrap();
        for cut in 0..whole.len() {
            fs::write(folder.path().join(NAME), &whole[..cut]).unwrap();
            let mut opened = open(folder.path());
            assert_eq!(opened.lines.len(), usize::from(cut as u64 >= first), "cut at {cut}");
            assert_eq!(opened.damaged, 0);
            opened.journal.append(&"three", Purpose::Grow).unwrap();
            assert_eq!(open(folder.path()).lines.last().unwrap(), "three");
        }
    }

    #[test]
    fn damage_costs_one_line_and_is_kept_for_a_look() {
        let folder = tempfile::tempdir().unwrap();
        let mut journal = open(folder.path()).journal;
        for line in ["one", "two", "three"] {
            journal.append(&line, Purpose::Grow).unwrap();
        }
        let mut bytes = fs::read(folder.path().join(NAME)).unwrap();
        let at = bytes.windows(3).position(|part| part == b"two").unwrap();
        bytes[at] ^= 1;
        fs::write(folder.path().join(NAME), &bytes).unwrap();
        let opened = open(folder.path());
        assert_eq!((opened.lines, opened.damaged), (vec!["one".to_owned(), "three".to_owned()], 1));
        assert_eq!(fs::read(folder.path().join(DAMAGED)).unwrap(), bytes);
    }

    #[test]
    fn zeros_that_a_power_cut_left_at_the_end_are_cut_off() {
        let folder = tempfile::tempdir().unwrap();
        open(folder.path()).journal.append(&"one", Purpose::Grow).unwrap();
        let mut bytes = fs::read(folder.path().join(NAME)).unwrap();
        bytes.extend_from_slice(&[0; 5000]);
        fs::write(folder.path().join(NAME), bytes).unwrap();
        let opened = open(folder.path());
        assert_eq!((opened.lines.len(), opened.damaged), (1, 0));
    }

    #[test]
    fn rewriting_replaces_every_line() {
        let folder = tempfile::tempdir().unwrap();
        let mut journal = open(folder.path()).journal;
        for line in 0..100 {
            journal.append(&line.to_string(), Purpose::Grow).unwrap();
        }
        journal.rewrite(["a", "b"].iter()).unwrap();
        assert_eq!(journal.lines(), 2);
        journal.append(&"c", Purpose::Grow).unwrap();
        assert_eq!(open(folder.path()).lines, ["a", "b", "c"]);
    }
}
