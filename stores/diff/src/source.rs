//! A blob as a stream that a thread can read, also while it is still being written.

use std::fs::File;
use std::io::{self, BufRead, Read};
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use berth_core::BlobReader;
use berth_types::{Error, ErrorKind, Result};
use bytes::Bytes;
use tokio::runtime::Handle;
use tokio::sync::watch;

/// Bytes asked for at a time.
const PART: usize = 256 << 10;

/// How an ingest that will not come to its end reads.
pub(crate) const BROKEN_OFF: io::ErrorKind = io::ErrorKind::ConnectionAborted;

/// Tells a thread, by being dropped, that nobody waits for it any more.
pub(crate) struct Wants(#[expect(dead_code, reason = "it is there to be dropped")] watch::Sender<()>);

/// The thread's side.
#[derive(Clone)]
pub(crate) struct Wanted(watch::Receiver<()>);

impl Wanted {
    /// Both sides.
    pub(crate) fn channel() -> (Wants, Self) {
        let (wants, wanted) = watch::channel(());
        (Wants(wants), Self(wanted))
    }

    /// Whether somebody waits.
    pub(crate) fn is_so(&self) -> bool {
        self.0.has_changed().is_ok()
    }

    /// Resolves once nobody does.
    async fn over(&mut self) {
        while self.0.changed().await.is_ok() {}
    }
}

/// Reads a blob from its beginning: from its file where there is one, else through its reader.
pub(crate) struct Source {
    blob: Arc<dyn BlobReader>,
    /// The runtime that the blob's reader belongs to; this is read outside of it.
    runtime: Handle,
    wanted: Wanted,
    from: From,
    offset: u64,
    /// Up to where there are bytes to be read without waiting for more.
    known: u64,
}

enum From {
    File { file: File, buffer: Vec<u8>, filled: usize, taken: usize },
    Reader(Bytes),
}

impl Source {
    pub(crate) fn new(blob: Arc<dyn BlobReader>, runtime: Handle, wanted: Wanted) -> Self {
        let file = blob.file().and_then(|file| file.try_clone().ok());
        let from = match file {
            Some(file) => {
                // Advice only.
                let _ = rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::Sequential);
                From::File { file, buffer: vec![0; PART], filled: 0, taken: 0 }
            }
            None => From::Reader(Bytes::new()),
        };
        Self { blob, runtime, wanted, from, offset: 0, known: 0 }
    }

    fn is_spent(&self) -> bool {
        match &self.from {
            From::File { filled, taken, .. } => taken == filled,
            From::Reader(part) => part.is_empty(),
        }
    }

    /// Reads the next part, nothing at the end.
    fn refill(&mut self) -> io::Result<()> {
        let want = usize::try_from(self.left()?).unwrap_or(PART).min(PART);
        let read = match &mut self.from {
            From::File { file, buffer, filled, taken } => {
                *filled = file.read_at(&mut buffer[..want], self.offset)?;
                *taken = 0;
                *filled
            }
            From::Reader(_) => {
                let part = self.waiting(self.blob.read_at(self.offset, want))?;
                let read = part.len();
                self.from = From::Reader(part);
                read
            }
        };
        self.offset += read as u64;
        Ok(())
    }

    /// How many bytes there are to be read, none at the end.
    fn left(&mut self) -> io::Result<u64> {
        if self.offset >= self.known {
            self.known = self.waiting(self.blob.reach(self.offset))?;
        }
        Ok(self.known.saturating_sub(self.offset))
    }

    /// Waits for the blob for as long as somebody waits for this.
    fn waiting<T>(&self, work: impl Future<Output = Result<T>>) -> io::Result<T> {
        let mut wanted = self.wanted.clone();
        let done = self.runtime.block_on(async {
            tokio::select! {
                biased;
                done = work => done,
                () = wanted.over() => Err(Error::cancelled("nobody waits for the layer any more")),
            }
        });
        done.map_err(|error| match error.kind() {
            ErrorKind::Unavailable => io::Error::new(BROKEN_OFF, error.chain()),
            _ => io::Error::other(error.chain()),
        })
    }
}

impl BufRead for Source {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        if self.is_spent() {
            self.refill()?;
        }
        Ok(match &self.from {
            From::File { buffer, filled, taken, .. } => &buffer[*taken..*filled],
            From::Reader(part) => part,
        })
    }

    fn consume(&mut self, amount: usize) {
        match &mut self.from {
            From::File { taken, .. } => *taken += amount,
            From::Reader(part) => drop(part.split_to(amount)),
        }
    }
}

impl Read for Source {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        berth_archive::read_shown(self, buffer)
    }
}
