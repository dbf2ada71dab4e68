//! A zTOC, from its bytes and to them.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use berth_archive::Hasher;
use berth_types::Digest;

use super::flat::{Buffer, Field, Table, Writer};
use super::name::name;
use super::{Spans, ZtocError, checkpoints};
use crate::builder::Builder;
use crate::entry::Entry;
use crate::{Layer, StargzError};

/// What all zTOCs call themselves.
const VERSION: &[u8] = b"0.9";
/// Compressions, as the schema numbers them; it is the first one if none is said.
const GZIP: u8 = 1;
const PLAIN: u8 = 2;
/// Records of a pax header that are extended attributes, and those that make a file sparse.
pub(super) const XATTR: &str = "SCHILY.xattr.";
const SPARSE: &[u8] = b"GNU.sparse.";

/// Fields of the tables, as the schema orders them.
mod field {
    pub(super) const BLOB_SIZE: usize = 2;
    pub(super) const TAR_SIZE: usize = 3;
    pub(super) const FILES: usize = 4;
    pub(super) const SPANS: usize = 5;
    /// Of the files.
    pub(super) const LIST: usize = 0;
    pub(super) const NAME: usize = 0;
    pub(super) const TYPE: usize = 1;
    pub(super) const OFFSET: usize = 2;
    pub(super) const SIZE: usize = 3;
    pub(super) const LINK: usize = 4;
    pub(super) const MODE: usize = 5;
    pub(super) const UID: usize = 6;
    pub(super) const GID: usize = 7;
    pub(super) const MTIME: usize = 10;
    pub(super) const MAJOR: usize = 11;
    pub(super) const MINOR: usize = 12;
    pub(super) const RECORDS: usize = 13;
    /// Of the spans.
    pub(super) const COMPRESSION: usize = 0;
    pub(super) const LAST: usize = 1;
    pub(super) const DIGESTS: usize = 2;
    pub(super) const PLACES: usize = 3;
}

/// The zTOC of a layer, read.
#[derive(Debug)]
pub struct Ztoc {
    /// The layer's files.
    pub layer: Layer,
    /// Bytes of its blob.
    pub size: u64,
}

impl Ztoc {
    /// Reads one, which has to have this digest.
    pub fn read(bytes: &[u8], expected: &Digest) -> Result<Self, ZtocError> {
        let mut hasher = Hasher::new(expected.algorithm());
        hasher.update(bytes);
        let actual = hasher.finish();
        if actual != *expected {
            return Err(ZtocError::Digest { expected: expected.clone(), actual });
        }
        let buffer = Buffer::new(bytes);
        let root = buffer.root()?;
        let (size, plain) = (count(root, field::BLOB_SIZE)?, count(root, field::TAR_SIZE)?);
        let spans = root.table(field::SPANS)?.ok_or(ZtocError::Malformed)?;
        let spans = read_spans(spans, (size, plain))?;
        let files = root.table(field::FILES)?.ok_or(ZtocError::Malformed)?;
        let files = files.vector(field::LIST)?.tables();
        let files = files.map(|file| file.and_then(|file| Ok((count(file, field::OFFSET)?, file))));
        let mut files = files.collect::<Result<Vec<_>, _>>()?;
        // As they come in the tar.
        files.sort_by_key(|(offset, _)| *offset);
        let mut builder = Builder::new();
        for (_, file) in files {
            add(&mut builder, file, &spans, expected)?;
        }
        Ok(Self { layer: builder.finish_spans(spans)?, size })
    }
}

fn read_spans(table: Table, (size, plain): (u64, u64)) -> Result<Spans, ZtocError> {
    let mut digests = Vec::new();
    for text in table.vector(field::DIGESTS)?.strings() {
        let digest = std::str::from_utf8(text?).ok().and_then(|text| text.parse().ok());
        digests.push(digest.ok_or(ZtocError::Spans("a digest is none"))?);
    }
    if u64::from(table.int(field::LAST)?) + 1 != digests.len() as u64 {
        return Err(ZtocError::Spans("there is not one digest for each"));
    }
    let places = table.bytes(field::PLACES)?;
    match table.byte(field::COMPRESSION)? {
        None | Some(GZIP) => Spans::gzip(checkpoints::read_gzip(places)?, digests, (size, plain)),
        // What the tar ends with is filled up, and that is not counted.
        Some(PLAIN) => Spans::plain(checkpoints::read_plain(places)?, digests, size),
        Some(_) => Err(ZtocError::Spans("the compression is not known")),
    }
}

/// Adds a file, in parts that lie within one span each.
fn add(builder: &mut Builder, file: Table, spans: &Spans, ztoc: &Digest) -> Result<(), ZtocError> {
    let entry = entry(file)?;
    let (begin, size) = (count(file, field::OFFSET)?, entry.size);
    if entry.kind != "reg" || size == 0 {
        return Ok(builder.add(&entry)?);
    }
    let end = begin.checked_add(size).ok_or(ZtocError::Malformed)?;
    let name_of = entry.name.clone();
    let mut first = Some(entry);
    for part in spans.parts(begin..end) {
        let chunk = || Entry { name: name_of.clone(), kind: "chunk".to_owned(), ..Entry::default() };
        let mut entry = first.take().unwrap_or_else(chunk);
        entry.offset = part.start;
        (entry.chunk_offset, entry.chunk_size) = (part.start - begin, part.end - part.start);
        entry.chunk_digest = Some(name(ztoc, &part));
        builder.add(&entry)?;
    }
    Ok(())
}

/// What a zTOC says of a file, as other tables do.
fn entry(file: Table) -> Result<Entry, ZtocError> {
    let string = |field| text(file.bytes(field)?);
    let path = string(field::NAME)?;
    let mut xattrs = BTreeMap::new();
    for record in file.vector(field::RECORDS)?.tables() {
        let record = record?;
        let (key, value) = (record.bytes(0)?, record.bytes(1)?);
        if key.starts_with(SPARSE) {
            return Err(ZtocError::Sparse(path));
        }
        if let Some(name) = key.strip_prefix(XATTR.as_bytes()) {
            xattrs.insert(text(name)?, STANDARD.encode(value));
        }
    }
    let device = |field| u32::try_from(file.long(field)?).map_err(|_| ZtocError::Malformed);
    Ok(Entry {
        name: path,
        kind: string(field::TYPE)?,
        size: count(file, field::SIZE)?,
        modtime: string(field::MTIME)?,
        link_name: string(field::LINK)?,
        mode: file.long(field::MODE)?,
        uid: file.int(field::UID)?,
        gid: file.int(field::GID)?,
        dev_major: device(field::MAJOR)?,
        dev_minor: device(field::MINOR)?,
        xattrs,
        ..Entry::default()
    })
}

fn count(table: Table, field: usize) -> Result<u64, ZtocError> {
    u64::try_from(table.long(field)?).map_err(|_| ZtocError::Malformed)
}

fn text(bytes: &[u8]) -> Result<String, ZtocError> {
    let wrong = || StargzError::entry(&String::from_utf8_lossy(bytes), "its name is not UTF-8");
    Ok(std::str::from_utf8(bytes).map_err(|_| wrong())?.to_owned())
}

/// A file as it is written.
#[derive(Debug, Default)]
pub(super) struct File {
    pub(super) name: Vec<u8>,
    pub(super) kind: &'static str,
    /// Where its data begins in the tar, or its header ends.
    pub(super) offset: u64,
    pub(super) size: u64,
    pub(super) link: Vec<u8>,
    pub(super) mode: u32,
    pub(super) uid: u32,
    pub(super) gid: u32,
    pub(super) mtime: String,
    pub(super) device: (u32, u32),
    /// By their names as records of a pax header.
    pub(super) xattrs: Vec<(Vec<u8>, Vec<u8>)>,
}

/// What is written.
pub(super) struct Written<'w> {
    pub(super) tool: &'w str,
    /// Bytes of the blob and of the tar.
    pub(super) sizes: (u64, u64),
    pub(super) files: &'w [File],
    pub(super) is_gzip: bool,
    pub(super) digests: &'w [Digest],
    /// See [`checkpoints`].
    pub(super) places: &'w [u8],
}

impl Written<'_> {
    /// The bytes.
    pub(super) fn bytes(&self) -> Result<Vec<u8>, ZtocError> {
        use Field::{Byte, Int, Later, Long};
        let (mut writer, root) = Writer::new();
        let (blob, tar) = self.sizes;
        let slots = writer.table(root, &[Later, Later, Long(blob as i64), Long(tar as i64), Later, Later]);
        let mut slots = slots.into_iter();
        let mut next = || slots.next().ok_or(ZtocError::Malformed);
        let (version, tool, files, spans) = (next()?, next()?, next()?, next()?);
        writer.string(version, VERSION);
        writer.string(tool, self.tool.as_bytes());
        for list in writer.table(files, &[Later]) {
            let slots = writer.vector(list, self.files.len());
            for (slot, file) in slots.into_iter().zip(self.files) {
                file.write(&mut writer, slot);
            }
        }
        let last = u32::try_from(self.digests.len()).map_err(|_| ZtocError::Large)?.saturating_sub(1);
        let kind = if self.is_gzip { GZIP } else { PLAIN };
        let slots = writer.table(spans, &[Byte(kind), Int(last), Later, Later]);
        if let [digests, places] = slots[..] {
            let slots = writer.vector(digests, self.digests.len());
            for (slot, digest) in slots.into_iter().zip(self.digests) {
                writer.string(slot, digest.as_str().as_bytes());
            }
            writer.string(places, self.places);
        }
        writer.finish()
    }
}

impl File {
    fn write(&self, writer: &mut Writer, slot: super::flat::Slot) {
        use Field::{Int, Later, Long};
        let (major, minor) = self.device;
        let fields = [
            Later,
            Later,
            Long(self.offset as i64),
            Long(self.size as i64),
            Later,
            Long(self.mode.into()),
            Int(self.uid),
            Int(self.gid),
            Later,
            Later,
            Later,
            Long(major.into()),
            Long(minor.into()),
            Later,
        ];
        let slots = writer.table(slot, &fields);
        let [name, kind, link, user, group, mtime, records] = slots[..] else { return };
        let kind_of = self.kind.as_bytes();
        let texts = [&self.name[..], kind_of, &self.link, b"", b"", self.mtime.as_bytes()];
        for (slot, text) in [name, kind, link, user, group, mtime].into_iter().zip(texts) {
            writer.string(slot, text);
        }
        let slots = writer.vector(records, self.xattrs.len());
        for (slot, (key, value)) in slots.into_iter().zip(&self.xattrs) {
            for (slot, text) in writer.table(slot, &[Later, Later]).into_iter().zip([key, value]) {
                writer.string(slot, text);
            }
        }
    }
}
