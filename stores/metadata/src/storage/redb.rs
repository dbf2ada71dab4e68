//! The records in one redb table, one file.
//!
//! After an I/O failure redb refuses all further work on a handle, so a failed commit opens the
//! file anew: a disk that was full for a moment does not end the daemon.

use std::fmt;
use std::ops::ControlFlow;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError, RwLock};
use std::time::{Duration, Instant};

use berth_types::{Error, Result};
use redb::{Builder, Database, DatabaseError, ReadableDatabase, ReadableTable, TableDefinition};

use super::reserve::Reserve;
use super::{Commit, Durability, Read, Storage, StorageError, Visit, Write};

const RECORDS: TableDefinition<'static, &[u8], &[u8]> = TableDefinition::new("records");

/// Enough for the inner nodes of a large database; the page cache of the kernel has the rest.
const CACHE: usize = 1 << 20;

/// How long a reopening waits for readers that still hold the old handle.
const READERS: Duration = Duration::from_secs(2);

/// A redb database.
pub(crate) struct Redb {
    path: PathBuf,
    database: RwLock<Option<Database>>,
    open: Mutex<Opener>,
    reserve: Option<Reserve>,
}

type Opener = Box<dyn FnMut() -> Result<Database, DatabaseError> + Send>;

impl fmt::Debug for Redb {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Redb").field("path", &self.path).finish_non_exhaustive()
    }
}

impl Redb {
    /// Opens or makes the file. With `check`, reads all of it and compares every checksum.
    pub(crate) fn open(path: &Path, check: Check) -> Result<Self, StorageError> {
        let file = path.to_owned();
        let mut check = check == Check::Everything;
        Self::with(
            path,
            Box::new(move || {
                // Only the first opening checks: a reopening has the daemon's work waiting for it.
                let check = std::mem::take(&mut check);
                Builder::new().set_cache_size(CACHE).set_check_integrity_on_open(check).create(&file)
            }),
        )
    }

    /// Keeps room beside the file for changes that make room on a full disk.
    pub(crate) fn with_reserve(mut self) -> Self {
        self.reserve = Some(Reserve::of(&self.path));
        self
    }

    /// A database on something that behaves like a file, for tests that lose writes.
    #[cfg(test)]
    pub(crate) fn on<B: redb::StorageBackend>(
        name: &Path,
        mut backend: impl FnMut() -> B + Send + 'static,
    ) -> Result<Self, StorageError> {
        Self::with(
            name,
            Box::new(move || Builder::new().set_cache_size(CACHE).create_with_backend(backend())),
        )
    }

    fn with(path: &Path, mut open: Opener) -> Result<Self, StorageError> {
        // redb asserts some of what a damaged file can break.
        let opened = catch_unwind(AssertUnwindSafe(|| {
            let database = open()?;
            database.begin_read().map(drop).map_err(|error| match error {
                redb::TransactionError::Storage(error) => DatabaseError::Storage(error),
                other => DatabaseError::Storage(redb::StorageError::Corrupted(other.to_string())),
            })?;
            Ok(database)
        }));
        let database = match opened {
            Ok(opened) => opened.map_err(|error| open_error(path, error))?,
            Err(_) => {
                return Err(StorageError::Damaged {
                    path: path.to_owned(),
                    source: "its pages contradict one another".into(),
                });
            }
        };
        let database = RwLock::new(Some(database));
        Ok(Self { path: path.to_owned(), database, open: Mutex::new(open), reserve: None })
    }

    fn attempt(&self, change: &mut dyn FnMut(&mut dyn Write) -> Option<Commit>) -> Result<(), StorageError> {
        let database = self.database.read().unwrap_or_else(PoisonError::into_inner);
        let database = database.as_ref().ok_or_else(|| self.closed("write"))?;
        let failed = |error: redb::Error| failure("write", &self.path, error);
        let mut transaction = database.begin_write().map_err(|error| failed(error.into()))?;
        transaction.set_durability(redb::Durability::None).map_err(|error| failed(error.into()))?;
        let commit = {
            let table = transaction.open_table(RECORDS).map_err(|error| failed(error.into()))?;
            change(&mut Writing { table, path: &self.path })
        };
        let Some(commit) = commit else {
            return transaction.abort().map_err(|error| failed(error.into()));
        };
        if commit.durability == Durability::Synced {
            transaction.set_durability(redb::Durability::Immediate).map_err(|error| failed(error.into()))?;
        }
        let write = || transaction.commit().map_err(|error| failed(error.into()));
        match &self.reserve {
            Some(reserve) if commit.frees && reserve.is_needed() => reserve.lend(write),
            _ => write(),
        }
    }

    /// Opens the file anew after a failure, with what the last synced commit left.
    fn reopen(&self) -> Result<(), StorageError> {
        let mut slot = self.database.write().unwrap_or_else(PoisonError::into_inner);
        drop(slot.take());
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let deadline = Instant::now() + READERS;
        loop {
            match open() {
                Ok(database) => {
                    *slot = Some(database);
                    return Ok(());
                }
                Err(DatabaseError::DatabaseAlreadyOpen) if Instant::now() < deadline => {
                    std::thread::park_timeout(Duration::from_millis(5));
                }
                Err(error) => return Err(open_error(&self.path, error)),
            }
        }
    }

    fn closed(&self, what: &'static str) -> StorageError {
        StorageError::Failed { what, path: self.path.clone(), source: "it is closed".into() }
    }
}

/// How much of a file is looked at when it is opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Check {
    /// What redb looks at by itself: everything after a crash, the header otherwise.
    Header,
    /// Every page.
    Everything,
}

impl Storage for Redb {
    fn view(&self, look: &mut dyn FnMut(&dyn Read) -> Result<()>) -> Result<()> {
        let guard = self.database.read().unwrap_or_else(PoisonError::into_inner);
        let database = guard.as_ref().ok_or_else(|| self.closed("read"))?;
        let failed = |error: redb::Error| Error::from(failure("read", &self.path, error));
        let transaction = database.begin_read().map_err(|error| failed(error.into()))?;
        // The read transaction goes on by itself; a reopening must not wait for a long look.
        drop(guard);
        let table = match transaction.open_table(RECORDS) {
            Ok(table) => Some(table),
            Err(redb::TableError::TableDoesNotExist(_)) => None,
            Err(error) => return Err(failed(error.into())),
        };
        look(&Reading { table, path: &self.path })
    }

    fn update(&self, change: &mut dyn FnMut(&mut dyn Write) -> Option<Commit>) -> Result<(), StorageError> {
        let done = catch_unwind(AssertUnwindSafe(|| self.attempt(change))).unwrap_or_else(|_| {
            Err(StorageError::Damaged {
                path: self.path.clone(),
                source: "its pages contradict one another".into(),
            })
        });
        if let Err(error) = &done {
            tracing::error!(%error, "metadata commit failed, opening the database anew");
            self.reopen()?;
        }
        done
    }

    fn is_nearly_full(&self) -> bool {
        self.reserve.as_ref().is_some_and(Reserve::is_needed)
    }

    fn close(&self) -> Result<(), StorageError> {
        let taken = self.database.write().unwrap_or_else(PoisonError::into_inner).take();
        match taken {
            Some(database) => database.close().map_err(|error| open_error(&self.path, error)),
            None => Ok(()),
        }
    }
}

struct Reading<'a> {
    table: Option<redb::ReadOnlyTable<&'static [u8], &'static [u8]>>,
    path: &'a Path,
}

impl Read for Reading<'_> {
    fn load(&self, key: &[u8]) -> Result<Option<Vec<u8>>> {
        self.table.as_ref().map_or(Ok(None), |table| load(table, self.path, key))
    }

    fn scan(&self, prefix: &[u8], visit: &mut Visit<'_>) -> Result<()> {
        self.table.as_ref().map_or(Ok(()), |table| scan(table, self.path, prefix, visit))
    }
}

struct Writing<'t, 'a> {
    table: redb::Table<'t, &'static [u8], &'static [u8]>,
    path: &'a Path,
}

impl Read for Writing<'_, '_> {
    fn load(&self, key: &[u8]) -> Result<Option<Vec<u8>>> {
        load(&self.table, self.path, key)
    }

    fn scan(&self, prefix: &[u8], visit: &mut Visit<'_>) -> Result<()> {
        scan(&self.table, self.path, prefix, visit)
    }
}

impl Write for Writing<'_, '_> {
    fn store(&mut self, key: &[u8], value: &[u8]) -> Result<Option<Vec<u8>>> {
        let old = self.table.insert(key, value).map_err(|error| failed("write", self.path, error))?;
        Ok(old.map(|old| old.value().to_vec()))
    }

    fn remove(&mut self, key: &[u8]) -> Result<Option<Vec<u8>>> {
        let old = self.table.remove(key).map_err(|error| failed("write", self.path, error))?;
        Ok(old.map(|old| old.value().to_vec()))
    }
}

fn load(
    table: &impl ReadableTable<&'static [u8], &'static [u8]>,
    path: &Path,
    key: &[u8],
) -> Result<Option<Vec<u8>>> {
    let value = table.get(key).map_err(|error| failed("read", path, error))?;
    Ok(value.map(|value| value.value().to_vec()))
}

fn scan(
    table: &impl ReadableTable<&'static [u8], &'static [u8]>,
    path: &Path,
    prefix: &[u8],
    visit: &mut Visit<'_>,
) -> Result<()> {
    for entry in table.range::<&[u8]>(prefix..).map_err(|error| failed("read", path, error))? {
        let (key, value) = entry.map_err(|error| failed("read", path, error))?;
        if !key.value().starts_with(prefix) {
            break;
        }
        if visit(key.value(), value.value())? == ControlFlow::Break(()) {
            break;
        }
    }
    Ok(())
}

fn failed(what: &'static str, path: &Path, error: redb::StorageError) -> Error {
    failure(what, path, error.into()).into()
}

fn failure(what: &'static str, path: &Path, error: redb::Error) -> StorageError {
    let path = path.to_owned();
    match error {
        redb::Error::Io(source) => StorageError::Io { what, path, source },
        redb::Error::Corrupted(why) => StorageError::Damaged { path, source: why.into() },
        other => StorageError::Failed { what, path, source: Box::new(other) },
    }
}

fn open_error(path: &Path, error: DatabaseError) -> StorageError {
    let path = path.to_owned();
    match error {
        DatabaseError::DatabaseAlreadyOpen | DatabaseError::LockProtocolMismatch => {
            StorageError::InUse { path }
        }
        DatabaseError::Storage(redb::StorageError::Io(source)) => match source.kind() {
            // Not a database, or cut off.
            std::io::ErrorKind::InvalidData | std::io::ErrorKind::UnexpectedEof => {
                StorageError::Damaged { path, source: Box::new(source) }
            }
            _ => StorageError::Io { what: "open", path, source },
        },
        other => StorageError::Damaged { path, source: Box::new(other) },
    }
}
