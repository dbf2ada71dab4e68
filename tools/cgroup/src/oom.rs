//! News that memory has run out in a container's cgroup.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::event::{EventfdFlags, eventfd};
use rustix::fs::inotify;
use rustix::fs::{CWD, Mode, OFlags, openat};

use crate::read::Table;

/// A descriptor that becomes readable, edge by edge, when the cgroup has something to tell: then ask
/// [`OomWatch::take`].
#[derive(Debug)]
pub struct OomWatch {
    fd: OwnedFd,
    folder: PathBuf,
    source: Source,
}

#[derive(Debug)]
enum Source {
    /// An eventfd which the kernel rings when it looks for a victim, and when the cgroup goes.
    V1,
    /// An inotify watch on the counters, with the last count.
    V2 { kills: u64 },
}

impl OomWatch {
    pub(crate) fn v1(folder: &Path) -> io::Result<Self> {
        let fd = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        let control =
            openat(CWD, folder.join("memory.oom_control"), OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
        let request = format!("{} {}", fd.as_raw_fd(), control.as_raw_fd());
        std::fs::write(folder.join("cgroup.event_control"), request)?;
        Ok(Self { fd, folder: folder.to_owned(), source: Source::V1 })
    }

    pub(crate) fn v2(folder: &Path) -> io::Result<Self> {
        let fd = inotify::init(inotify::CreateFlags::CLOEXEC | inotify::CreateFlags::NONBLOCK)?;
        inotify::add_watch(&fd, folder.join("memory.events"), inotify::WatchFlags::MODIFY)?;
        Ok(Self { fd, folder: folder.to_owned(), source: Source::V2 { kills: 0 } })
    }

    /// Whether something was killed for memory since the last call. Never blocks.
    pub fn take(&mut self) -> bool {
        let mut bytes = [0; 1024];
        let mut rang = false;
        while rustix::io::read(&self.fd, &mut bytes).is_ok_and(|count| count > 0) {
            rang = true;
            if matches!(self.source, Source::V1) {
                break;
            }
        }
        match &mut self.source {
            // The last ring is for the end of the cgroup.
            Source::V1 => rang && self.folder.join("memory.oom_control").exists(),
            Source::V2 { kills } => {
                let table = Table::read(&self.folder, "memory.events").unwrap_or_default();
                let now = if table.is_empty() { *kills } else { table.number("oom_kill") };
                std::mem::replace(kills, now) < now
            }
        }
    }
}

impl AsFd for OomWatch {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}
