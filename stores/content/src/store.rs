//! The store.

use std::collections::HashMap;
use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use berth_core::{BlobReader, ContentStore, Ingest, IngestRequest};
use berth_types::filter::Filters;
use berth_types::{BlobInfo, Digest, Error, FieldMask, IngestRef, IngestStatus, Labels, Result};
use tokio::sync::watch;

use crate::blobs::{Blobs, entries};
use crate::blocking::blocking;
use crate::error::ContentError;
use crate::follower::{Follower, Reached};
use crate::ingest::Folder;
use crate::reader::Reader;
use crate::writer::Writer;

/// Blobs and ingests in a folder. Cheap to clone; all clones are the same store.
#[derive(Clone, Debug)]
pub struct Store(Arc<Inner>);

pub(crate) struct Inner {
    root: PathBuf,
    blobs: Blobs,
    /// What is being written.
    writing: Mutex<HashMap<IngestRef, Writing>>,
    left: Condvar,
}

struct Writing {
    since: Instant,
    /// Whether its writer has gone, and only its bytes are on their way to the disk.
    leaving: bool,
    /// How far it is, once it is open.
    growth: Option<watch::Receiver<Reached>>,
}

/// How long a new writer waits for what the last one left to be on disk.
const LEAVING: Duration = Duration::from_mins(1);

impl fmt::Debug for Inner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Store").field("root", &self.root).finish_non_exhaustive()
    }
}

impl Store {
    /// Opens the folder `root`, which is made if it is not there. It must belong to one daemon.
    ///
    /// Blocks for a moment: folders of ingests that a crash left unfinished are removed.
    pub fn open(root: &Path) -> Result<Self> {
        let ingests = root.join("ingest");
        for folder in [root.join("blobs"), ingests.clone()] {
            fs::create_dir_all(&folder)
                .map_err(|source| Error::io(format!("cannot make {}", folder.display()), source))?;
        }
        for entry in entries(&ingests)? {
            let folder = Folder::at(entry.path());
            if folder.reference()?.is_none() || folder.status()?.is_none() {
                folder.remove()?;
            }
        }
        let inner = Inner {
            root: root.to_owned(),
            blobs: Blobs::new(root),
            writing: Mutex::new(HashMap::new()),
            left: Condvar::new(),
        };
        Ok(Self(Arc::new(inner)))
    }

    async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Arc<Inner>) -> Result<T, ContentError> + Send + 'static,
    ) -> Result<T> {
        let inner = Arc::clone(&self.0);
        blocking(move || work(&inner)).await
    }
}

impl Inner {
    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    pub(crate) fn blobs(&self) -> &Blobs {
        &self.blobs
    }

    /// Gives the caller the ingest to write, if nobody has it. Blocks while the last writer's
    /// bytes are on their way to the disk.
    fn turn(self: &Arc<Self>, reference: &IngestRef) -> Result<Turn, ContentError> {
        let writing = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        let is_leaving = |writing: &mut HashMap<IngestRef, Writing>| {
            writing.get(reference).is_some_and(|writing| writing.leaving)
        };
        let (mut writing, _) = self
            .left
            .wait_timeout_while(writing, LEAVING, is_leaving)
            .unwrap_or_else(PoisonError::into_inner);
        if let Some(Writing { since, .. }) = writing.get(reference) {
            return Err(ContentError::Locked {
                reference: reference.to_string(),
                seconds: since.elapsed().as_secs_f64(),
            });
        }
        writing.insert(reference.clone(), Writing { since: Instant::now(), leaving: false, growth: None });
        Ok(Turn { store: Arc::clone(self), reference: reference.clone() })
    }

    /// Says that the writer of an ingest will not write any more.
    pub(crate) fn leave(&self, reference: &IngestRef) {
        let mut writing = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(writing) = writing.get_mut(reference) {
            writing.leaving = true;
        }
    }

    /// Says where the writer of an ingest tells how far it is.
    pub(crate) fn grows(&self, reference: &IngestRef, growth: watch::Receiver<Reached>) {
        let mut writing = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(writing) = writing.get_mut(reference) {
            writing.growth = Some(growth);
        }
    }

    fn growth(&self, reference: &IngestRef) -> Option<watch::Receiver<Reached>> {
        let writing = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        writing.get(reference)?.growth.clone()
    }

    fn list_ingests(&self) -> Result<Vec<IngestStatus>, ContentError> {
        let mut all = Vec::new();
        for entry in entries(&self.root.join("ingest"))? {
            // One that is being committed just now is gone, or half gone.
            all.extend(Folder::at(entry.path()).status()?);
        }
        Ok(all)
    }
}

/// The right to write an ingest, until it is dropped.
pub(crate) struct Turn {
    store: Arc<Inner>,
    reference: IngestRef,
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.store.writing.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.reference);
        self.store.left.notify_all();
    }
}

#[async_trait]
impl ContentStore for Store {
    async fn info(&self, digest: &Digest) -> Result<BlobInfo> {
        let digest = digest.clone();
        self.run(move |store| store.blobs.info(&digest)).await
    }

    /// There are no labels here.
    async fn update(&self, digest: &Digest, _labels: Labels, _mask: &FieldMask) -> Result<BlobInfo> {
        Err(Error::failed_precondition(format!(
            "content {digest}: update not supported on immutable content store"
        )))
    }

    async fn list(&self, filters: &Filters) -> Result<Vec<BlobInfo>> {
        let filters = filters.clone();
        self.run(move |store| {
            let mut all = store.blobs.list()?;
            all.retain(|info| filters.matches(info));
            Ok(all)
        })
        .await
    }

    async fn delete(&self, digest: &Digest) -> Result<()> {
        let digest = digest.clone();
        self.run(move |store| store.blobs.delete(&digest)).await
    }

    async fn reader(&self, digest: &Digest) -> Result<Arc<dyn BlobReader>> {
        let digest = digest.clone();
        self.run(move |store| {
            let (file, size) = store.blobs.open(&digest)?;
            Ok(Arc::new(Reader { file: Arc::new(file), size, path: store.blobs.path(&digest) }) as _)
        })
        .await
    }

    async fn follow(&self, reference: &IngestRef) -> Result<Arc<dyn BlobReader>> {
        let reference = reference.clone();
        self.run(move |store| {
            let missing = || ContentError::NoIngest(reference.to_string());
            let growth = store.growth(&reference).ok_or_else(missing)?;
            // The name of the file may be gone by now, if it was committed meanwhile; the bytes then are a blob.
            let folder = Folder::of(&store.root, &reference);
            let file = folder.read_data()?.ok_or_else(missing)?;
            Ok(Arc::new(Follower { file: Arc::new(file), path: folder.data(), growth }) as _)
        })
        .await
    }

    async fn ingest(&self, reference: &IngestRef) -> Result<IngestStatus> {
        let reference = reference.clone();
        self.run(move |store| {
            let status = Folder::of(&store.root, &reference).status()?;
            status.ok_or_else(|| ContentError::NoIngest(reference.to_string()))
        })
        .await
    }

    async fn ingests(&self, filters: &Filters) -> Result<Vec<IngestStatus>> {
        let filters = filters.clone();
        self.run(move |store| {
            let mut all = store.list_ingests()?;
            all.retain(|status| filters.matches(status));
            Ok(all)
        })
        .await
    }

    async fn abort(&self, reference: &IngestRef) -> Result<()> {
        let reference = reference.clone();
        self.run(move |store| {
            let found = Folder::of(&store.root, &reference).remove()?;
            found.then_some(()).ok_or_else(|| ContentError::NoIngest(reference.to_string()))
        })
        .await
    }

    async fn writer(&self, request: IngestRequest) -> Result<Box<dyn Ingest>> {
        let IngestRequest { reference, total, expected } = request;
        self.run(move |store| {
            let turn = store.turn(&reference)?;
            if let Some(expected) = &expected
                && store.blobs.info(expected).is_ok()
            {
                return Err(ContentError::Exists(expected.clone()));
            }
            let writer = Writer::open(Arc::clone(store), reference, total, expected, turn)?;
            Ok(Box::new(writer) as _)
        })
        .await
    }
}
