//! An index is made while a layer passes.

use std::io::{self, BufRead, Read};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use berth_archive::{Compression, DigestReader, Entry, Hasher, Kind, Limits, Reader, Segment, TarError};
use berth_types::{Algorithm, Digest};

use super::file::{self, Index, IndexError};
use super::points::{Point, Points};
use super::tracked::Tracked;
use crate::make::{MakeError, Table};

/// Bytes of one chunk: what is decoded for one read, and verified as one.
const CHUNK: u64 = 1 << 20;
/// Bytes of the parts in which plain bytes go from one thread to the other, and how many are on their way.
const PART: usize = 256 << 10;
const DEPTH: usize = 8;

/// What is known of a layer once all of it has passed.
#[derive(Debug)]
pub struct Recorded {
    /// The index.
    pub index: Index,
    /// Its bytes, for [`Index::read`].
    pub file: Vec<u8>,
}

/// Why there is no index of a layer.
#[derive(Debug, thiserror::Error)]
pub enum RecordError {
    /// It cannot be fetched, or its compression is damaged.
    #[error("cannot read the layer")]
    Read(#[source] io::Error),
    /// It has no places where decoding could begin, as a large layer that is one frame of zstd.
    #[error("the layer can only be decoded from its beginning")]
    Whole,
    /// It is no tar.
    #[error("cannot read the layer's archive")]
    Archive(#[source] TarError),
    /// A chunk cannot be kept.
    #[error("cannot keep what the layer holds")]
    Keep(#[source] io::Error),
    /// What is in it cannot be said in a table.
    #[error("the layer's files do not fit into a table of contents")]
    Table(#[from] MakeError),
    /// What is in it cannot be mounted.
    #[error("the layer's files cannot be mounted")]
    Index(#[from] IndexError),
}

/// Reads a blob to its end, gives every chunk of every file to `keep`, and answers the index. Blocks, on two threads.
///
/// `layer` and `size` are what the blob should turn out to be: it is for the caller to see that it does, before the
/// index is used. `source` has to show four bytes at first if there are as many.
pub fn record<R: BufRead + Send>(
    source: R,
    layer: &Digest,
    size: u64,
    keep: impl FnMut(&Digest, &[u8]) -> io::Result<()>,
) -> Result<Recorded, RecordError> {
    let (parts, coming) = sync_channel(DEPTH);
    let (decoded, table) = std::thread::scope(|scope| {
        let decoder = scope.spawn(move || decode(source, &parts));
        let table = tabulate(Parts { coming, part: Vec::new(), at: 0 }, keep);
        (decoder.join(), table)
    });
    let decoded = decoded.map_err(|_| RecordError::Read(io::Error::other("a decoder ended early")))?;
    let (compression, points) = match decoded {
        Ok(decoded) => decoded,
        // Then the other side has an error of its own.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => (Compression::Plain, Vec::new()),
        Err(error) if error.kind() == io::ErrorKind::Unsupported => return Err(RecordError::Whole),
        Err(error) => return Err(RecordError::Read(error)),
    };
    let (table, diff_id, plain) = table?;
    let points = Points::new(compression, points, size, plain).ok_or(RecordError::Whole)?;
    let file = file::write(&points, layer, (size, plain), &diff_id, &table.json()?)?;
    Ok(Recorded { index: Index::read(&file, layer)?, file })
}

fn decode(source: impl BufRead, parts: &SyncSender<Vec<u8>>) -> io::Result<(Compression, Vec<Point>)> {
    let mut tracked = Tracked::new(source, Limits::default())?;
    loop {
        let mut part = Vec::with_capacity(PART);
        (&mut tracked).take(PART as u64).read_to_end(&mut part)?;
        if part.is_empty() {
            return Ok((tracked.compression(), tracked.points()));
        }
        parts.send(part).map_err(|_| io::ErrorKind::BrokenPipe)?;
    }
}

/// What a decoder gives out, as a stream.
struct Parts {
    coming: Receiver<Vec<u8>>,
    part: Vec<u8>,
    at: usize,
}

impl BufRead for Parts {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        if self.at == self.part.len() {
            self.part = self.coming.recv().unwrap_or_default();
            self.at = 0;
        }
        Ok(&self.part[self.at..])
    }

    fn consume(&mut self, amount: usize) {
        self.at = self.part.len().min(self.at + amount);
    }
}

impl Read for Parts {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        berth_archive::read_shown(self, buffer)
    }
}

/// The table of a plain tar, and its digest and size.
fn tabulate(
    tar: Parts,
    mut keep: impl FnMut(&Digest, &[u8]) -> io::Result<()>,
) -> Result<(Table, Digest, u64), RecordError> {
    let mut reader = Reader::new(DigestReader::new(tar, Algorithm::Sha256));
    let mut table = Table::default();
    while let Some(entry) = reader.next_entry().map_err(RecordError::Archive)? {
        table.add(&entry)?;
        if matches!(entry.kind, Kind::File) && entry.size > 0 {
            contents(&mut reader, &entry, &mut table, &mut keep)?;
        }
    }
    let (diff_id, plain) = reader.finish().map_err(RecordError::Archive)?.finish();
    Ok((table, diff_id, plain))
}

fn contents(
    reader: &mut Reader<impl BufRead>,
    entry: &Entry,
    table: &mut Table,
    keep: &mut impl FnMut(&Digest, &[u8]) -> io::Result<()>,
) -> Result<(), RecordError> {
    let whole = [Segment { offset: 0, length: entry.size }];
    let segments = entry.segments.as_deref().unwrap_or(&whole);
    let (mut at, mut chunk) = (0, Vec::new());
    for segment in segments.iter().filter(|segment| segment.length > 0) {
        if segment.offset > at {
            table.chunk((0, 0), at..segment.offset, None);
        }
        at = segment.offset;
        let end = segment.offset + segment.length;
        while at < end {
            let (place, size) = (reader.offset(), CHUNK.min(end - at));
            chunk.clear();
            let read = reader.data().take(size).read_to_end(&mut chunk);
            if read.map_err(RecordError::Read)? as u64 != size {
                return Err(RecordError::Read(io::ErrorKind::UnexpectedEof.into()));
            }
            let digest = Hasher::digest(&chunk);
            keep(&digest, &chunk).map_err(RecordError::Keep)?;
            table.chunk((place, 0), at..at + size, Some(digest));
            at += size;
        }
    }
    if at < entry.size {
        table.chunk((0, 0), at..entry.size, None);
    }
    Ok(())
}
