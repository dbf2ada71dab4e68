//! A blob as a stream that a thread can read.

use std::fs::File;
use std::io::{self, BufRead, Read};
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use berth_core::BlobReader;
use bytes::Bytes;
use tokio::runtime::Handle;

/// Bytes asked for at a time.
const PART: usize = 256 << 10;

/// Reads a blob from its beginning: from its file where there is one, else through its reader.
pub(crate) struct Source {
    blob: Arc<dyn BlobReader>,
    /// The runtime that the blob's reader belongs to; this is read outside of it.
    runtime: Handle,
    from: From,
    offset: u64,
}

enum From {
    File { file: File, buffer: Vec<u8>, filled: usize, taken: usize },
    Reader(Bytes),
}

impl Source {
    pub(crate) fn new(blob: Arc<dyn BlobReader>, runtime: Handle) -> Self {
        let file = blob.file().and_then(|file| file.try_clone().ok());
        let from = match file {
            Some(file) => {
                // Advice only.
                let _ = rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::Sequential);
                From::File { file, buffer: vec![0; PART], filled: 0, taken: 0 }
            }
            None => From::Reader(Bytes::new()),
        };
        Self { blob, runtime, from, offset: 0 }
    }
}

impl BufRead for Source {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        match &mut self.from {
            From::File { file, buffer, filled, taken } => {
                if taken == filled {
                    let left = self.blob.size().saturating_sub(self.offset);
                    let want = usize::try_from(left).unwrap_or(PART).min(PART);
                    *filled = file.read_at(&mut buffer[..want], self.offset)?;
                    *taken = 0;
                    self.offset += *filled as u64;
                }
                Ok(&buffer[*taken..*filled])
            }
            From::Reader(part) => {
                if part.is_empty() {
                    let read = self.runtime.block_on(self.blob.read_at(self.offset, PART));
                    *part = read.map_err(|error| io::Error::other(error.chain()))?;
                    self.offset += part.len() as u64;
                }
                Ok(part)
            }
        }
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
        let shown = self.fill_buf()?;
        let length = shown.len().min(buffer.len());
        buffer[..length].copy_from_slice(&shown[..length]);
        self.consume(length);
        Ok(length)
    }
}
