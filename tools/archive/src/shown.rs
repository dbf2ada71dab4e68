//! What readers that show their bytes (`BufRead`) have in common.

use std::io::{self, BufRead, Read};

/// `Read::read` of a reader that shows its bytes.
pub fn read_shown(reader: &mut (impl BufRead + ?Sized), buffer: &mut [u8]) -> io::Result<usize> {
    let length = reader.fill_buf()?.read(buffer)?;
    reader.consume(length);
    Ok(length)
}

/// Counts the bytes that are taken from a reader.
#[derive(Debug)]
pub struct Counted<R> {
    /// The reader.
    pub inner: R,
    /// So many bytes were taken.
    pub count: u64,
}

impl<R> Counted<R> {
    /// Of a reader from which nothing was taken yet.
    pub fn new(inner: R) -> Self {
        Self { inner, count: 0 }
    }
}

impl<R: Read> Read for Counted<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let length = self.inner.read(buffer)?;
        self.count += length as u64;
        Ok(length)
    }
}

impl<R: BufRead> BufRead for Counted<R> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        self.inner.fill_buf()
    }

    fn consume(&mut self, amount: usize) {
        self.count += amount as u64;
        self.inner.consume(amount);
    }
}
