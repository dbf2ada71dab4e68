//! A layer as the kernel sees it.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use berth_fuse::{Attributes, Filesystem, Kind, Listed, ROOT, Reading, Statistics, Time};
use berth_stargz::{self as stargz, Chunk, Node, NodeId};
use rustix::io::Errno;
use tokio::runtime::Handle;
use tokio::task::JoinSet;

use crate::fetch::{FetchError, Fetcher};
use crate::layer::{Layer, Served};
use crate::reads::Learner;

/// Bytes of one read at most: more than what is agreed on with the kernel is a mistake.
const LONGEST: usize = 1 << 20;

/// A layer that is mounted. What is in the cache is answered on the thread that asks; what is not, by a task.
pub(crate) struct Mounted {
    shared: Arc<Shared>,
    runtime: Handle,
    /// Notes what is read first.
    learner: Option<Arc<Learner>>,
    /// Reads that wait, and what is learnt. They end with the mount.
    waiting: Mutex<JoinSet<()>>,
}

struct Shared {
    layer: Arc<Layer>,
    fetcher: Fetcher,
}

/// A part of a read: bytes of one chunk.
#[derive(Debug)]
struct Part {
    /// The chunk's number in the table.
    chunk: usize,
    /// From which of its bytes.
    from: usize,
    /// Where they go in the answer.
    to: std::ops::Range<usize>,
}

impl Mounted {
    pub(crate) fn new(
        layer: Arc<Layer>,
        fetcher: Fetcher,
        runtime: Handle,
        learner: Option<Arc<Learner>>,
    ) -> Self {
        let shared = Arc::new(Shared { layer, fetcher });
        Self { shared, runtime, learner, waiting: Mutex::default() }
    }

    /// Does something that takes time, for as long as this is mounted.
    fn later(&self, work: impl Future<Output = ()> + Send + 'static) {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        while waiting.try_join_next().is_some() {}
        waiting.spawn_on(work, &self.runtime);
    }

    fn learn(&self, parts: &[Part]) {
        if let Some(learner) = &self.learner
            && learner.note(parts.iter().map(|part| part.chunk))
        {
            self.later(Arc::clone(learner).learn(Arc::clone(&self.shared.layer)));
        }
    }

    fn node(&self, number: u64) -> Result<&Node, Errno> {
        let id = number.checked_sub(ROOT).and_then(|id| NodeId::try_from(id).ok()).ok_or(Errno::NOENT)?;
        self.shared.layer.index().node(id).ok_or(Errno::NOENT)
    }
}

/// A file's number for the kernel.
fn number(id: NodeId) -> u64 {
    u64::from(id) + ROOT
}

impl Filesystem for Mounted {
    fn attributes(&self, number: u64) -> Result<Attributes, Errno> {
        let node = self.node(number)?;
        let (kind, size) = match &node.kind {
            stargz::Kind::Directory { children, .. } => (Kind::Directory, children.len() as u64),
            stargz::Kind::File { size, .. } => (Kind::File, *size),
            stargz::Kind::Symlink(text) => (Kind::Symlink, text.len() as u64),
            stargz::Kind::CharDevice { major, minor } => (Kind::CharDevice(*major, *minor), 0),
            stargz::Kind::BlockDevice { major, minor } => (Kind::BlockDevice(*major, *minor), 0),
            stargz::Kind::Fifo => (Kind::Fifo, 0),
        };
        let mtime = Time { seconds: node.mtime.seconds, nanos: node.mtime.nanos };
        let Node { mode, uid, gid, links, .. } = *node;
        Ok(Attributes { node: number, kind, mode, uid, gid, size, links, mtime })
    }

    fn lookup(&self, directory: u64, name: &[u8]) -> Result<Option<u64>, Errno> {
        let node = self.node(directory)?;
        Ok(self.shared.layer.index().child(node, name).map(number))
    }

    fn above(&self, directory: u64) -> Result<u64, Errno> {
        match &self.node(directory)?.kind {
            stargz::Kind::Directory { parent, .. } => Ok(number(*parent)),
            _ => Err(Errno::NOTDIR),
        }
    }

    fn entry(&self, directory: u64, place: usize) -> Result<Option<Listed<'_>>, Errno> {
        match &self.node(directory)?.kind {
            stargz::Kind::Directory { children, .. } => {
                Ok(children.get(place).map(|(name, id)| Listed { name, node: number(*id) }))
            }
            _ => Err(Errno::NOTDIR),
        }
    }

    fn link(&self, node: u64) -> Result<&[u8], Errno> {
        match &self.node(node)?.kind {
            stargz::Kind::Symlink(text) => Ok(text),
            _ => Err(Errno::INVAL),
        }
    }

    fn has_xattrs(&self) -> bool {
        self.shared.layer.index().has_xattrs()
    }

    fn xattr(&self, node: u64, name: &[u8]) -> Result<&[u8], Errno> {
        self.node(node)?.xattrs.get(name).map(AsRef::as_ref).ok_or(Errno::NODATA)
    }

    fn xattrs(&self, node: u64) -> Result<Vec<&[u8]>, Errno> {
        Ok(self.node(node)?.xattrs.keys().map(AsRef::as_ref).collect())
    }

    fn read(&self, reading: Reading) {
        let (number, offset, size) = (reading.node(), reading.offset(), reading.size());
        if self.shared.layer.is_condemned() {
            self.shared.layer.count(Served::Failure);
            return reading.refuse(Errno::IO);
        }
        let parts = match self.node(number).and_then(|node| self.shared.parts(node, offset, size)) {
            Ok(parts) => parts,
            Err(error) => return reading.refuse(error),
        };
        self.learn(&parts);
        let mut buffer = vec![0; parts.last().map_or(0, |part| part.to.end)];
        if self.shared.at_once(&parts, &mut buffer) {
            self.shared.layer.count(Served::Hit);
            self.shared.fetcher.counters.hit();
            return reading.answer(&buffer);
        }
        let (shared, begun) = (Arc::clone(&self.shared), Instant::now());
        let later = async move {
            match shared.later(&parts, &mut buffer).await {
                Ok(()) => {
                    shared.count(Served::Miss, begun);
                    reading.answer(&buffer);
                }
                Err(error) => {
                    shared.count(Served::Failure, begun);
                    tracing::debug!(layer = %shared.layer.digest(), %error, "a read is answered with EIO");
                    reading.refuse(Errno::IO);
                }
            }
        };
        self.later(later);
    }

    fn statistics(&self) -> Statistics {
        let index = self.shared.layer.index();
        // A table may claim holes of any size.
        let bytes = index.all_chunks().iter().fold(0, |sum: u64, chunk| sum.saturating_add(chunk.size));
        Statistics { bytes, files: index.nodes() as u64 }
    }
}

impl Shared {
    /// What a read is made of, in order and without a gap.
    fn parts(&self, node: &Node, offset: u64, size: usize) -> Result<Vec<Part>, Errno> {
        let stargz::Kind::File { size: length, chunks } = &node.kind else { return Err(Errno::ISDIR) };
        if size > LONGEST {
            return Err(Errno::INVAL);
        }
        let end = length.saturating_sub(offset).min(size as u64) + offset;
        let all = self.layer.index().chunks(node);
        let first = all.partition_point(|chunk| chunk.end() <= offset);
        let wanted = all.iter().enumerate().skip(first).take_while(|(_, chunk)| chunk.offset < end);
        let part = |(at, chunk): (usize, &Chunk)| {
            let (from, to) = (chunk.offset.max(offset), chunk.end().min(end));
            Part {
                chunk: chunks.start as usize + at,
                from: (from - chunk.offset) as usize,
                to: (from - offset) as usize..(to - offset) as usize,
            }
        };
        Ok(wanted.map(part).collect())
    }

    /// Fills in what is there; false as soon as something is not.
    fn at_once(&self, parts: &[Part], buffer: &mut [u8]) -> bool {
        parts.iter().all(|part| self.cached(part, buffer))
    }

    fn cached(&self, part: &Part, buffer: &mut [u8]) -> bool {
        // What is a hole in the file is one in the buffer.
        let Chunk { size, stored, .. } = &self.layer.index().all_chunks()[part.chunk];
        let Some(stored) = stored else { return true };
        self.fetcher.cache.read((&stored.digest, *size), part.from as u64, &mut buffer[part.to.clone()])
    }

    /// Notes what became of a read that came at `begun` and was not answered at once.
    fn count(&self, served: Served, begun: Instant) {
        self.layer.count(served);
        self.fetcher.counters.answered(served, begun.elapsed());
    }

    async fn later(&self, parts: &[Part], buffer: &mut [u8]) -> Result<(), Arc<FetchError>> {
        for part in parts {
            if self.cached(part, buffer) {
                continue;
            }
            let bytes = self.fetcher.chunk(&self.layer, self.layer.place(part.chunk)).await?;
            buffer[part.to.clone()].copy_from_slice(&bytes[part.from..part.from + part.to.len()]);
        }
        Ok(())
    }
}
