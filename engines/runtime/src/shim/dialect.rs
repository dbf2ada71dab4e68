//! What shims that are not ours read on standard input, found out once per build of a program.
//!
//! containerd 2.3 writes `BootstrapParams` there, older ones wrote the runtime's options alone. Shims from
//! 1.7 on take no offence at what they don't understand; one of 1.6 fails. A program that refuses the new
//! form the first time is asked again in the old one, and what worked is remembered.

use std::collections::HashMap;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

/// A form of a shim's standard input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Dialect {
    /// `BootstrapParams`.
    Bootstrap,
    /// The options as `google.protobuf.Any`, or nothing.
    Options,
}

/// What is known of programs.
#[derive(Default)]
pub(crate) struct Dialects(Mutex<HashMap<Build, Dialect>>);

/// One build of a program: an upgrade in place is another one.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Build {
    path: PathBuf,
    inode: u64,
    changed: (i64, i64),
}

impl Build {
    fn of(path: &Path) -> Option<Self> {
        let found = path.metadata().ok()?;
        let changed = (found.mtime(), found.mtime_nsec());
        Some(Self { path: path.to_owned(), inode: found.ino(), changed })
    }
}

impl Dialects {
    /// What the program is known to read.
    pub(crate) fn of(&self, program: &Path) -> Option<Dialect> {
        let build = Build::of(program)?;
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(&build).copied()
    }

    /// Remembers what worked.
    pub(crate) fn learn(&self, program: &Path, dialect: Dialect) {
        if let Some(build) = Build::of(program) {
            self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(build, dialect);
        }
    }
}
