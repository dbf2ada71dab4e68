//! An open ingest.
//!
//! Bytes are hashed as they arrive. The state is behind a lock that only one call at a time wants:
//! if the caller of a write goes away, the write goes on, and the next call waits for it.

use std::fs::{File, FileTimes, Permissions};
use std::io::{Seek, SeekFrom};
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, TryLockError};
use std::time::SystemTime;

use async_trait::async_trait;
use berth_archive::Hasher;
use berth_core::{CommitRequest, Ingest};
use berth_types::{Algorithm, Digest, IngestRef, IngestStatus, Result};
use bytes::Bytes;
use tokio::sync::watch;

use crate::blocking::blocking;
use crate::error::ContentError;
use crate::follower::Reached;
use crate::ingest::{Folder, Resumed, hash};
use crate::store::{Inner, Turn};

/// An ingest that somebody has to himself.
pub(crate) struct Writer {
    store: Arc<Inner>,
    reference: IngestRef,
    state: Arc<Mutex<State>>,
    expected: Option<Digest>,
}

struct State {
    store: Arc<Inner>,
    folder: Folder,
    reference: IngestRef,
    /// `None` once it is committed.
    file: Option<File>,
    hasher: Hasher,
    algorithm: Algorithm,
    offset: u64,
    total: u64,
    started_at: SystemTime,
    updated_at: SystemTime,
    /// Whether something was written that is not synced.
    unsynced: bool,
    /// Tells followers how far it is; none once there will not be more.
    growth: Option<watch::Sender<Reached>>,
    _turn: Turn,
}

impl Writer {
    /// Opens the ingest's folder; `turn` keeps other writers away. Blocks.
    pub(crate) fn open(
        store: Arc<Inner>,
        reference: IngestRef,
        total: u64,
        expected: Option<Digest>,
        turn: Turn,
    ) -> Result<Self, ContentError> {
        let algorithm = expected.as_ref().map_or(Algorithm::Sha256, Digest::algorithm);
        let folder = Folder::of(store.root(), &reference);
        let Resumed { file, hasher, offset, total, started_at, updated_at } =
            folder.open(&reference, total, algorithm)?;
        let growth = watch::Sender::new(Reached { offset, total, committed: false });
        store.grows(&reference, growth.subscribe());
        let state = State {
            store: Arc::clone(&store),
            folder,
            reference: reference.clone(),
            file: Some(file),
            hasher,
            algorithm,
            offset,
            total,
            started_at,
            updated_at,
            unsynced: false,
            growth: Some(growth),
            _turn: turn,
        };
        Ok(Self { store, reference, state: Arc::new(Mutex::new(state)), expected })
    }

    async fn with<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut State) -> Result<T, ContentError> + Send + 'static,
    ) -> Result<T> {
        let state = Arc::clone(&self.state);
        blocking(move || work(&mut lock(&state))).await
    }
}

#[async_trait]
impl Ingest for Writer {
    async fn status(&self) -> Result<IngestStatus> {
        let expected = self.expected.clone();
        let status = match self.state.try_lock() {
            Ok(state) => Some(state.status()),
            Err(TryLockError::Poisoned(state)) => Some(state.into_inner().status()),
            Err(TryLockError::WouldBlock) => None,
        };
        let status = match status {
            Some(status) => status,
            None => self.with(|state| Ok(state.status())).await?,
        };
        Ok(IngestStatus { expected, ..status })
    }

    fn digest(&self) -> Option<Digest> {
        let state = self.state.try_lock().ok()?;
        Some(state.hasher.clone().finish())
    }

    async fn write(&mut self, offset: u64, data: Bytes) -> Result<()> {
        self.with(move |state| state.append(offset, &data)).await
    }

    async fn truncate(&mut self, size: u64) -> Result<()> {
        self.with(move |state| state.truncate(size)).await
    }

    async fn commit(&mut self, request: CommitRequest) -> Result<Digest> {
        let CommitRequest { size, expected, labels: _ } = request;
        let expected = expected.or_else(|| self.expected.clone());
        self.with(move |state| state.commit(size, expected)).await
    }
}

impl State {
    fn status(&self) -> IngestStatus {
        IngestStatus {
            reference: self.reference.clone(),
            offset: self.offset,
            total: self.total,
            expected: None,
            started_at: self.started_at,
            updated_at: self.updated_at,
        }
    }

    fn file(&mut self) -> Result<&mut File, ContentError> {
        let committed = || ContentError::Committed(self.reference.to_string());
        self.file.as_mut().ok_or_else(committed)
    }

    fn append(&mut self, offset: u64, data: &[u8]) -> Result<(), ContentError> {
        let present = self.offset;
        if offset != present {
            return Err(ContentError::Offset { offset, present });
        }
        let path = self.folder.data();
        let file = self.file()?;
        if let Err(error) = file.write_all_at(data, offset) {
            // A full disk takes part of it; the next writer must not find more than was hashed.
            let cut = file.set_len(present);
            if let Err(cut) = cut {
                tracing::error!(path = %path.display(), error = %cut, "an ingest has bytes that are not counted");
            }
            return Err(ContentError::io("write", &path)(error));
        }
        self.offset += data.len() as u64;
        // First, so that followers go on while this is hashed.
        self.tell(false);
        self.hasher.update(data);
        self.updated_at = SystemTime::now();
        self.unsynced = true;
        Ok(())
    }

    fn truncate(&mut self, size: u64) -> Result<(), ContentError> {
        if size > self.offset {
            return Err(ContentError::Cut {
                reference: self.reference.to_string(),
                present: self.offset,
                size,
            });
        }
        if size == self.offset {
            self.file()?;
            return Ok(());
        }
        let (path, mut hasher) = (self.folder.data(), Hasher::new(self.algorithm));
        // Those who followed have read what is no more.
        self.growth = Some(watch::Sender::new(Reached::default()));
        let file = self.file()?;
        file.set_len(size).map_err(ContentError::io("cut", &path))?;
        if size > 0 {
            file.seek(SeekFrom::Start(0))
                .and_then(|_| hash(file, &mut hasher, size))
                .map_err(ContentError::io("read", &path))?;
        }
        self.hasher = hasher;
        self.offset = size;
        self.updated_at = SystemTime::now();
        self.unsynced = true;
        self.tell(false);
        if let Some(growth) = &self.growth {
            self.store.grows(&self.reference, growth.subscribe());
        }
        Ok(())
    }

    /// Tells followers how far it is.
    fn tell(&self, committed: bool) {
        if let Some(growth) = &self.growth {
            growth.send_replace(Reached { offset: self.offset, total: self.total, committed });
        }
    }

    fn commit(&mut self, size: Option<u64>, expected: Option<Digest>) -> Result<Digest, ContentError> {
        let actual_size = self.offset;
        self.file()?;
        if let Some(expected) = size.filter(|&size| size != actual_size) {
            return Err(ContentError::Size { actual: actual_size, expected });
        }
        if let Some(expected) = &expected {
            self.hash_by(expected.algorithm())?;
        }
        let actual = self.hasher.clone().finish();
        if let Some(expected) = expected.filter(|expected| *expected != actual) {
            return Err(ContentError::Digest { actual, expected });
        }
        if self.store.blobs().info(&actual).is_ok() {
            self.finish();
            return Err(ContentError::Exists(actual));
        }
        let path = self.folder.data();
        let times = FileTimes::new().set_modified(SystemTime::now()).set_accessed(SystemTime::now());
        let file = self.file()?;
        file.set_permissions(Permissions::from_mode(0o444))
            .and_then(|()| file.set_times(times))
            .map_err(ContentError::io("finish", &path))?;
        let length = file.metadata().map_err(ContentError::io("look at", &path))?.len();
        if length != actual_size {
            return Err(ContentError::Size { actual: length, expected: actual_size });
        }
        let store = Arc::clone(&self.store);
        store.blobs().publish(self.file()?, &path, &actual)?;
        self.tell(true);
        self.finish();
        Ok(actual)
    }

    /// Nobody said before which hash it would be, so it is read once more.
    fn hash_by(&mut self, algorithm: Algorithm) -> Result<(), ContentError> {
        if self.algorithm == algorithm {
            return Ok(());
        }
        let (path, mut hasher) = (self.folder.data(), Hasher::new(algorithm));
        let offset = self.offset;
        let file = self.file()?;
        file.seek(SeekFrom::Start(0))
            .and_then(|_| hash(file, &mut hasher, offset))
            .map_err(ContentError::io("read", &path))?;
        self.hasher = hasher;
        self.algorithm = algorithm;
        Ok(())
    }

    /// The blob is there; what is left of the ingest is of no use.
    fn finish(&mut self) {
        self.growth = None;
        self.file = None;
        self.unsynced = false;
        if let Err(error) = self.folder.remove() {
            let error = berth_types::Error::from(error);
            tracing::warn!(reference = %self.reference, error = error.chain(), "an ingest's folder stays");
        }
    }
}

/// A writer that goes away leaves what it wrote to the next one, even after a power cut. Writers
/// are dropped where nobody may wait for a disk, so another thread does it, which keeps the turn
/// until then.
impl Drop for Writer {
    fn drop(&mut self) {
        // A call that nobody waits for may still be under way; it ends first.
        let idle = self.state.try_lock().is_ok_and(|state| !state.unsynced);
        if idle {
            return;
        }
        self.store.leave(&self.reference);
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            let state = Arc::clone(&self.state);
            runtime.spawn_blocking(move || lock(&state).let_go());
        }
    }
}

impl State {
    fn let_go(&mut self) {
        self.growth = None;
        let Some(file) = self.file.take().filter(|_| self.unsynced) else { return };
        let path = self.folder.data();
        let noted = file
            .sync_data()
            .map_err(ContentError::io("sync", &path))
            .and_then(|()| self.folder.note(SystemTime::now()));
        if let Err(error) = noted {
            let error = berth_types::Error::from(error);
            tracing::warn!(reference = %self.reference, error = error.chain(), "an ingest may not be resumed");
        }
    }
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}
