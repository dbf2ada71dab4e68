//! Finding the database: whole, new, of an earlier format, or damaged.

use std::fs;
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use berth_types::{Error, Result};

use crate::backup::{Backup, Pair};
use crate::codec::{Damaged, Decoder, Encoder};
use crate::gc::orphans;
use crate::key::{Kind, key};
use crate::record::{Record, decode};
use crate::sequence;
use crate::storage::{Check, Commit, Read, Redb, Storage, StorageError, Write};

/// The format that this build writes. A database with a greater one was written by a daemon that
/// stores something this one cannot keep true. Fields that are added to records don't raise it.
const SCHEMA: u64 = 1;

/// A file up to this size is checked page by page when it is opened, which takes some
/// milliseconds at most; a larger one is checked after a crash only.
const CHECKED: u64 = 8 << 20;

/// How the database was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Opening {
    /// There was none.
    New,
    /// As it was left.
    Existing,
    /// It could not be used, or was gone: a new one was begun, with what the last backup had.
    /// Nothing that the backends hold is removed until somebody asks for it.
    Rebuilt {
        /// Where the old one is, if there was one.
        kept: Option<PathBuf>,
        /// What was wrong with it.
        why: String,
        /// How many records the backup had; none without one.
        restored: usize,
    },
}

pub(crate) fn open(path: &Path) -> Result<(Redb, Opening)> {
    if let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(folder)
            .map_err(|source| Error::io(format!("cannot make the folder {}", folder.display()), source))?;
    }
    let size = match fs::metadata(path) {
        Ok(found) => found.len(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => 0,
        Err(source) => return Err(Error::io(format!("cannot look at {}", path.display()), source)),
    };
    let backup = Backup::of(path);
    if size == 0 {
        let pairs = backup.read();
        let storage = attempt(path, 0).map_err(Unusable::into_error)?;
        if pairs.is_empty() {
            return Ok((storage, Opening::New));
        }
        let restored = restore(&storage, pairs)?;
        let why = "it is gone, and there is a backup of it".to_owned();
        return Ok((storage, Opening::Rebuilt { kept: None, why, restored }));
    }
    match attempt(path, size) {
        Ok(storage) => Ok((storage, Opening::Existing)),
        Err(Unusable::Storage(error @ (StorageError::InUse { .. } | StorageError::Io { .. }))) => {
            Err(error.into())
        }
        Err(unusable) => {
            let why = unusable.why();
            let kept = set_aside(path)?;
            let storage = attempt(path, 0).map_err(Unusable::into_error)?;
            let restored = restore(&storage, backup.read())?;
            tracing::error!(
                database = %path.display(), kept = %kept.display(), why, restored,
                "the metadata database cannot be used, a new one is begun"
            );
            Ok((storage, Opening::Rebuilt { kept: Some(kept), why, restored }))
        }
    }
}

/// Puts the records of a backup into a new database, and takes care that nothing is lost that it
/// does not know of; answers how many records it had.
fn restore(storage: &dyn Storage, mut pairs: Vec<Pair>) -> Result<usize> {
    let schema = pairs.iter().find(|(key, _)| *key == schema_key());
    let known = schema
        .is_some_and(|(key, value)| decode::<Schema>(key, value).is_ok_and(|schema| schema.0 <= SCHEMA));
    if !known {
        pairs.clear();
    }
    let mut failed = None;
    storage.update(&mut |records: &mut dyn Write| {
        let stored = pairs.iter().try_for_each(|(key, value)| records.store(key, value).map(drop));
        let ready = stored
            .and_then(|()| sequence::leap(records))
            // What the backends hold is worth more now than ever.
            .and_then(|()| orphans::keep_in(records));
        match ready {
            Ok(()) => Some(Commit::SYNCED),
            Err(error) => {
                failed = Some(error);
                None
            }
        }
    })?;
    if let Some(error) = failed {
        return Err(error);
    }
    prepare_with(storage).map_err(Unusable::into_error)?;
    Ok(pairs.len())
}

/// Why a file cannot be used.
enum Unusable {
    Storage(StorageError),
    Read(Error),
    Later(u64),
}

impl Unusable {
    fn why(self) -> String {
        self.into_error().chain()
    }

    fn into_error(self) -> Error {
        match self {
            Self::Storage(error) => error.into(),
            Self::Read(error) => error,
            Self::Later(schema) => Error::failed_precondition(format!(
                "it has format {schema}, and this daemon knows formats up to {SCHEMA}: use the daemon that wrote it"
            )),
        }
    }
}

fn attempt(path: &Path, size: u64) -> Result<Redb, Unusable> {
    if size == 0 {
        make(path)?;
    }
    let check = if size > 0 && size <= CHECKED { Check::Everything } else { Check::Header };
    let storage = Redb::open(path, check).map_err(Unusable::Storage)?;
    prepare_with(&storage)?;
    Ok(storage.with_reserve())
}

/// Makes an empty database. It gets its name once it is whole, so that a crash here leaves none.
fn make(path: &Path) -> Result<(), Unusable> {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".new");
    let unfinished = path.with_file_name(name);
    let failed =
        |what, source| Unusable::Storage(StorageError::Io { what, path: unfinished.clone(), source });
    match fs::remove_file(&unfinished) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed("begin", error)),
        _ => {}
    }
    let storage = Redb::open(&unfinished, Check::Header).map_err(Unusable::Storage)?;
    prepare_with(&storage)?;
    storage.close().map_err(Unusable::Storage)?;
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    fs::rename(&unfinished, path)
        .and_then(|()| fs::File::open(folder)?.sync_all())
        .map_err(|source| failed("name", source))
}

/// Checks the format, and brings an earlier one up to date in one commit.
#[cfg(test)]
pub(crate) fn prepare(storage: &dyn Storage) -> Result<()> {
    prepare_with(storage).map_err(Unusable::into_error)
}

fn prepare_with(storage: &dyn Storage) -> Result<(), Unusable> {
    let meta = schema_key();
    let mut found = None;
    storage
        .view(&mut |read: &dyn Read| {
            found = match read.load(&meta)? {
                Some(value) => Some(decode::<Schema>(&meta, &value)?.0),
                None => None,
            };
            Ok(())
        })
        .map_err(Unusable::Read)?;
    match found {
        Some(SCHEMA) => Ok(()),
        Some(later) if later > SCHEMA => Err(Unusable::Later(later)),
        earlier => {
            let mut failed = None;
            let written = storage.update(&mut |records: &mut dyn Write| {
                let migrated = migrate(records, earlier.unwrap_or(0))
                    .and_then(|()| records.store(&meta, &Schema(SCHEMA).write(Encoder::new()).finish()));
                match migrated {
                    Ok(_) => Some(Commit::SYNCED),
                    Err(error) => {
                        failed = Some(error);
                        None
                    }
                }
            });
            match failed {
                Some(error) => Err(Unusable::Read(error)),
                None => written.map_err(Unusable::Storage),
            }
        }
    }
}

/// One step from each format to the next; format 0 is a database without records.
const MIGRATIONS: [fn(&mut dyn Write) -> Result<()>; SCHEMA as usize] = [|_| Ok(())];

fn migrate(records: &mut dyn Write, from: u64) -> Result<()> {
    MIGRATIONS.iter().skip(from as usize).try_for_each(|step| step(records))
}

fn schema_key() -> Vec<u8> {
    key(Kind::Meta, &["schema"])
}

struct Schema(u64);

impl Record for Schema {
    fn write(&self, to: Encoder) -> Encoder {
        to.number(self.0)
    }

    fn read(from: &mut Decoder<'_>) -> std::result::Result<Self, Damaged> {
        Ok(Self(from.number()?))
    }
}

/// Renames the file so that it says what it is and nothing overwrites it.
fn set_aside(path: &Path) -> Result<PathBuf> {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(format!(".unusable-{}", since.as_millis()));
    let kept = path.with_file_name(name);
    fs::rename(path, &kept)
        .map_err(|source| Error::io(format!("cannot set {} aside", path.display()), source))?;
    Ok(kept)
}
