//! News that memory has run out in a container's cgroup.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::event::{EventfdFlags, eventfd};
use rustix::fs::inotify;

use crate::read::{Table, named};

/// The counters of v2.
const EVENTS: &str = "memory.events";

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
        let path = folder.join("memory.oom_control");
        let control = File::open(&path).map_err(|error| named(&path, &error))?;
        let request = format!("{} {}", fd.as_raw_fd(), control.as_raw_fd());
        let path = folder.join("cgroup.event_control");
        std::fs::write(&path, request).map_err(|error| named(&path, &error))?;
        Ok(Self { fd, folder: folder.to_owned(), source: Source::V1 })
    }

    pub(crate) fn v2(folder: &Path) -> io::Result<Self> {
        let fd = inotify::init(inotify::CreateFlags::CLOEXEC | inotify::CreateFlags::NONBLOCK)?;
        let path = folder.join(EVENTS);
        // Counted first: what is killed between the two is told, what was before is not.
        let kills = Table::read(folder, EVENTS)?.number("oom_kill");
        let watched = inotify::add_watch(&fd, &path, inotify::WatchFlags::MODIFY);
        watched.map_err(|error| named(&path, &error.into()))?;
        Ok(Self { fd, folder: folder.to_owned(), source: Source::V2 { kills } })
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
                let table = Table::read(&self.folder, EVENTS).unwrap_or_default();
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_killed_after_the_beginning_of_a_watch_is_news() {
        let scratch = tempfile::tempdir().unwrap();
        let killed = |number: u64| {
            std::fs::write(scratch.path().join(EVENTS), format!("oom 5\noom_kill {number}\n")).unwrap();
        };
        killed(1);
        let mut watch = OomWatch::v2(scratch.path()).unwrap();
        assert!(!watch.take());
        killed(3);
        assert!(watch.take());
        assert!(!watch.take());
        let error = OomWatch::v2(&scratch.path().join("gone")).unwrap_err();
        assert!(error.to_string().contains("gone/memory.events"), "{error}");
    }
}
