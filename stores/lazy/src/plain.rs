//! Layers without tables: fetched whole the first time, while an index of them is made, and in parts after that.
//!
//! ```text
//!   registry ─▶ digest ─▶ decoder ─▶ files ─▶ chunks ─▶ cache
//!                             ╰─ points ──┴─ table ─▶ indexes/HEX, once the digest is the layer's
//! ```
//! Nothing of such a layer is used before all of it has come and is what its digest says. The index is trusted because
//! this process has made it out of those bytes, or because whoever may write into the folder has put it there.
//!
//! Indexes can be published beside the image ([`publish`]). Where the configuration trusts the image's repository they
//! are looked for there ([`published`]) before anything is fetched whole, and confirmed by one made here once all of
//! the layer has come ([`confirm`]).

pub(crate) mod artifact;
mod confirm;
mod publish;
mod published;

use std::fs::{self, File};
use std::io::{self, BufRead, Read};
use std::path::Path;
use std::sync::Arc;
use std::time::SystemTime;

use berth_archive::Hasher;
use berth_stargz::{Index, RecordError, Recorded, record};
use berth_types::{Digest, Error, Result};
use bytes::{Buf as _, Bytes};
use tokio::sync::mpsc;

pub(crate) use self::confirm::Confirming;
pub use self::publish::{Outcome, Publication, Publicized};
pub(crate) use self::published::{Found, Published, published};
use crate::cache::Cache;
use crate::demand::Demand;
use crate::source::{RegistrySource, Source as _};

/// Parts of a blob between the network and the decoder.
const DEPTH: usize = 4;
/// Bytes that a decoder is shown at first.
const FIRST: usize = 4;

/// Bytes of all indexes at most; over it, those go that nobody has used for the longest time.
const LIMIT: u64 = 1 << 30;

/// Why a layer has no index, and whether it will never have one.
pub(crate) struct Refused {
    pub(crate) error: Error,
    pub(crate) for_good: bool,
}

impl From<Error> for Refused {
    fn from(error: Error) -> Self {
        Self { error, for_good: false }
    }
}

/// Reads an index that was made before, if it is there and whole. Blocking.
pub(crate) fn kept(path: &Path, layer: &Digest) -> Option<Index> {
    let bytes = fs::read(path).ok()?;
    match Index::read(&bytes, layer) {
        Ok(index) => {
            // The time says when it was used last.
            let used = File::options().append(true).open(path);
            if let Err(error) = used.and_then(|file| file.set_modified(SystemTime::now())) {
                tracing::debug!(%layer, %error, "cannot note that an index was used");
            }
            Some(index)
        }
        Err(error) => {
            tracing::warn!(%layer, %error, "an index is made anew");
            None
        }
    }
}

/// Fetches a layer, keeps what it holds in the cache and its index at `path`. It takes as long as the layer does; a
/// registry that falls silent is given up by its client.
pub(crate) async fn fetch(
    source: &RegistrySource,
    layer: &Digest,
    cache: &Arc<Cache>,
    path: &Path,
) -> std::result::Result<Index, Refused> {
    // What the cache loses later is fetched in parts.
    source.gives_ranges().await?;
    let cache = Arc::clone(cache);
    let keeping = move |digest: &Digest, bytes: &[u8]| {
        if !cache.has(digest)
            && let Err(error) = cache.keep(digest, bytes)
        {
            tracing::warn!(%error, "cannot keep a chunk in the cache");
        }
        Ok(())
    };
    let Recorded { index, file } = recorded((source, None), layer, keeping).await?;
    let to = path.to_owned();
    let written = tokio::task::spawn_blocking(move || keep(&file, &to));
    if let Ok(Err(error)) = written.await {
        tracing::warn!(%layer, %error, "cannot keep the index of a layer");
    }
    Ok(index)
}

/// Keeps an index at a path, where no half of it is ever seen. Blocking.
fn keep(file: &[u8], path: &Path) -> io::Result<()> {
    let new = path.with_extension("new");
    fs::write(&new, file)?;
    fs::rename(&new, path)
}

/// Fetches a layer, gives what it holds to `keep`, and makes its index. What was given is the layer's only if there is
/// no error. With somebody else's demand it pauses while anybody waits.
async fn recorded(
    (source, demand): (&RegistrySource, Option<&Demand>),
    layer: &Digest,
    keep: impl FnMut(&Digest, &[u8]) -> io::Result<()> + Send + 'static,
) -> std::result::Result<Recorded, Refused> {
    let (parts, coming) = mpsc::channel(DEPTH);
    let recording = {
        let (layer, size) = (layer.clone(), source.size());
        tokio::task::spawn_blocking(move || record(Coming::new(coming), &layer, size, keep))
    };
    let (fed, recorded) = futures::join!(feed(source, demand, parts), recording);
    let recorded =
        recorded.map_err(|error| Error::internal("reading a layer ended early").caused_by(error))?;
    let unfit = |error: RecordError, for_good: bool| {
        let error = Error::failed_precondition(format!("layer {layer} gets no index")).caused_by(error);
        Refused { error, for_good }
    };
    let Some((actual, size)) = fed? else {
        // Nobody wanted the rest.
        let Err(error) = recorded else { return Err(Error::internal("a layer was not read").into()) };
        // Of bytes that nobody has verified little else can be said.
        let whole = matches!(error, RecordError::Whole);
        return Err(unfit(error, whole));
    };
    if actual != *layer || size != source.size() {
        return Err(Error::data_loss(format!("layer {layer} arrived as {actual}")).into());
    }
    recorded.map_err(|error| {
        let for_good = !matches!(error, RecordError::Read(_) | RecordError::Keep(_));
        unfit(error, for_good)
    })
}

/// Gives the blob's bytes to the decoder, and answers what they hash to and how many they are; none if it wants no more.
async fn feed(
    source: &RegistrySource,
    demand: Option<&Demand>,
    parts: mpsc::Sender<Bytes>,
) -> Result<Option<(Digest, u64)>> {
    let mut blob = source.stream().await?;
    let (mut hasher, mut size) = (Hasher::default(), 0);
    loop {
        if let Some(demand) = demand {
            demand.calm().await;
        }
        let Some(part) = blob.next().await? else { break };
        hasher.update(&part);
        size += part.len() as u64;
        if parts.send(part).await.is_err() {
            return Ok(None);
        }
    }
    Ok(Some((hasher.finish(), size)))
}

/// A blob as a stream.
struct Coming {
    parts: mpsc::Receiver<Bytes>,
    part: Bytes,
    begun: bool,
}

impl Coming {
    fn new(parts: mpsc::Receiver<Bytes>) -> Self {
        Self { parts, part: Bytes::new(), begun: false }
    }
}

impl BufRead for Coming {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        while self.part.is_empty() || (!self.begun && self.part.len() < FIRST) {
            let Some(next) = self.parts.blocking_recv() else { break };
            self.part = if self.part.is_empty() { next } else { [&self.part[..], &next].concat().into() };
        }
        self.begun = true;
        Ok(&self.part)
    }

    fn consume(&mut self, amount: usize) {
        self.part.advance(amount.min(self.part.len()));
    }
}

impl Read for Coming {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        berth_archive::read_shown(self, buffer)
    }
}

/// Removes indexes that were not used for the longest time, if there are too many. Blocking.
pub(crate) fn trim(folder: &Path) -> io::Result<()> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let metadata = entry.metadata()?;
        found.push((metadata.modified()?, metadata.len(), entry.path()));
    }
    found.sort_unstable();
    let mut left: u64 = found.iter().map(|(_, size, _)| size).sum();
    for (_, size, path) in found {
        if left <= LIMIT {
            break;
        }
        fs::remove_file(path)?;
        left -= size;
    }
    Ok(())
}
