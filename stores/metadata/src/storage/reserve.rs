//! Room that is kept for the changes that make room.
//!
//! Deleting a record writes new pages before it frees old ones, so on a full disk nothing could be
//! deleted any more. A file of allocated blocks beside the database is given free for the moment
//! in which a commit that adds nothing is written.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use rustix::fs::{FallocateFlags, fallocate, statvfs};

/// Enough for the new pages of a commit that deletes many records.
const SIZE: u64 = 1 << 20;

/// Less than this beside the reserve, and the disk is nearly full.
const MARGIN: u64 = SIZE / 2;

#[derive(Debug)]
pub(crate) struct Reserve {
    path: PathBuf,
    held: Mutex<bool>,
}

impl Reserve {
    /// Takes up the reserve of a database if there is room for it.
    pub(crate) fn of(database: &Path) -> Self {
        let mut name = database.file_name().unwrap_or(OsStr::new("meta")).to_owned();
        name.push(".reserve");
        let path = database.with_file_name(name);
        let held = fs::metadata(&path).is_ok_and(|found| found.len() >= SIZE);
        let reserve = Self { path, held: Mutex::new(held) };
        reserve.is_needed();
        reserve
    }

    /// Whether the disk is nearly full.
    pub(crate) fn is_needed(&self) -> bool {
        let Some(Ok(free)) = self.path.parent().map(statvfs) else { return false };
        let free = free.f_bavail.saturating_mul(free.f_frsize);
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        // Without the reserve, its size has to be free too.
        let needed = free < if *held { MARGIN } else { SIZE + MARGIN };
        if !needed && !*held {
            *held = self.take().is_ok();
        }
        needed
    }

    /// Commits something with the room of the reserve.
    pub(crate) fn lend<T>(&self, commit: impl FnOnce() -> T) -> T {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        if *held && let Err(error) = fs::remove_file(&self.path) {
            tracing::warn!(path = %self.path.display(), %error, "cannot give the reserve free");
        }
        let done = commit();
        *held = self.take().is_ok();
        done
    }

    fn take(&self) -> io::Result<()> {
        let file = File::create(&self.path)?;
        let taken = fallocate(&file, FallocateFlags::empty(), 0, SIZE);
        if taken.is_err() {
            fs::remove_file(&self.path)?;
        }
        Ok(taken?)
    }
}
