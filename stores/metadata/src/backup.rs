//! A copy of all records in a file of its own, for the day on which the database is damaged.
//!
//! ```text
//!   "berth-metadata-backup 1\n"  (length key length value)*  0  SHA-256 of all before
//! ```
//!
//! It is written beside the database when the daemon ends, and now and then while it runs; what
//! changed since is not in it. Lengths are LEB128; no key is empty, so a zero ends the records.

use std::fs::{self, File};
use std::io::{self, BufWriter, Read as _, Write};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use berth_types::{Error, Result};
use sha2::{Digest, Sha256};

use crate::storage::Read;

const HEADER: &[u8] = b"berth-metadata-backup 1\n";

/// A database larger than this has no backup: it would take longer than a daemon may take to end.
const LARGEST: u64 = 64 << 20;

/// How old a backup gets while the daemon runs and something changes.
pub(crate) const INTERVAL: Duration = Duration::from_mins(15);

/// A record as it is stored.
pub(crate) type Pair = (Vec<u8>, Vec<u8>);

/// Where the backup of a database is.
#[derive(Clone, Debug)]
pub(crate) struct Backup {
    path: PathBuf,
}

impl Backup {
    pub(crate) fn of(database: &Path) -> Self {
        let mut name = database.file_name().unwrap_or_default().to_owned();
        name.push(".backup");
        Self { path: database.with_file_name(name) }
    }

    /// How long ago it was written; `None` if there is none.
    pub(crate) fn age(&self) -> Option<Duration> {
        let written = fs::metadata(&self.path).and_then(|metadata| metadata.modified()).ok()?;
        Some(SystemTime::now().duration_since(written).unwrap_or_default())
    }

    /// Replaces it by the records as they are. Blocks.
    pub(crate) fn write(&self, records: &dyn Read) -> Result<()> {
        let failed = |source| Error::io(format!("cannot write the backup {}", self.path.display()), source);
        let mut name = self.path.file_name().unwrap_or_default().to_owned();
        name.push(".new");
        let unfinished = self.path.with_file_name(name);
        let file = File::create(&unfinished).map_err(failed)?;
        let mut out = Hashing { to: BufWriter::with_capacity(1 << 16, file), hash: Sha256::new(), length: 0 };
        out.write_all(HEADER).map_err(failed)?;
        records.scan(&[], &mut |key, value| {
            out.field(key).and_then(|()| out.field(value)).map_err(failed)?;
            Ok(if out.length > LARGEST { ControlFlow::Break(()) } else { ControlFlow::Continue(()) })
        })?;
        if out.length > LARGEST {
            // An old copy would bring back what is long gone.
            let _ = fs::remove_file(&self.path);
            return fs::remove_file(&unfinished).map_err(failed);
        }
        let finish = || {
            let Hashing { mut to, mut hash, .. } = out;
            to.write_all(&[0])?;
            hash.update([0]);
            to.write_all(&hash.finalize())?;
            to.into_inner().map_err(io::IntoInnerError::into_error)?.sync_all()?;
            fs::rename(&unfinished, &self.path)
        };
        finish().map_err(failed)
    }

    /// Every record of it; none if there is no backup that is whole.
    pub(crate) fn read(&self) -> Vec<Pair> {
        let mut data = Vec::new();
        let read = File::open(&self.path).and_then(|file| file.take(2 * LARGEST).read_to_end(&mut data));
        let pairs = match read {
            Ok(_) => parse(&data),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Vec::new(),
            Err(_) => None,
        };
        pairs.unwrap_or_else(|| {
            tracing::error!(backup = %self.path.display(), "the backup of the metadata is damaged too");
            Vec::new()
        })
    }
}

struct Hashing<W> {
    to: W,
    hash: Sha256,
    length: u64,
}

impl<W: Write> Hashing<W> {
    fn write_all(&mut self, data: &[u8]) -> io::Result<()> {
        self.hash.update(data);
        self.length += data.len() as u64;
        self.to.write_all(data)
    }

    fn field(&mut self, data: &[u8]) -> io::Result<()> {
        let mut length = data.len() as u64;
        while length >= 0x80 {
            self.write_all(&[length as u8 | 0x80])?;
            length >>= 7;
        }
        self.write_all(&[length as u8])?;
        self.write_all(data)
    }
}

fn parse(data: &[u8]) -> Option<Vec<Pair>> {
    let (body, hash) = data.split_at_checked(data.len().checked_sub(32)?)?;
    if Sha256::digest(body)[..] != *hash {
        return None;
    }
    let mut rest = body.strip_prefix(HEADER)?.strip_suffix(&[0])?;
    let mut pairs = Vec::new();
    while !rest.is_empty() {
        let key = field(&mut rest)?;
        pairs.push((key, field(&mut rest)?));
    }
    Some(pairs)
}

fn field(rest: &mut &[u8]) -> Option<Vec<u8>> {
    let mut length = 0_usize;
    let mut shift = 0;
    loop {
        let (&byte, after) = rest.split_first()?;
        *rest = after;
        length |= usize::from(byte & 0x7f).checked_shl(shift)?;
        if byte & 0x80 == 0 {
            break;
        }
        shift += 7;
    }
    let (value, after) = rest.split_at_checked(length)?;
    *rest = after;
    Some(value.to_vec())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use testkit::Scratch;

    use super::*;
    use crate::storage::Visit;

    struct Records(Vec<Pair>);

    impl Read for Records {
        fn load(&self, _: &[u8]) -> Result<Option<Vec<u8>>> {
            Ok(None)
        }

        fn scan(&self, _: &[u8], visit: &mut Visit<'_>) -> Result<()> {
            for (key, value) in &self.0 {
                if visit(key, value)?.is_break() {
                    break;
                }
            }
            Ok(())
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn what_is_written_is_read_and_no_damage_passes(
            pairs in proptest::collection::vec(
                (proptest::collection::vec(any::<u8>(), 1..300), proptest::collection::vec(any::<u8>(), 0..300)), 0..20),
            flip: usize,
        ) {
            let scratch = Scratch::new();
            let backup = Backup::of(&scratch.path("meta.redb"));
            prop_assert_eq!(backup.age(), None);
            backup.write(&Records(pairs.clone())).unwrap();
            prop_assert!(backup.age().is_some());
            prop_assert_eq!(backup.read(), pairs);
            let path = scratch.path("meta.redb.backup");
            let mut data = fs::read(&path).unwrap();
            let bit = flip % (data.len() * 8);
            data[bit / 8] ^= 1 << (bit % 8);
            fs::write(&path, data).unwrap();
            prop_assert_eq!(backup.read(), Vec::new());
        }
    }
}
