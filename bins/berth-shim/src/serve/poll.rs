//! The loop's eyes: descriptors, each with a number, watched edge-triggered for both directions.

use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use rustix::buffer::spare_capacity;
use rustix::event::{Timespec, epoll};
use rustix::io::Errno;

/// Events fetched at once; the rest come with the next call.
const BATCH: usize = 32;

/// An epoll set.
pub(crate) struct Poll {
    epoll: OwnedFd,
    last: u64,
    events: Vec<epoll::Event>,
}

impl Poll {
    pub(crate) fn new() -> std::io::Result<Self> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        Ok(Self { epoll, last: 0, events: Vec::with_capacity(BATCH) })
    }

    /// Watches a descriptor under a new number. Whoever is behind it has to go on until it would block.
    pub(crate) fn watch(&mut self, fd: impl AsFd) -> std::io::Result<u64> {
        self.last += 1;
        let flags =
            epoll::EventFlags::IN | epoll::EventFlags::OUT | epoll::EventFlags::RDHUP | epoll::EventFlags::ET;
        epoll::add(&self.epoll, fd, epoll::EventData::new_u64(self.last), flags)?;
        Ok(self.last)
    }

    /// A number that nothing is watched under.
    pub(crate) fn number(&mut self) -> u64 {
        self.last += 1;
        self.last
    }

    /// Watches no more. Needed before a descriptor is closed of which a copy lives on.
    pub(crate) fn forget(&self, fd: impl AsFd) {
        // Not watched is what was wanted.
        let _ = epoll::delete(&self.epoll, fd);
    }

    /// Waits for events and gives their numbers.
    pub(crate) fn wait(&mut self, timeout: Option<Duration>) -> std::io::Result<Vec<u64>> {
        let timeout = timeout
            .map(|left| Timespec { tv_sec: left.as_secs() as i64, tv_nsec: i64::from(left.subsec_nanos()) });
        self.events.clear();
        match epoll::wait(&self.epoll, spare_capacity(&mut self.events), timeout.as_ref()) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        Ok(self.events.iter().map(|event| event.data.u64()).collect())
    }
}
