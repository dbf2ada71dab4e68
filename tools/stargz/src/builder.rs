//! Entries of a table, one after the other, as a tree.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use berth_archive::{Time, Whiteout, clean, parent};
use berth_types::Digest;

use crate::chunk::{CHUNK_LIMIT, Chunk, Coding, Stored};
use crate::entry::Entry;
use crate::plain::Points;
use crate::soci::Spans;
use crate::tree::{Kind, Layer, Node, NodeId, Prefetch, ROOT};
use crate::{LANDMARK, NO_LANDMARK, Position, StargzError};

const NODES: usize = 1 << 20;
const CHUNKS: usize = 1 << 21;
/// Bytes of a path and of a symlink's text (`PATH_MAX`), and of a name (`NAME_MAX`).
const PATH: usize = 4096;
const NAME: usize = 255;
/// xattr(7).
const XATTR_NAME: usize = 255;
const XATTR_VALUE: usize = 64 << 10;
/// How often hard links to hard links that come later are looked at again.
const LINK_ROUNDS: usize = 8;

const TABLE: &[u8] = b"stargz.index.json";

/// How overlayfs knows a directory that hides those below it.
const OPAQUE: (&[u8], &[u8]) = (b"trusted.overlay.opaque", b"y");

/// A tree that grows.
pub(crate) struct Builder {
    nodes: Vec<Draft>,
    chunks: Vec<Chunk>,
    /// The file whose chunks come.
    open: Option<OpenFile>,
    /// Hard links whose targets may come later.
    links: Vec<(Vec<u8>, Vec<u8>)>,
    /// What lower layers have and this one hides.
    hidden: Vec<(NodeId, Box<[u8]>)>,
    prefetch: Prefetch,
}

struct Draft {
    node: Node,
    children: BTreeMap<Box<[u8]>, NodeId>,
}

struct OpenFile {
    /// None for a landmark, of which nothing is kept.
    node: Option<NodeId>,
    size: u64,
    filled: u64,
    digest: Option<Digest>,
    first: usize,
}

impl Builder {
    pub(crate) fn new() -> Self {
        let kind = Kind::Directory { parent: ROOT, children: Vec::new() };
        // Whose the root is is the snapshotter's to say, as when a layer is unpacked.
        let root = Draft { node: plain(kind, 0o755), children: BTreeMap::new() };
        Self {
            nodes: vec![root],
            chunks: Vec::new(),
            open: None,
            links: Vec::new(),
            hidden: Vec::new(),
            prefetch: Prefetch::Unsaid,
        }
    }

    /// Takes the next entry.
    pub(crate) fn add(&mut self, entry: &Entry) -> Result<(), StargzError> {
        if entry.kind == "chunk" {
            return self.add_chunk(entry);
        }
        self.close_file(&entry.name)?;
        let wrong = |why| StargzError::entry(&entry.name, why);
        if entry.name.contains('\0') || entry.link_name.contains('\0') {
            return Err(wrong("there is a zero in its name"));
        }
        if entry.name.len() > PATH || entry.link_name.len() >= PATH {
            return Err(wrong("its name is too long"));
        }
        let path = clean(entry.name.as_bytes());
        let (folder, name) = parent(&path);
        if name.is_empty() {
            self.nodes[ROOT as usize].node.mtime = entry.mtime();
            return if entry.kind == "dir" { Ok(()) } else { Err(wrong("the root is no directory")) };
        }
        if name.len() > NAME {
            return Err(wrong("its name is too long"));
        }
        if folder.is_empty() && matches!(name, LANDMARK | NO_LANDMARK | TABLE) {
            return self.mark(name, entry);
        }
        let directory = self.directory(folder, &entry.name)?;
        match Whiteout::parse(name) {
            None => self.make(directory, name, entry),
            Some(Whiteout::Aufs) => self.ignore(entry),
            Some(Whiteout::Invalid) => Err(wrong("no whiteout can have that name")),
            Some(Whiteout::Opaque) if directory == ROOT => Err(wrong("overlayfs has no opaque root")),
            Some(Whiteout::Opaque) => {
                self.make_opaque(directory);
                self.ignore(entry)
            }
            Some(Whiteout::Name(hidden)) => {
                self.hidden.push((directory, hidden.into()));
                self.ignore(entry)
            }
        }
    }

    /// The layer, once every entry is there.
    pub(crate) fn finish(mut self, position: &Position) -> Result<Layer, StargzError> {
        end_ranges(&mut self.chunks, position.payload_end)?;
        self.layer(Coding::Streams(position.format))
    }

    /// The layer of an index, whose offsets are counted in the tar. What a landmark says of them is of no use.
    pub(crate) fn finish_points(mut self, points: Points) -> Result<Layer, StargzError> {
        self.locate(|wanted| points.locate(wanted))?;
        self.layer(Coding::Points(Arc::new(points)))
    }

    /// The layer of a zTOC, likewise. Each chunk has to be within a span.
    pub(crate) fn finish_spans(mut self, spans: Spans) -> Result<Layer, StargzError> {
        self.locate(|wanted| spans.locate(wanted))?;
        self.layer(Coding::Spans(Arc::new(spans)))
    }

    /// Finds the ranges of the blob, and what comes before the data in what they make.
    fn locate(&mut self, place: impl Fn(Range<u64>) -> Option<(Range<u64>, u64)>) -> Result<(), StargzError> {
        for chunk in &mut self.chunks {
            let Some(Stored { range, skip, .. }) = &mut chunk.stored else { continue };
            let begin = range.start.checked_add(*skip);
            let wanted = begin.and_then(|begin| Some(begin..begin.checked_add(chunk.size)?));
            (*range, *skip) = wanted.and_then(&place).ok_or_else(|| {
                StargzError::Position(format!("data begins at byte {} of the archive", range.start))
            })?;
        }
        self.prefetch = Prefetch::Unsaid;
        Ok(())
    }

    fn layer(mut self, coding: Coding) -> Result<Layer, StargzError> {
        self.close_file("")?;
        self.resolve_links()?;
        self.hide()?;
        self.count_links();
        let nodes = self.nodes.into_iter().map(|Draft { mut node, children: all }| {
            if let Kind::Directory { children, .. } = &mut node.kind {
                *children = all.into_iter().collect();
            }
            node
        });
        Ok(Layer { coding, nodes: nodes.collect(), chunks: self.chunks, prefetch: self.prefetch })
    }

    /// A file at the root that is not the image's.
    fn mark(&mut self, name: &[u8], entry: &Entry) -> Result<(), StargzError> {
        match name {
            LANDMARK => self.prefetch = Prefetch::UpTo(entry.offset),
            NO_LANDMARK => self.prefetch = Prefetch::Nothing,
            _ => {}
        }
        self.ignore(entry)
    }

    /// Passes over the data of an entry that makes no file.
    fn ignore(&mut self, entry: &Entry) -> Result<(), StargzError> {
        if entry.kind == "reg" { self.open_file(None, entry) } else { Ok(()) }
    }

    fn make(&mut self, directory: NodeId, name: &[u8], entry: &Entry) -> Result<(), StargzError> {
        let wrong = |why| StargzError::entry(&entry.name, why);
        let (major, minor) = (entry.dev_major, entry.dev_minor);
        let kind = match entry.kind.as_str() {
            "dir" => Kind::Directory { parent: directory, children: Vec::new() },
            "reg" => Kind::File { size: entry.size, chunks: 0..0 },
            "symlink" if entry.link_name.is_empty() => return Err(wrong("it leads nowhere")),
            "symlink" => Kind::Symlink(entry.link_name.as_bytes().into()),
            "char" => Kind::CharDevice { major, minor },
            "block" => Kind::BlockDevice { major, minor },
            "fifo" => Kind::Fifo,
            "hardlink" => {
                let path = clean(entry.name.as_bytes());
                self.links.push((path, clean(entry.link_name.as_bytes())));
                return Ok(());
            }
            _ => return Err(wrong("its type is not known")),
        };
        let is_file = matches!(kind, Kind::File { .. });
        let node = node(kind, entry)?;
        // A directory that is there already stays, with what is in it.
        if let (Some(there), Kind::Directory { .. }) = (self.child(directory, name), &node.kind)
            && matches!(self.nodes[there as usize].node.kind, Kind::Directory { .. })
        {
            let opaque = self.nodes[there as usize].node.xattrs.remove(OPAQUE.0);
            self.nodes[there as usize].node = node;
            if opaque.is_some() {
                self.make_opaque(there);
            }
            return Ok(());
        }
        let id = self.push(node)?;
        self.nodes[directory as usize].children.insert(name.into(), id);
        if is_file { self.open_file(Some(id), entry) } else { Ok(()) }
    }

    fn push(&mut self, node: Node) -> Result<NodeId, StargzError> {
        if self.nodes.len() >= NODES {
            return Err(StargzError::TooMany("files"));
        }
        self.nodes.push(Draft { node, children: BTreeMap::new() });
        Ok(self.nodes.len() as NodeId - 1)
    }

    fn child(&self, directory: NodeId, name: &[u8]) -> Option<NodeId> {
        self.nodes[directory as usize].children.get(name).copied()
    }

    /// The directory at a clean path; what no entry tells of is made.
    fn directory(&mut self, folder: &[u8], path: &str) -> Result<NodeId, StargzError> {
        let mut at = ROOT;
        for name in folder.split(|byte| *byte == b'/').filter(|name| !name.is_empty()) {
            if name.len() > NAME {
                return Err(StargzError::entry(path, "a name above it is too long"));
            }
            at = match self.child(at, name) {
                Some(next) if matches!(self.nodes[next as usize].node.kind, Kind::Directory { .. }) => next,
                // Unpacking would follow a link here; who makes such tables writes where the link leads.
                Some(_) => return Err(StargzError::entry(path, "what is above it is no directory")),
                None => {
                    let kind = Kind::Directory { parent: at, children: Vec::new() };
                    let made = self.push(plain(kind, 0o755))?;
                    self.nodes[at as usize].children.insert(name.into(), made);
                    made
                }
            };
        }
        Ok(at)
    }

    fn make_opaque(&mut self, directory: NodeId) {
        let (name, value) = OPAQUE;
        self.nodes[directory as usize].node.xattrs.insert(name.into(), value.into());
    }

    fn open_file(&mut self, node: Option<NodeId>, entry: &Entry) -> Result<(), StargzError> {
        let (size, digest) = (entry.size, entry.digest.clone());
        self.open = Some(OpenFile { node, size, filled: 0, digest, first: self.chunks.len() });
        if size > 0 { self.add_chunk(entry) } else { Ok(()) }
    }

    fn add_chunk(&mut self, entry: &Entry) -> Result<(), StargzError> {
        let wrong = |why| Err(StargzError::entry(&entry.name, why));
        let Some(file) = &mut self.open else { return wrong("a chunk follows no file") };
        let rest = file.size - file.filled;
        let size = if entry.chunk_size == 0 { rest } else { entry.chunk_size };
        if entry.chunk_offset != file.filled || size == 0 || size > rest {
            return wrong("its chunks do not follow one another");
        }
        let stored = if entry.chunk_type == "zeros" {
            None
        } else if size > CHUNK_LIMIT || entry.inner_offset > CHUNK_LIMIT {
            return wrong("a chunk of it is too large");
        } else {
            let whole = (size == file.size).then(|| file.digest.clone()).flatten();
            let digest = entry.chunk_digest.clone().or(whole);
            let digest = digest.ok_or_else(|| StargzError::Unverifiable { path: entry.name.clone() })?;
            // Where it ends at the latest is known once all entries are.
            let range = entry.offset..u64::MAX;
            Some(Stored { range, skip: entry.inner_offset, digest })
        };
        if self.chunks.len() >= CHUNKS {
            return Err(StargzError::TooMany("chunks"));
        }
        self.chunks.push(Chunk { offset: file.filled, size, stored });
        file.filled += size;
        Ok(())
    }

    /// Ends the file whose chunks came.
    fn close_file(&mut self, next: &str) -> Result<(), StargzError> {
        let Some(OpenFile { node, size, filled, first, .. }) = self.open.take() else { return Ok(()) };
        if filled != size {
            return Err(StargzError::entry(next, "the file before it lacks chunks"));
        }
        let Some(node) = node else {
            self.chunks.truncate(first);
            return Ok(());
        };
        let chunks: Range<u32> = first as u32..self.chunks.len() as u32;
        self.nodes[node as usize].node.kind = Kind::File { size, chunks };
        Ok(())
    }

    /// Gives files their other names.
    fn resolve_links(&mut self) -> Result<(), StargzError> {
        let mut links = std::mem::take(&mut self.links);
        for _ in 0..LINK_ROUNDS {
            let mut later = Vec::new();
            for (path, target) in links {
                let Some(node) = self.find(&target) else {
                    later.push((path, target));
                    continue;
                };
                let text = || String::from_utf8_lossy(&path).into_owned();
                if matches!(self.nodes[node as usize].node.kind, Kind::Directory { .. }) {
                    return Err(StargzError::entry(&text(), "it is a hard link to a directory"));
                }
                let (folder, name) = parent(&path);
                let directory = self.directory(folder, &text())?;
                self.nodes[directory as usize].children.insert(name.into(), node);
            }
            if later.is_empty() {
                return Ok(());
            }
            links = later;
        }
        let path = links.first().map(|(path, _)| String::from_utf8_lossy(path).into_owned());
        Err(StargzError::entry(&path.unwrap_or_default(), "it is a hard link to what is not there"))
    }

    fn find(&self, path: &[u8]) -> Option<NodeId> {
        let mut names = path.split(|byte| *byte == b'/').filter(|name| !name.is_empty());
        names.try_fold(ROOT, |at, name| self.child(at, name))
    }

    /// Makes the marks by which overlayfs knows what is gone.
    fn hide(&mut self) -> Result<(), StargzError> {
        for (directory, name) in std::mem::take(&mut self.hidden) {
            match self.child(directory, &name) {
                // Something new is in its place. A new directory hides the old one's files.
                Some(there) if matches!(self.nodes[there as usize].node.kind, Kind::Directory { .. }) => {
                    self.make_opaque(there);
                }
                Some(_) => {}
                None => {
                    let mark = self.push(plain(Kind::CharDevice { major: 0, minor: 0 }, 0))?;
                    self.nodes[directory as usize].children.insert(name, mark);
                }
            }
        }
        Ok(())
    }

    /// Counts names. A directory has its own, `.`, and `..` of each directory in it.
    fn count_links(&mut self) {
        let mut counts = vec![0_u32; self.nodes.len()];
        for (id, draft) in self.nodes.iter().enumerate() {
            for child in draft.children.values() {
                counts[*child as usize] += 1;
                if matches!(self.nodes[*child as usize].node.kind, Kind::Directory { .. }) {
                    counts[*child as usize] += 1;
                    counts[id] += 1;
                }
            }
        }
        counts[ROOT as usize] += 2;
        for (draft, count) in self.nodes.iter_mut().zip(counts) {
            draft.node.links = count;
        }
    }
}

/// A file that belongs to root.
fn plain(kind: Kind, mode: u32) -> Node {
    Node { kind, mode, uid: 0, gid: 0, mtime: Time::default(), links: 0, xattrs: BTreeMap::new() }
}

fn node(kind: Kind, entry: &Entry) -> Result<Node, StargzError> {
    let everywhere = matches!(kind, Kind::File { .. } | Kind::Directory { .. });
    let mut xattrs = BTreeMap::new();
    for (name, value) in &entry.xattrs {
        // What overlayfs and the administrator's tools read is not a layer's to set; and as in any file system,
        // `user.` is for files and directories.
        let private = name.starts_with("trusted.") || name.starts_with("user.overlay.");
        if private || (!everywhere && name.starts_with("user.")) {
            continue;
        }
        let wrong = |why| StargzError::entry(&entry.name, why);
        let value = STANDARD.decode(value).map_err(|_| wrong("an extended attribute is not in base64"))?;
        let fits = !name.is_empty() && name.len() <= XATTR_NAME && value.len() <= XATTR_VALUE;
        if !fits || name.contains('\0') {
            return Err(wrong("it cannot have such an extended attribute"));
        }
        xattrs.insert(name.as_bytes().into(), value.into());
    }
    let Entry { uid, gid, .. } = *entry;
    Ok(Node { kind, mode: (entry.mode & 0o7777) as u32, uid, gid, mtime: entry.mtime(), links: 0, xattrs })
}

/// Ends each range where the next stream begins, and not further than its chunk can take.
fn end_ranges(chunks: &mut [Chunk], payload_end: u64) -> Result<(), StargzError> {
    let begun = chunks.iter().filter_map(|chunk| chunk.stored.as_ref());
    let mut begins: Vec<u64> = begun.map(|stored| stored.range.start).collect();
    begins.sort_unstable();
    begins.dedup();
    for chunk in chunks {
        let size = chunk.size;
        let Some(Stored { range, skip, .. }) = &mut chunk.stored else { continue };
        let next = begins.partition_point(|begin| *begin <= range.start);
        let next = begins.get(next).copied().unwrap_or(payload_end).min(payload_end);
        range.end = next.min(range.start.saturating_add(longest(*skip + size)));
        if range.end <= range.start {
            let text = format!("data begins at byte {}, behind its end", range.start);
            return Err(StargzError::Position(text));
        }
    }
    Ok(())
}

/// So many compressed bytes are enough for `size` plain ones: both formats fall back to storing what they cannot make
/// smaller, in blocks with a few bytes of overhead, behind a header.
fn longest(size: u64) -> u64 {
    size + size / 64 + (64 << 10)
}
