//! Reading an archive as a stream.

use std::io::{self, BufRead, Read};

use super::block::{Dialect, Header};
use super::pax::Records;
use super::sparse::Fed;
use super::{BLOCK, Entry, Kind, Segment, TarError, Time, sparse};
use crate::Limits;

/// An archive being read, entry by entry. It never seeks and holds no more than one header.
pub struct Reader<R> {
    inner: R,
    limits: Limits,
    /// Bytes read so far.
    offset: u64,
    /// Bytes of the current entry's data that nobody has read.
    remaining: u64,
    /// What fills the data's last block.
    padding: u64,
    entries: u64,
    ended: bool,
}

/// What extended headers said about the entry that follows them.
#[derive(Default)]
struct Extensions {
    path: Option<Vec<u8>>,
    link: Option<Vec<u8>>,
    records: Option<Records>,
}

impl Extensions {
    fn is_empty(&self) -> bool {
        self.path.is_none() && self.link.is_none() && self.records.is_none()
    }

    /// Whether a header of this kind would replace what was said, or make some readers forget it.
    fn are_broken_by(&self, kind: u8) -> bool {
        match kind {
            b'x' => self.records.is_some(),
            b'L' => self.path.is_some(),
            b'K' => self.link.is_some(),
            b'g' => !self.is_empty(),
            _ => false,
        }
    }
}

impl<R: BufRead> Reader<R> {
    /// Reads an uncompressed archive from `inner` under the default limits.
    pub fn new(inner: R) -> Self {
        Self::with_limits(inner, Limits::default())
    }

    /// Reads an uncompressed archive from `inner` under `limits`.
    pub fn with_limits(inner: R, limits: Limits) -> Self {
        Self { inner, limits, offset: 0, remaining: 0, padding: 0, entries: 0, ended: false }
    }

    /// The next entry, or `None` at the end of the archive. Data of the last one that wasn't read is
    /// skipped. After an error the reader must not be used again.
    pub fn next_entry(&mut self) -> Result<Option<Entry>, TarError> {
        self.skip_data()?;
        let mut extensions = Extensions::default();
        while let Some(header) = self.header()? {
            self.entries += 1;
            if self.entries > self.limits.entries {
                return Err(TarError::Limit { offset: header.offset, what: "entries" });
            }
            if extensions.are_broken_by(header.kind()) {
                return Err(TarError::Ambiguous { offset: header.offset, what: "extended headers in a row" });
            }
            match header.kind() {
                b'x' => extensions.records = Some(self.records(&header)?),
                b'g' => self.check_global(&header)?,
                b'L' => extensions.path = Some(self.long_name(&header)?),
                b'K' => extensions.link = Some(self.long_name(&header)?),
                _ => return self.entry(&header, extensions).map(Some),
            }
        }
        if extensions.is_empty() {
            return Ok(None);
        }
        Err(TarError::Truncated { offset: self.offset })
    }

    /// Bytes of the archive that were read so far: right after an entry, where its data begins.
    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// The data of the entry that was answered last; for a sparse file its runs joined.
    pub fn data(&mut self) -> Data<'_, R> {
        Data { reader: self }
    }

    /// Reads all that follows the archive's end mark, so that the source is read to its end, and gives it
    /// back.
    pub fn finish(mut self) -> Result<R, TarError> {
        loop {
            let length = match self.inner.fill_buf() {
                Ok([]) => return Ok(self.inner),
                Ok(shown) => shown.len(),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(source) => return Err(TarError::Read { offset: self.offset, source }),
            };
            self.inner.consume(length);
            self.offset += length as u64;
        }
    }

    /// Reads a header; `None` at the end mark (two blocks of zeros, or one and the end of the source) and
    /// at the end of the source where a header could begin.
    fn header(&mut self) -> Result<Option<Header>, TarError> {
        if self.ended {
            return Ok(None);
        }
        let first = self.block()?;
        if let Some(header) = first.filter(|header| !header.is_zero()) {
            header.verify()?;
            return Ok(Some(header));
        }
        self.ended = true;
        match self.block()? {
            Some(second) if !second.is_zero() => {
                Err(TarError::Ambiguous { offset: second.offset, what: "data after a block of zeros" })
            }
            _ => Ok(None),
        }
    }

    fn block(&mut self) -> Result<Option<Header>, TarError> {
        let offset = self.offset;
        let mut bytes = [0; BLOCK];
        let mut filled = 0;
        while filled < BLOCK {
            match self.inner.read(&mut bytes[filled..]) {
                Ok(0) if filled == 0 => return Ok(None),
                Ok(0) => return Err(TarError::Truncated { offset: self.offset }),
                Ok(length) => {
                    filled += length;
                    self.offset += length as u64;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(source) => return Err(self.read_error(source)),
            }
        }
        Ok(Some(Header { bytes, offset }))
    }

    fn read_error(&self, source: io::Error) -> TarError {
        TarError::Read { offset: self.offset, source }
    }

    fn skip_data(&mut self) -> Result<(), TarError> {
        let mut left = self.remaining + self.padding;
        (self.remaining, self.padding) = (0, 0);
        while left > 0 {
            let length = match self.inner.fill_buf() {
                Ok([]) => return Err(TarError::Truncated { offset: self.offset }),
                Ok(shown) => left.min(shown.len() as u64),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(source) => return Err(self.read_error(source)),
            };
            self.inner.consume(length as usize);
            self.offset += length;
            left -= length;
        }
        Ok(())
    }

    fn set_data(&mut self, length: u64) {
        self.remaining = length;
        self.padding = length.wrapping_neg() % BLOCK as u64;
    }

    /// The payload of an extended header.
    fn payload(&mut self, header: &Header) -> Result<Vec<u8>, TarError> {
        let size = header.count(124, 12, "size")?;
        if size > self.limits.extension {
            return Err(TarError::Limit { offset: header.offset, what: "extended header size" });
        }
        self.set_data(size);
        let mut payload = Vec::with_capacity(size as usize);
        match self.data().read_to_end(&mut payload) {
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                return Err(TarError::Truncated { offset: self.offset });
            }
            Err(source) => return Err(self.read_error(source)),
        }
        self.skip_data()?;
        Ok(payload)
    }

    fn records(&mut self, header: &Header) -> Result<Records, TarError> {
        let payload = self.payload(header)?;
        Records::parse(&payload).map_err(|field| TarError::Field { offset: header.offset, field })
    }

    fn check_global(&mut self, header: &Header) -> Result<(), TarError> {
        if self.records(header)?.redefines_entries() {
            return Err(TarError::Ambiguous { offset: header.offset, what: "global name, size or map" });
        }
        Ok(())
    }

    fn long_name(&mut self, header: &Header) -> Result<Vec<u8>, TarError> {
        let mut name = self.payload(header)?;
        let end = name.iter().position(|byte| *byte == 0).unwrap_or(name.len());
        name.truncate(end);
        Ok(name)
    }

    fn entry(&mut self, header: &Header, extensions: Extensions) -> Result<Entry, TarError> {
        let offset = header.offset;
        let Extensions { path, link, records } = extensions;
        let mut records = records.unwrap_or_default();
        let path = one_of(path, records.sparse.name.take().or(records.path.take()), offset)?;
        let path = path.unwrap_or_else(|| header.name());
        let link = one_of(link, records.link.take(), offset)?.unwrap_or_else(|| header.link());
        if path.len() > self.limits.path || link.len() > self.limits.path {
            return Err(TarError::Limit { offset, what: "path length" });
        }
        let size = match records.size {
            Some(size) => size,
            None => header.count(124, 12, "size")?,
        };
        let kind = kind(header, &path, size, link)?;
        if kind != Kind::File && records.size.is_some_and(|size| size > 0) {
            return Err(TarError::Ambiguous { offset, what: "a record of a size for what has no data" });
        }
        let mut entry = Entry::new(path, kind, mode(header)?);
        entry.uid = id(header, 108, records.uid, "uid")?;
        entry.gid = id(header, 116, records.gid, "gid")?;
        entry.mtime = match records.mtime {
            Some(time) => time,
            None => Time { seconds: header.number(136, 12, "mtime")?, nanos: 0 },
        };
        entry.xattrs = std::mem::take(&mut records.xattrs);
        if entry.kind == Kind::File {
            entry.size = size;
            self.set_data(size);
            self.map(header, &records, &mut entry)?;
        }
        Ok(entry)
    }

    /// Finds out whether the file is sparse, and how.
    fn map(&mut self, header: &Header, records: &Records, entry: &mut Entry) -> Result<(), TarError> {
        let offset = header.offset;
        let invalid = || TarError::Field { offset, field: "sparse map" };
        let (segments, size) = if header.kind() == b'S' {
            if records.sparse.is_present() {
                return Err(TarError::Ambiguous { offset, what: "two sparse maps" });
            }
            (self.old_map(header)?, header.count(483, 12, "real size")?)
        } else if records.sparse.is_present() {
            let (major, minor) = (records.sparse.major.unwrap_or(0), records.sparse.minor.unwrap_or(0));
            let segments = match (major, minor) {
                (0, _) if records.sparse.count.is_none_or(|n| n == records.sparse.segments.len() as u64) => {
                    records.sparse.segments.clone()
                }
                (1, 0) => self.leading_map(offset)?,
                _ => return Err(invalid()),
            };
            (segments, records.sparse.size.ok_or_else(invalid)?)
        } else {
            return Ok(());
        };
        if segments.len() > self.limits.segments {
            return Err(TarError::Limit { offset, what: "sparse segments" });
        }
        entry.size = size;
        entry.segments = Some(sparse::validate(segments, size, self.remaining).ok_or_else(invalid)?);
        Ok(())
    }

    /// The map of an old GNU sparse file: four pairs in the header, then blocks of 21.
    fn old_map(&mut self, header: &Header) -> Result<Vec<Segment>, TarError> {
        let offset = header.offset;
        let invalid = || TarError::Field { offset, field: "sparse map" };
        if header.dialect() != Dialect::Gnu {
            return Err(invalid());
        }
        let mut segments = Vec::new();
        let mut more = sparse::old_gnu(header, 386, 4, &mut segments).ok_or_else(invalid)?;
        while more {
            let block = self.block()?.ok_or(TarError::Truncated { offset: self.offset })?;
            more = sparse::old_gnu(&block, 0, 21, &mut segments).ok_or_else(invalid)?;
            if segments.len() > self.limits.segments {
                return Err(TarError::Limit { offset, what: "sparse segments" });
            }
        }
        Ok(segments)
    }

    /// The map that version 1.0 writes before the data, in whole blocks that count as data.
    fn leading_map(&mut self, offset: u64) -> Result<Vec<Segment>, TarError> {
        let mut lines = sparse::Lines::default();
        loop {
            if self.remaining < BLOCK as u64 {
                return Err(TarError::Field { offset, field: "sparse map" });
            }
            let block = self.block()?.ok_or(TarError::Truncated { offset: self.offset })?;
            self.remaining -= BLOCK as u64;
            match lines.feed(&block.bytes, self.limits.segments) {
                Fed::More => {}
                Fed::Done(segments) => return Ok(segments),
                Fed::Malformed => return Err(TarError::Field { offset, field: "sparse map" }),
            }
        }
    }
}

/// A GNU long name and a pax record that say different things are read differently by different programs.
fn one_of(gnu: Option<Vec<u8>>, pax: Option<Vec<u8>>, offset: u64) -> Result<Option<Vec<u8>>, TarError> {
    match (gnu, pax) {
        (Some(gnu), Some(pax)) if gnu != pax => Err(TarError::Ambiguous { offset, what: "two names" }),
        (gnu, pax) => Ok(gnu.or(pax)),
    }
}

fn kind(header: &Header, path: &[u8], size: u64, link: Vec<u8>) -> Result<Kind, TarError> {
    let offset = header.offset;
    let device = || -> Result<(u32, u32), TarError> {
        let part = |at, field| {
            u32::try_from(header.count(at, 8, field)?).map_err(|_| TarError::Field { offset, field })
        };
        Ok((part(329, "device major")?, part(337, "device minor")?))
    };
    // GNU tar takes such a size for data to be skipped, Go and others don't.
    if size > 0 && matches!(header.kind(), b'2' | b'3' | b'4' | b'6') {
        return Err(TarError::Ambiguous { offset, what: "a link, device or fifo with data" });
    }
    Ok(match header.kind() {
        // Before POSIX a directory was a file whose name ends in a slash.
        0 if path.ends_with(b"/") && size == 0 => Kind::Directory,
        // Go makes a file of it, GNU tar a directory.
        0 | b'0' | b'7' | b'S' if path.ends_with(b"/") => {
            return Err(TarError::Ambiguous { offset, what: "a file with a directory's name" });
        }
        0 | b'0' | b'7' | b'S' => Kind::File,
        b'1' => Kind::HardLink(link),
        b'2' => Kind::Symlink(link),
        b'3' => device().map(|(major, minor)| Kind::CharDevice { major, minor })?,
        b'4' => device().map(|(major, minor)| Kind::BlockDevice { major, minor })?,
        b'5' => Kind::Directory,
        b'6' => Kind::Fifo,
        other => return Err(TarError::Kind { offset, kind: char::from(other) }),
    })
}

fn mode(header: &Header) -> Result<u32, TarError> {
    // Some programs store the file type too; only the permission bits mean anything.
    Ok((header.count(100, 8, "mode")? & 0o7777) as u32)
}

fn id(header: &Header, at: usize, record: Option<u32>, field: &'static str) -> Result<u32, TarError> {
    let invalid = TarError::Field { offset: header.offset, field };
    let id = match record {
        Some(id) => id,
        None => match u32::try_from(header.count(at, 8, field)?) {
            Ok(id) => id,
            Err(_) => return Err(invalid),
        },
    };
    // chown takes this number for "leave it".
    if id == u32::MAX { Err(invalid) } else { Ok(id) }
}

/// The data of one entry. Reading it to the end is optional; an archive that ends before it does is
/// `UnexpectedEof`.
pub struct Data<'r, R> {
    reader: &'r mut Reader<R>,
}

impl<R: BufRead> BufRead for Data<'_, R> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        let remaining = self.reader.remaining;
        if remaining == 0 {
            return Ok(&[]);
        }
        let shown = self.reader.inner.fill_buf()?;
        if shown.is_empty() {
            return Err(TarError::Truncated { offset: self.reader.offset }.into());
        }
        let length = shown.len().min(usize::try_from(remaining).unwrap_or(usize::MAX));
        Ok(&shown[..length])
    }

    fn consume(&mut self, amount: usize) {
        self.reader.inner.consume(amount);
        self.reader.remaining -= (amount as u64).min(self.reader.remaining);
        self.reader.offset += amount as u64;
    }
}

impl<R: BufRead> Read for Data<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        crate::shown::read_shown(self, buffer)
    }
}

impl<R> std::fmt::Debug for Reader<R> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Reader").field("offset", &self.offset).finish_non_exhaustive()
    }
}

impl<R> std::fmt::Debug for Data<'_, R> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.reader.fmt(f)
    }
}
