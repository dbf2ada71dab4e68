//! News that the kernel killed a process of a container for memory.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::event::{EventfdFlags, eventfd};
use rustix::fs::inotify;

use crate::error::{Doing as _, Result};

/// A source of out-of-memory events: poll its descriptor for reading, then ask [`OomEvents::take`].
///
/// v1: an eventfd that the memory cgroup signals. v2: an inotify watch on `memory.events`.
#[derive(Debug)]
pub struct OomEvents {
    fd: OwnedFd,
    source: Source,
}

#[derive(Debug)]
enum Source {
    V1 { control: PathBuf },
    V2 { events: PathBuf, killed: u64 },
}

impl OomEvents {
    pub(crate) fn v1(own: &Path) -> Result<Self> {
        let control = own.join("memory.oom_control");
        let doing = || format!("cannot watch {}", control.display());
        let fd = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK).doing(doing)?;
        let file = File::open(&control).doing(doing)?;
        let line = format!("{} {}", fd.as_raw_fd(), file.as_raw_fd());
        std::fs::write(own.join("cgroup.event_control"), line).doing(doing)?;
        Ok(Self { fd, source: Source::V1 { control } })
    }

    pub(crate) fn v2(own: &Path) -> Result<Self> {
        let events = own.join("memory.events");
        let doing = || format!("cannot watch {}", events.display());
        let flags = inotify::CreateFlags::CLOEXEC | inotify::CreateFlags::NONBLOCK;
        let fd = inotify::init(flags).doing(doing)?;
        inotify::add_watch(&fd, &events, inotify::WatchFlags::MODIFY).doing(doing)?;
        let killed = killed(&events).unwrap_or(0);
        Ok(Self { fd, source: Source::V2 { events, killed } })
    }

    /// The events since the last call: whether something was killed for memory, or the cgroup is
    /// gone. Never blocks.
    pub fn take(&mut self) -> io::Result<Oom> {
        let mut buffer = [0u8; 4096];
        let read = loop {
            match rustix::io::read(&self.fd, &mut buffer) {
                Err(rustix::io::Errno::INTR) => {}
                Err(rustix::io::Errno::AGAIN) => break 0,
                done => break done?,
            }
        };
        Ok(match &mut self.source {
            // The eventfd also rings when the cgroup is removed.
            Source::V1 { control } if !control.exists() => Oom::Gone,
            Source::V1 { .. } => {
                if read > 0 {
                    Oom::Killed
                } else {
                    Oom::Nothing
                }
            }
            Source::V2 { events, killed: before } => match killed(events) {
                None => Oom::Gone,
                Some(now) if now > *before => {
                    *before = now;
                    Oom::Killed
                }
                Some(_) => Oom::Nothing,
            },
        })
    }
}

/// How many were killed; `None` when the cgroup is gone.
fn killed(events: &Path) -> Option<u64> {
    let text = std::fs::read_to_string(events).ok()?;
    let count = text.lines().find_map(|line| line.strip_prefix("oom_kill "));
    Some(count.and_then(|count| count.trim().parse().ok()).unwrap_or(0))
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
