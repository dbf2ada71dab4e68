//! The few directories that were used last, by the path that named them.

use std::collections::HashMap;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

/// Descriptors kept open at most. A layer is written directory by directory, so a few suffice.
const CAPACITY: usize = 64;

/// A bounded map from a parent's path to its descriptor.
///
/// It holds what a path meant when it was resolved. Whoever removes or renames something inside the root
/// clears it, because the removed thing may have been a link on the way to a cached directory.
#[derive(Debug, Default)]
pub(super) struct Parents(Mutex<HashMap<PathBuf, Arc<OwnedFd>>>);

impl Parents {
    /// Returns the descriptor that `path` led to, if it is still held.
    pub(super) fn find(&self, path: &Path) -> Option<Arc<OwnedFd>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(path).cloned()
    }

    /// Remembers that `path` leads to `fd`; forgets everything else when full.
    pub(super) fn keep(&self, path: &Path, fd: &Arc<OwnedFd>) {
        let mut held = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if held.len() >= CAPACITY {
            held.clear();
        }
        held.insert(path.to_owned(), Arc::clone(fd));
    }

    /// Forgets every path.
    pub(super) fn clear(&self) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }
}
