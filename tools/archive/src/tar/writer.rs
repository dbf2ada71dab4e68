//! Writing an archive as a stream.

use std::io::{self, Write};

use super::block::Builder;
use super::{BLOCK, Entry, Kind, TarError, Time, pax};
use crate::path;

/// An archive being written: [`Writer::append`], then the entry's data through `Write`, then the next.
///
/// The same entries give the same bytes. Nothing of this machine (user names, process ids, the time) goes
/// into them.
pub struct Writer<W> {
    inner: W,
    /// Bytes of the current entry's data still to come.
    remaining: u64,
    padding: usize,
    current: String,
}

impl<W: Write> Writer<W> {
    /// Writes an archive to `inner`.
    pub fn new(inner: W) -> Self {
        Self { inner, remaining: 0, padding: 0, current: String::new() }
    }

    /// Writes an entry's headers. Its data ([`Entry::size`] bytes) must be written before the next call.
    /// Sparse maps aren't written: the data of such an entry is the whole file.
    pub fn append(&mut self, entry: &Entry) -> Result<(), TarError> {
        self.close_entry()?;
        self.current = String::from_utf8_lossy(&entry.path).into_owned();
        if entry.path.is_empty() || entry.path.contains(&0) {
            return Err(self.unwritable("a name is empty or holds a NUL"));
        }
        let size = if entry.kind == Kind::File { entry.size } else { 0 };
        let mut records = Vec::new();
        for (name, value) in &entry.xattrs {
            if name.contains(&b'=') {
                return Err(self.unwritable("an extended attribute's name holds ="));
            }
            pax::append(&mut records, &[b"SCHILY.xattr.", &name[..]].concat(), value);
        }
        let header = header(entry, size, &mut records);
        if !records.is_empty() {
            self.extended(entry, &records)?;
        }
        self.inner.write_all(&header).map_err(TarError::Write)?;
        self.remaining = size;
        self.padding = (size.wrapping_neg() % BLOCK as u64) as usize;
        Ok(())
    }

    /// Writes the end mark and gives the inner writer back.
    pub fn finish(mut self) -> Result<W, TarError> {
        self.close_entry()?;
        self.inner.write_all(&[0; 2 * BLOCK]).map_err(TarError::Write)?;
        Ok(self.inner)
    }

    /// Ends the current entry, of which all data was written, so that what comes next is a header.
    pub fn end_entry(&mut self) -> Result<(), TarError> {
        self.close_entry()
    }

    /// Where the archive goes: between two entries' parts, whoever writes it may say something to it.
    pub fn inner_mut(&mut self) -> &mut W {
        &mut self.inner
    }

    /// Bytes of the current entry that are still to be written.
    pub fn remaining(&self) -> u64 {
        self.remaining
    }

    fn extended(&mut self, entry: &Entry, records: &[u8]) -> Result<(), TarError> {
        let cleaned = path::clean(&entry.path);
        let (_, base) = path::parent(&cleaned);
        let mut header = Builder::new(b'x');
        let name = [b"PaxHeaders.0/", base].concat();
        header.text(0, 100, &name[..name.len().min(100)]);
        header.octal(100, 8, 0o644);
        header.octal(108, 8, 0);
        header.octal(116, 8, 0);
        header.octal(124, 12, records.len() as u64);
        header.octal(136, 12, 0);
        let padding = records.len().wrapping_neg() % BLOCK;
        for part in [&header.finish()[..], records, &[0; BLOCK][..padding]] {
            self.inner.write_all(part).map_err(TarError::Write)?;
        }
        Ok(())
    }

    fn close_entry(&mut self) -> Result<(), TarError> {
        if self.remaining > 0 {
            return Err(self.unwritable("its data is shorter than announced"));
        }
        let padding = std::mem::take(&mut self.padding);
        self.inner.write_all(&[0; BLOCK][..padding]).map_err(TarError::Write)
    }

    fn unwritable(&self, why: &'static str) -> TarError {
        TarError::Unwritable { path: self.current.clone(), why }
    }
}

/// The main header; what doesn't fit goes to `records`.
fn header(entry: &Entry, size: u64, records: &mut Vec<u8>) -> [u8; BLOCK] {
    let (kind, link) = match &entry.kind {
        Kind::File => (b'0', None),
        Kind::HardLink(target) => (b'1', Some(target)),
        Kind::Symlink(target) => (b'2', Some(target)),
        Kind::CharDevice { .. } => (b'3', None),
        Kind::BlockDevice { .. } => (b'4', None),
        Kind::Directory => (b'5', None),
        Kind::Fifo => (b'6', None),
    };
    let mut header = Builder::new(kind);
    let mut path = entry.path.clone();
    if entry.kind == Kind::Directory && !path.ends_with(b"/") {
        path.push(b'/');
    }
    if !header.path(&path) {
        header.text(0, 100, &path[..100]);
        pax::append(records, b"path", &path);
    }
    if let Some(link) = link.filter(|link| !header.text(157, 100, link)) {
        header.text(157, 100, &link[..100]);
        pax::append(records, b"linkpath", link);
    }
    header.octal(100, 8, u64::from(entry.mode & 0o7777));
    let mut decimal = |fits: bool, key: &[u8], number: u64| {
        if !fits {
            pax::append(records, key, number.to_string().as_bytes());
        }
    };
    decimal(header.octal(108, 8, u64::from(entry.uid)), b"uid", u64::from(entry.uid));
    decimal(header.octal(116, 8, u64::from(entry.gid)), b"gid", u64::from(entry.gid));
    decimal(header.octal(124, 12, size), b"size", size);
    let Time { seconds, nanos } = entry.mtime;
    let fits = header.octal(136, 12, u64::try_from(seconds).unwrap_or(0));
    if !fits || nanos > 0 || seconds < 0 {
        pax::append(records, b"mtime", pax::format_time(entry.mtime).as_bytes());
    }
    if let Kind::CharDevice { major, minor } | Kind::BlockDevice { major, minor } = entry.kind {
        // 21 bits each; Linux has 12 and 20.
        header.octal(329, 8, u64::from(major));
        header.octal(337, 8, u64::from(minor));
    }
    header.finish()
}

impl<W: Write> Write for Writer<W> {
    /// Takes the current entry's data; more than its size is `InvalidInput`.
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if bytes.len() as u64 > self.remaining {
            let text = format!("{} is longer than announced", self.current);
            return Err(io::Error::new(io::ErrorKind::InvalidInput, text));
        }
        let length = self.inner.write(bytes)?;
        self.remaining -= length as u64;
        Ok(length)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

impl<W> std::fmt::Debug for Writer<W> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Writer").field("current", &self.current).finish_non_exhaustive()
    }
}
