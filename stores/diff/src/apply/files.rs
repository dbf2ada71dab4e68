//! Small files, made by several threads.
//!
//! ```text
//!   member ── a small file under a new name ──▶ batch ──▶ [writer] [writer] …
//!      │                                                     │
//!      └───── anything else that may meet one ── waits for ──┘
//! ```
//! To make a file costs the kernel more time than all else that is done for a small one. The order in which members
//! come matters only where they meet under one name, or where one is looked for by its path. So what is made out of
//! order is a file whose name nothing of this layer had before, in a tree that was empty, and whose folder is there;
//! before anything that replaces, links to, hides, or needs a folder that is not there, all that was begun is ended.
//! Folders get their times last anyway.

use std::collections::HashSet;
use std::ffi::OsString;
use std::fs::File;
use std::hash::{BuildHasher, RandomState};
use std::io::{self, BufRead, Read, Write};
use std::ops::Range;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::{Builder, JoinHandle};

use berth_archive::Entry as Member;
use berth_sys::beneath::Entry;
use rustix::fs::{Mode, OFlags};

use super::UnpackError;
use super::attributes::finish_open;
use super::ours::{Id, Ours, id};
use super::times::both;
use crate::mounted::Whiteouts;

/// A larger file is written as it comes.
const SMALL: u64 = 64 << 10;

/// Files and bytes of a batch, about.
const BATCH_FILES: usize = 64;
const BATCH_BYTES: usize = 128 << 10;

/// Batches that wait for a writer.
const DEPTH: usize = 8;

/// Writers at most. Each has up to a mebibyte and a bit on its way.
const WRITERS: usize = 4;

/// Names remembered at most; after that many, files are made one by one.
const MAX_NAMES: usize = 500_000;

/// Files on their way into a tree.
pub(super) struct Files {
    whiteouts: Whiteouts,
    names: Names,
    batch: Batch,
    writers: Vec<Writer>,
    /// Which writer got the latest batch.
    latest: usize,
    /// The folder of the latest file that a writer got.
    written: Option<Id>,
    /// The folder of the latest file that was taken over, open.
    folder: Option<(Id, Arc<OwnedFd>)>,
}

/// Names that are taken.
enum Names {
    /// Any may be.
    Unknown,
    /// Those that this layer has made, as hashes under a secret key.
    Made(HashSet<u64>, RandomState),
}

#[derive(Default)]
struct Batch {
    files: Vec<Small>,
    bytes: Vec<u8>,
    /// The folders of the first and of the last file.
    folders: Option<(Id, Id)>,
}

/// A file to be made.
struct Small {
    folder: Arc<OwnedFd>,
    name: OsString,
    member: Member,
    bytes: Range<usize>,
}

struct Writer {
    to: SyncSender<Batch>,
    thread: JoinHandle<Result<(), UnpackError>>,
}

impl Files {
    pub(super) fn new(ours: &Ours, whiteouts: &Whiteouts) -> Self {
        let names = match ours {
            Ours::Everything => Names::Made(HashSet::new(), RandomState::new()),
            Ours::Some(_) => Names::Unknown,
        };
        let (batch, writers) = (Batch::default(), Vec::new());
        Self { whiteouts: whiteouts.clone(), names, batch, writers, latest: 0, written: None, folder: None }
    }

    /// Takes a name, and answers whether nothing can be there.
    pub(super) fn take(&mut self, entry: &Entry<'_>) -> io::Result<bool> {
        let Names::Made(names, key) = &mut self.names else { return Ok(false) };
        let new = names.insert(key.hash_one((id(entry.parent())?, entry.name().as_bytes())));
        if names.len() > MAX_NAMES {
            self.names = Names::Unknown;
        }
        Ok(new)
    }

    /// Takes a file over, whose name is new; `false` if it is not one for here.
    pub(super) fn add(
        &mut self,
        entry: &Entry<'_>,
        member: &Member,
        data: &mut impl BufRead,
    ) -> Result<bool, UnpackError> {
        if member.segments.is_some() || member.size > SMALL {
            return Ok(false);
        }
        let failed = |error| UnpackError::write("cannot write", &member.path, error);
        let (folder, open) = self.open(entry).map_err(failed)?;
        let start = self.batch.bytes.len();
        let read = data.take(member.size).read_to_end(&mut self.batch.bytes);
        let end = start + read.map_err(|error| UnpackError::data(&member.path, error))?;
        let (name, member) = (entry.name().to_owned(), member.clone());
        self.batch.files.push(Small { folder: open, name, member, bytes: start..end });
        let first = self.batch.folders.map_or(folder, |(first, _)| first);
        self.batch.folders = Some((first, folder));
        if self.batch.files.len() >= BATCH_FILES || self.batch.bytes.len() >= BATCH_BYTES {
            self.hand_over()?;
        }
        Ok(true)
    }

    /// The folder of a file, which is often the one of the file before.
    fn open(&mut self, entry: &Entry<'_>) -> io::Result<(Id, Arc<OwnedFd>)> {
        let found = id(entry.parent())?;
        match &self.folder {
            Some((known, open)) if *known == found => Ok((found, Arc::clone(open))),
            _ => {
                let open = Arc::new(entry.parent().try_clone()?);
                self.folder = Some((found, Arc::clone(&open)));
                Ok((found, open))
            }
        }
    }

    /// Waits until everything that was taken over is there.
    pub(super) fn settle(&mut self) -> Result<(), UnpackError> {
        let own = std::mem::take(&mut self.batch).write(&self.whiteouts);
        let ends = self.writers.drain(..).map(|Writer { to, thread }| {
            drop(to);
            thread.join().unwrap_or(Err(UnpackError::Lost))
        });
        // Every thread is waited for, whatever the first of them says.
        ends.fold(own, Result::and)
    }

    /// Gives the batch to a writer: the same one again as long as it goes on in the same folder, which two could not
    /// write in at once.
    fn hand_over(&mut self) -> Result<(), UnpackError> {
        if self.writers.is_empty() {
            self.start()?;
        }
        let batch = std::mem::take(&mut self.batch);
        let goes_on = batch.folders.is_some_and(|(first, _)| self.written == Some(first));
        if !goes_on {
            self.latest = (self.latest + 1) % self.writers.len();
        }
        self.written = batch.folders.map(|(_, last)| last);
        match self.writers[self.latest].to.send(batch) {
            Ok(()) => Ok(()),
            // A writer that has gone has failed, and says why.
            Err(_) => self.settle().and(Err(UnpackError::Lost)),
        }
    }

    fn start(&mut self) -> Result<(), UnpackError> {
        let processors = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        for _ in 0..processors.clamp(1, WRITERS) {
            let (to, batches) = sync_channel(DEPTH);
            let whiteouts = self.whiteouts.clone();
            let thread = Builder::new()
                .name("layer-files".into())
                .spawn(move || write_all(&batches, &whiteouts))
                .map_err(UnpackError::Spawn)?;
            self.writers.push(Writer { to, thread });
        }
        Ok(())
    }
}

/// Nothing is written any more once it is dropped.
impl Drop for Files {
    fn drop(&mut self) {
        self.batch = Batch::default();
        // What went wrong before is what is told.
        drop(self.settle());
    }
}

fn write_all(batches: &Receiver<Batch>, whiteouts: &Whiteouts) -> Result<(), UnpackError> {
    batches.iter().try_for_each(|batch| batch.write(whiteouts))
}

impl Batch {
    fn write(&self, whiteouts: &Whiteouts) -> Result<(), UnpackError> {
        self.files.iter().try_for_each(|small| {
            let written = small.write(&self.bytes[small.bytes.clone()], whiteouts);
            written.map_err(|error| UnpackError::write("cannot write", &small.member.path, error))
        })
    }
}

impl Small {
    /// Makes the file with the permissions that it is to have, so that most need no change. Set-id bits come last,
    /// because the owner is not known yet.
    fn write(&self, bytes: &[u8], whiteouts: &Whiteouts) -> io::Result<()> {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let mode = Mode::from_raw_mode(self.member.mode & 0o777);
        let mut file = File::from(rustix::fs::openat(&*self.folder, &self.name, flags, mode)?);
        file.write_all(bytes)?;
        finish_open(file.as_fd(), &self.member, whiteouts)?;
        Ok(rustix::fs::futimens(&file, &both(self.member.mtime))?)
    }
}
