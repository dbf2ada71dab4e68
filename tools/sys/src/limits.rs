//! How many files a process may have open.

use std::io;

use rustix::process::{Pid, Resource, Rlimit, getrlimit, prlimit, setrlimit};

/// A limit of open files, as programs are started with it.
///
/// The soft one is low by tradition: programs that use `select` break above 1024. One that needs more raises its own
/// and hands on what it was given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OpenFiles(Rlimit);

impl OpenFiles {
    /// Raises this process's soft limit to its hard one, and gives what it was before.
    pub fn raise() -> io::Result<Self> {
        let before = getrlimit(Resource::Nofile);
        let raised = Rlimit { current: before.maximum, maximum: before.maximum };
        setrlimit(Resource::Nofile, raised)?;
        Ok(Self(before))
    }

    /// How many may be open; `None` without a limit.
    pub fn soft(&self) -> Option<u64> {
        self.0.current
    }

    /// Gives this limit to a child that is not waited for yet.
    pub(crate) fn give(&self, child: Pid) -> io::Result<()> {
        prlimit(Some(child), Resource::Nofile, self.0)?;
        Ok(())
    }
}
