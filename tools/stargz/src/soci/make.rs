//! A zTOC is made of a blob, in one pass.

use std::io::{self, BufReader, Read};

use berth_archive::{Compression, Entry, Hasher, Kind, Reader, TarError};
use berth_types::Digest;

use super::passing::Passing;
use super::ztoc::{File, Written, XATTR};
use super::{ZtocError, checkpoints};
use crate::chunk::CHUNK_LIMIT;
use crate::make::time;

/// Bytes of the tar between two places where decoding can begin, as soci-snapshotter has them.
pub const SPAN: u64 = 4 << 20;

/// Bytes of the tar that are decoded before they are looked at.
const ROOM: usize = 256 << 10;

/// Reads a blob of gzip or a plain tar to its end and answers its zTOC, with `span` bytes of the tar between two places
/// where decoding can begin, and `tool` as what has made it. Blocks.
pub fn make(mut source: impl Read, span: u64, tool: &str) -> Result<Vec<u8>, ZtocError> {
    if span == 0 || span > CHUNK_LIMIT / 2 {
        return Err(ZtocError::Spans("they are too large or have no size"));
    }
    let mut start = Vec::new();
    let magic = (&mut source).take(Compression::MAGIC_LENGTH as u64).read_to_end(&mut start);
    magic.map_err(ZtocError::Read)?;
    let source = (&start[..]).chain(source);
    match Compression::detect(&start) {
        Compression::Zstd => Err(ZtocError::Zstd),
        Compression::Gzip => {
            let Tabulated { stream, files, plain } = tabulate(Passing::new(source, span))?;
            let (points, digests, blob) = stream.finish();
            let places = checkpoints::write_gzip(&points, span).map_err(ZtocError::Read)?;
            let (files, digests, places) = (&files, &digests, &places);
            Written { tool, sizes: (blob, plain), files, is_gzip: true, digests, places }.bytes()
        }
        Compression::Plain => {
            let Tabulated { stream, files, plain } = tabulate(Cut::new(source, span))?;
            let (digests, size) = stream.finish();
            if size == 0 {
                return Err(ZtocError::Spans("the layer has no bytes"));
            }
            let places = checkpoints::write_plain(span, size)?;
            let (files, digests, places) = (&files, &digests, &places);
            Written { tool, sizes: (size, plain), files, is_gzip: false, digests, places }.bytes()
        }
    }
}

/// A plain tar, cut into spans of the same size.
struct Cut<R> {
    source: R,
    span: u64,
    at: u64,
    hasher: Hasher,
    digests: Vec<Digest>,
}

impl<R> Cut<R> {
    fn new(source: R, span: u64) -> Self {
        Self { source, span, at: 0, hasher: Hasher::default(), digests: Vec::new() }
    }

    fn finish(mut self) -> (Vec<Digest>, u64) {
        if !self.at.is_multiple_of(self.span) {
            self.digests.push(self.hasher.finish());
        }
        (self.digests, self.at)
    }
}

impl<R: Read> Read for Cut<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let left = self.span - self.at % self.span;
        let left = usize::try_from(left).unwrap_or(usize::MAX).min(buffer.len());
        let length = self.source.read(&mut buffer[..left])?;
        self.hasher.update(&buffer[..length]);
        self.at += length as u64;
        if length > 0 && self.at.is_multiple_of(self.span) {
            self.digests.push(std::mem::take(&mut self.hasher).finish());
        }
        Ok(length)
    }
}

/// What a tar holds, once it has been read to its end.
struct Tabulated<R> {
    stream: R,
    files: Vec<File>,
    /// Its bytes, without what it is filled up with.
    plain: u64,
}

fn tabulate<R: Read>(stream: R) -> Result<Tabulated<R>, ZtocError> {
    let mut reader = Reader::new(BufReader::with_capacity(ROOM, stream));
    let mut files = Vec::new();
    while let Some(entry) = reader.next_entry().map_err(refused)? {
        files.push(file(entry, reader.offset())?);
    }
    let plain = reader.offset();
    let stream = reader.finish().map_err(refused)?.into_inner();
    Ok(Tabulated { stream, files, plain })
}

fn refused(error: TarError) -> ZtocError {
    match error {
        TarError::Read { source, .. } if source.kind() == io::ErrorKind::Unsupported => ZtocError::Whole,
        TarError::Read { source, .. } => ZtocError::Read(source),
        error => ZtocError::Archive(error),
    }
}

fn file(entry: Entry, offset: u64) -> Result<File, ZtocError> {
    if entry.segments.is_some() {
        return Err(ZtocError::Sparse(String::from_utf8_lossy(&entry.path).into_owned()));
    }
    let record = |(name, value): (Vec<u8>, _)| ([XATTR.as_bytes(), &name].concat(), value);
    let mut file = File {
        name: entry.path,
        offset,
        size: entry.size,
        mode: entry.mode,
        uid: entry.uid,
        gid: entry.gid,
        mtime: time(entry.mtime),
        xattrs: entry.xattrs.into_iter().map(record).collect(),
        ..File::default()
    };
    file.kind = match entry.kind {
        Kind::File => "reg",
        Kind::Directory => "dir",
        Kind::Fifo => "fifo",
        Kind::HardLink(target) => {
            file.link = target;
            "hardlink"
        }
        Kind::Symlink(target) => {
            file.link = target;
            "symlink"
        }
        Kind::CharDevice { major, minor } => {
            file.device = (major, minor);
            "char"
        }
        Kind::BlockDevice { major, minor } => {
            file.device = (major, minor);
            "block"
        }
    };
    file.xattrs.sort_unstable();
    Ok(file)
}
