//! Making such a layer: a plain tar in, the blob and what its descriptor says out.
//!
//! ```text
//!   tar ─▶ order: what is wanted first, the landmark, the rest ─▶ streams, each with its place ─▶ table ─▶ footer
//! ```
//! The tar that the blob decompresses to is another one than came in: its files are in another order, and there are a
//! landmark and, in eStargz, the table. So the layer has another diff id, and its image another configuration.

mod contents;
mod order;
mod streams;
mod table;

use std::collections::BTreeMap;
use std::io::{self, Read, Seek, SeekFrom, Write};

use berth_archive::{Entry, Hasher, Kind, TarError, Writer};
use berth_types::Digest;

use self::contents::Contents;
use self::order::Item;
use self::streams::Streams;
pub(crate) use self::table::{Table, time};
use crate::chunk::CHUNK_LIMIT;
use crate::position::annotation;
use crate::{Format, LANDMARK, NO_LANDMARK};

/// Bytes of a chunk unless somebody says otherwise, as in stargz-snapshotter.
const CHUNK: u64 = 4 << 20;
/// What a landmark holds.
const LANDMARK_BYTE: u8 = 0xf;

/// How a layer is to be made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Making {
    /// eStargz or zstd:chunked.
    pub format: Format,
    /// Of the compression; none means 9 of gzip and 3 of zstd, as nerdctl has it.
    pub level: Option<u32>,
    /// Bytes of a file that are one chunk; 0 means 4 MiB.
    pub chunk_size: u64,
    /// Bytes, uncompressed, up to which chunks share a compressed stream; 0 means that each has its own.
    pub min_chunk_size: u64,
    /// Paths of files that are wanted first, in this order. Those that the layer does not have are passed over.
    pub first: Vec<Vec<u8>>,
}

impl Making {
    /// The usual settings.
    pub fn new(format: Format) -> Self {
        Self { format, level: None, chunk_size: 0, min_chunk_size: 0, first: Vec::new() }
    }
}

/// What was made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Made {
    /// The digest of the tar in it.
    pub diff_id: Digest,
    /// What the layer's descriptor has to say.
    pub annotations: BTreeMap<String, String>,
    /// Which of the files that were wanted first are in it, by their clean paths.
    pub first: Vec<Vec<u8>>,
}

/// Why a layer cannot be made so.
#[derive(Debug, thiserror::Error)]
pub enum MakeError {
    /// The tar is not one, or cannot be read or written.
    #[error("cannot make another archive of the layer")]
    Archive(#[from] TarError),
    /// Reading or writing failed.
    #[error("cannot read or write the layer")]
    Io(#[from] io::Error),
    /// A table of contents is JSON, which has no bytes beyond UTF-8.
    #[error("a table of contents cannot hold the name {0:?}, which is not UTF-8")]
    Name(String),
    /// A setting is beyond what readers take.
    #[error("a chunk of {0} bytes is too large: {CHUNK_LIMIT} is the most")]
    Chunk(u64),
}

/// Makes a layer of a plain tar. Blocking.
pub fn make<R: Read + Seek, W: Write>(mut tar: R, out: W, making: &Making) -> Result<(W, Made), MakeError> {
    if making.chunk_size > CHUNK_LIMIT || making.min_chunk_size > CHUNK_LIMIT {
        return Err(MakeError::Chunk(making.chunk_size.max(making.min_chunk_size)));
    }
    tar.seek(SeekFrom::Start(0))?;
    let items = order::items(&mut tar)?;
    let (first, rest) = order::order(items, &making.first);
    let mut work = Work {
        tar,
        archive: Writer::new(Streams::new(out, making.format, making.level)),
        table: Table::default(),
        chunk: if making.chunk_size == 0 { CHUNK } else { making.chunk_size },
        together: making.min_chunk_size,
    };
    first.iter().try_for_each(|item| work.item(item))?;
    work.landmark(if first.is_empty() { NO_LANDMARK } else { LANDMARK })?;
    rest.iter().try_for_each(|item| work.item(item))?;
    let is_file = |item: &Item| matches!(item.entry.kind, Kind::File).then(|| item.path.clone());
    work.finish(making.format, first.iter().filter_map(is_file).collect())
}

struct Work<R, W: Write> {
    tar: R,
    archive: Writer<Streams<W>>,
    table: Table,
    chunk: u64,
    together: u64,
}

impl<R: Read + Seek, W: Write> Work<R, W> {
    fn item(&mut self, item: &Item) -> Result<(), MakeError> {
        if !matches!(item.entry.kind, Kind::File) || item.entry.size == 0 {
            self.archive.append(&item.entry)?;
            return self.table.add(&item.entry);
        }
        self.tar.seek(SeekFrom::Start(item.data))?;
        // What is read is the whole file.
        let entry = Entry { segments: None, ..item.entry.clone() };
        self.archive.append(&entry)?;
        self.table.add(&entry)?;
        let mut contents = Contents::new(&mut self.tar, &item.entry);
        let mut whole = Hasher::default();
        let (mut at, mut chunk) = (0, Vec::new());
        while at < entry.size {
            chunk.clear();
            let size = self.chunk.min(entry.size - at);
            if (&mut contents).take(size).read_to_end(&mut chunk)? as u64 != size {
                return Err(MakeError::Io(io::ErrorKind::UnexpectedEof.into()));
            }
            whole.update(&chunk);
            let place = self.archive.inner_mut().place(self.together)?;
            self.archive.write_all(&chunk)?;
            self.table.chunk(place, at..at + size, Some(Hasher::digest(&chunk)));
            at += size;
        }
        self.table.close(whole.finish());
        Ok(())
    }

    /// What comes first ends here: the landmark begins a stream of its own.
    fn landmark(&mut self, name: &[u8]) -> Result<(), MakeError> {
        let entry = Entry { size: 1, ..Entry::new(name, Kind::File, 0o644) };
        self.archive.append(&entry)?;
        self.table.add(&entry)?;
        let place = self.archive.inner_mut().place(0)?;
        self.archive.write_all(&[LANDMARK_BYTE])?;
        let digest = Hasher::digest(&[LANDMARK_BYTE]);
        self.table.chunk(place, 0..1, Some(digest.clone()));
        self.table.close(digest);
        Ok(())
    }

    fn finish(mut self, format: Format, first: Vec<Vec<u8>>) -> Result<(W, Made), MakeError> {
        self.archive.end_entry()?;
        let json = self.table.json()?;
        let mut annotations =
            BTreeMap::from([(annotation::TOC_DIGEST.to_owned(), Hasher::digest(&json).to_string())]);
        let streams = if format == Format::Gzip {
            self.archive.inner_mut().cut()?;
            let name = table::NAME;
            self.archive.append(&Entry { size: json.len() as u64, ..Entry::new(name, Kind::File, 0o644) })?;
            let (at, _) = self.archive.inner_mut().here();
            self.archive.write_all(&json)?;
            let mut streams = self.archive.finish()?;
            streams.cut()?;
            streams.raw(&table::gzip_footer(at))?;
            streams
        } else {
            let mut streams = self.archive.finish()?;
            streams.cut()?;
            let table = table::zstd(&json, streams.written())?;
            streams.raw(&table.bytes)?;
            let [position, checksum] = [annotation::ZSTD_POSITION[0], annotation::ZSTD_CHECKSUM[0]];
            annotations.insert(position.to_owned(), table.position);
            annotations.insert(checksum.to_owned(), table.checksum);
            streams
        };
        let (out, diff_id, plain) = streams.finish()?;
        annotations.insert(annotation::UNCOMPRESSED_SIZE.to_owned(), plain.to_string());
        Ok((out, Made { diff_id, annotations, first }))
    }
}
