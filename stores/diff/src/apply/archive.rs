//! A layer's archive on its way through: whoever reads it leaves a copy of it in a file.

use std::fs::File;
use std::io::{self, BufRead, Read};
use std::os::unix::fs::FileExt;

/// Bytes gathered before they are written.
const PART: usize = 1 << 20;

/// A stream whose bytes are written to a file as they are read.
pub(crate) struct Kept<R> {
    inner: R,
    file: File,
    /// What is not written yet, and where it belongs.
    gathered: Vec<u8>,
    at: u64,
    length: u64,
}

impl<R: BufRead> Kept<R> {
    /// Writes what is read to `file` from byte `at` on.
    pub(crate) fn new(inner: R, file: File, at: u64) -> Self {
        Self { inner, file, gathered: Vec::with_capacity(PART), at, length: 0 }
    }

    /// Writes the rest, and tells how many bytes it was.
    pub(crate) fn finish(mut self) -> io::Result<u64> {
        self.write()?;
        Ok(self.length)
    }

    fn write(&mut self) -> io::Result<()> {
        self.file.write_all_at(&self.gathered, self.at)?;
        self.at += self.gathered.len() as u64;
        self.gathered.clear();
        Ok(())
    }
}

impl<R: BufRead> BufRead for Kept<R> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        if self.gathered.len() >= PART {
            self.write()?;
        }
        self.inner.fill_buf()
    }

    fn consume(&mut self, amount: usize) {
        if amount == 0 {
            return;
        }
        // What was shown is still shown.
        let shown = self.inner.fill_buf().unwrap_or_default();
        let taken = amount.min(shown.len());
        self.gathered.extend_from_slice(&shown[..taken]);
        self.length += taken as u64;
        self.inner.consume(amount);
    }
}

impl<R: BufRead> Read for Kept<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        berth_archive::read_shown(self, buffer)
    }
}
