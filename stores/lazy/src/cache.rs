//! Chunks on disk, by what they hash to.
//!
//! ```text
//!   ROOT/chunks/ab/abcd…    a chunk, under the digits of its digest
//!   ROOT/chunks/ab/named-…  one whose digest is only a name, and behind its bytes the digits of what they hash to
//!   ROOT/chunks/new-N       one that is being written; a process that ended leaves it, the next one removes it
//! ```
//! Nothing is flushed: a chunk that a power cut spoilt, or anything else, is found out when a later process uses it
//! first, by its digest, and is fetched again. Over the limit those go that nobody has used for the longest time.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, FileExt as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use berth_archive::Hasher;
use berth_types::{Digest, Error, Result};
use serde::{Deserialize, Serialize};

/// To how much of the limit chunks are removed when it is passed, in percent.
const AFTER_EVICTION: u64 = 90;

/// From how much of the limit on nothing is kept that nobody has asked for, in percent.
const CROWDED: u64 = 80;

/// How a cache does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CacheFigures {
    /// Bytes of all chunks.
    pub bytes: u64,
    /// Chunks.
    pub chunks: u64,
    /// Bytes that it may have.
    pub limit: u64,
    /// Chunks that were removed for others.
    pub evicted: u64,
    /// Chunks that were not what they should be.
    pub damaged: u64,
}

/// Chunks on disk. Blocking.
#[derive(Debug)]
pub struct Cache {
    folder: PathBuf,
    limit: u64,
    known: Mutex<Known>,
    next: AtomicU64,
}

#[derive(Debug, Default)]
struct Known {
    chunks: HashMap<Digest, Held>,
    bytes: u64,
    /// Counts uses.
    clock: u64,
    evicted: u64,
    damaged: u64,
}

/// What a chunk is verified by when a later process uses it first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Seal {
    /// Its digest.
    Digest,
    /// What stands behind its bytes: the digest is only a name.
    Behind,
}

/// What the file of a named chunk begins with.
const NAMED: &str = "named-";
/// Bytes behind a named chunk's own.
const SEAL: u64 = 64;

#[derive(Clone, Copy, Debug)]
struct Held {
    size: u64,
    used: u64,
    seal: Seal,
    /// Whether this process has seen that it is what it should be.
    verified: bool,
}

impl Cache {
    /// Opens the cache below `root`, which belongs to one process at a time, and looks what is there.
    pub fn open(root: &Path, limit: u64) -> Result<Self> {
        let folder = root.join("chunks");
        let failed = |error| Error::io(format!("cannot open the cache {}", folder.display()), error);
        fs::DirBuilder::new().recursive(true).mode(0o700).create(&folder).map_err(failed)?;
        let known = look(&folder).map_err(failed)?;
        let cache = Self { folder, limit, known: Mutex::new(known), next: AtomicU64::new(0) };
        cache.evict();
        Ok(cache)
    }

    /// Reads `buffer` from a place of a chunk of a size that has been verified. False where that is not to be had at
    /// once: the chunk is not there, or [`Cache::load`] has to look at it first.
    pub(crate) fn read(&self, (digest, size): (&Digest, u64), offset: u64, buffer: &mut [u8]) -> bool {
        let Some(seal) = self.use_verified(digest, size) else { return false };
        let read = File::open(self.path(digest, seal)).and_then(|file| file.read_exact_at(buffer, offset));
        if read.is_err() {
            // Somebody else has removed or cut it.
            self.forget(digest);
        }
        read.is_ok()
    }

    /// Whether a chunk is there, by all that is known.
    pub(crate) fn has(&self, digest: &Digest) -> bool {
        self.known().chunks.contains_key(digest)
    }

    /// Whether one chunk more may soon cost another its place.
    pub(crate) fn is_crowded(&self) -> bool {
        self.known().bytes > self.limit / 100 * CROWDED
    }

    /// All of a chunk, verified; one that is not what it should be is removed. Whoever has another size for it is wrong,
    /// which is no reason to.
    pub(crate) fn load(&self, digest: &Digest, size: u64) -> Option<Vec<u8>> {
        let seal = self.known().chunks.get(digest).filter(|held| held.size == size)?.seal;
        let bytes = self.verified(digest, size, seal);
        let mut known = self.known();
        match (&bytes, known.chunks.get_mut(digest)) {
            (Some(_), Some(held)) => held.verified = true,
            (Some(_), None) => {}
            (None, _) => {
                known.damaged += 1;
                drop(known);
                self.forget(digest);
            }
        }
        bytes
    }

    /// Keeps a chunk, whose bytes have been verified. Failing to is not an error of whoever wants the bytes.
    pub(crate) fn keep(&self, digest: &Digest, bytes: &[u8]) -> io::Result<()> {
        self.hold(digest, bytes, Seal::Digest)
    }

    /// The same for a chunk of which it was not known what it hashes to, and that has only a name.
    pub(crate) fn keep_named(&self, name: &Digest, bytes: &[u8]) -> io::Result<()> {
        self.hold(name, bytes, Seal::Behind)
    }

    fn hold(&self, digest: &Digest, bytes: &[u8], seal: Seal) -> io::Result<()> {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let new = self.folder.join(format!("new-{number}"));
        let path = self.path(digest, seal);
        let write = || {
            let mut file = File::create(&new)?;
            file.write_all(bytes)?;
            if seal == Seal::Behind { file.write_all(&behind(bytes)) } else { Ok(()) }
        };
        let written = write().and_then(|()| match fs::rename(&new, &path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                fs::create_dir_all(path.parent().unwrap_or(&self.folder))?;
                fs::rename(&new, &path)
            }
            done => done,
        });
        if let Err(error) = written {
            drop(fs::remove_file(&new));
            return Err(error);
        }
        let mut known = self.known();
        known.clock += 1;
        let held = Held { size: bytes.len() as u64, used: known.clock, seal, verified: true };
        known.bytes += held.size;
        if let Some(before) = known.chunks.insert(digest.clone(), held) {
            known.bytes -= before.size;
        }
        let full = known.bytes > self.limit;
        drop(known);
        if full {
            self.evict();
        }
        Ok(())
    }

    /// How it does.
    pub fn figures(&self) -> CacheFigures {
        let known = self.known();
        let Known { bytes, evicted, damaged, .. } = *known;
        CacheFigures { bytes, chunks: known.chunks.len() as u64, limit: self.limit, evicted, damaged }
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        // What is known is only what can be found on disk too.
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn path(&self, digest: &Digest, seal: Seal) -> PathBuf {
        let (algorithm, hex) = (digest.algorithm(), digest.hex());
        let name = if seal == Seal::Behind {
            format!("{NAMED}{hex}")
        } else if digest.as_str().starts_with("sha256:") {
            hex.to_owned()
        } else {
            format!("{}-{hex}", algorithm.name())
        };
        self.folder.join(&hex[..2]).join(name)
    }

    /// Notes a use of a chunk that has been verified; none if there is none.
    fn use_verified(&self, digest: &Digest, size: u64) -> Option<Seal> {
        let mut known = self.known();
        known.clock += 1;
        let clock = known.clock;
        let held = known.chunks.get_mut(digest).filter(|held| held.verified && held.size == size)?;
        held.used = clock;
        Some(held.seal)
    }

    fn verified(&self, digest: &Digest, size: u64, seal: Seal) -> Option<Vec<u8>> {
        let mut bytes = Vec::new();
        let rest = if seal == Seal::Behind { SEAL } else { 0 };
        File::open(self.path(digest, seal)).ok()?.take(size + rest + 1).read_to_end(&mut bytes).ok()?;
        if bytes.len() as u64 != size + rest {
            return None;
        }
        let sealed = bytes.split_off(size as usize);
        let is_whole = match seal {
            Seal::Behind => sealed == behind(&bytes),
            Seal::Digest => {
                let mut hasher = Hasher::new(digest.algorithm());
                hasher.update(&bytes);
                hasher.finish() == *digest
            }
        };
        is_whole.then_some(bytes)
    }

    fn forget(&self, digest: &Digest) {
        let mut known = self.known();
        let Some(held) = known.chunks.remove(digest) else { return };
        known.bytes -= held.size;
        drop(known);
        drop(fs::remove_file(self.path(digest, held.seal)));
    }

    /// Removes what was not used for the longest time, if there is too much.
    fn evict(&self) {
        let mut gone = Vec::new();
        {
            let mut known = self.known();
            if known.bytes <= self.limit {
                return;
            }
            let mut by_use: Vec<(u64, Digest)> =
                known.chunks.iter().map(|(digest, held)| (held.used, digest.clone())).collect();
            by_use.sort_unstable_by_key(|(used, _)| *used);
            let enough = self.limit / 100 * AFTER_EVICTION;
            for (_, digest) in by_use {
                if known.bytes <= enough {
                    break;
                }
                let Some(held) = known.chunks.remove(&digest) else { continue };
                known.bytes -= held.size;
                known.evicted += 1;
                gone.push((digest, held.seal));
            }
        }
        for (digest, seal) in gone {
            if let Err(error) = fs::remove_file(self.path(&digest, seal)) {
                tracing::warn!(%digest, %error, "cannot remove a chunk");
            }
        }
    }
}

/// What stands behind the bytes of a named chunk.
fn behind(bytes: &[u8]) -> Vec<u8> {
    Hasher::digest(bytes).hex().as_bytes().to_vec()
}

/// What earlier processes left: chunks, in the order in which they were written, and beginnings of some.
fn look(folder: &Path) -> io::Result<Known> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        if entry.file_name().to_string_lossy().starts_with("new-") {
            fs::remove_file(entry.path())?;
            continue;
        }
        for chunk in fs::read_dir(entry.path())? {
            let chunk = chunk?;
            let name = chunk.file_name().to_string_lossy().into_owned();
            let (seal, name) = match name.strip_prefix(NAMED) {
                Some(name) => (Seal::Behind, name),
                None => (Seal::Digest, &*name),
            };
            let text = if name.contains('-') { name.replacen('-', ":", 1) } else { format!("sha256:{name}") };
            let metadata = chunk.metadata()?;
            let rest = if seal == Seal::Behind { SEAL } else { 0 };
            match (text.parse::<Digest>(), metadata.len().checked_sub(rest)) {
                (Ok(digest), Some(size)) => found.push((metadata.modified()?, digest, size, seal)),
                _ => fs::remove_file(chunk.path())?,
            }
        }
    }
    found.sort_unstable_by_key(|(written, ..)| *written);
    let mut known = Known::default();
    for (used, (_, digest, size, seal)) in found.into_iter().enumerate() {
        known.bytes += size;
        known.clock = used as u64;
        known.chunks.insert(digest, Held { size, used: used as u64, seal, verified: false });
    }
    Ok(known)
}
