//! Waiting for an event with a deadline. What has no descriptor to wait on is looked at again
//! every few milliseconds; nothing waits for a fixed time and hopes.

use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, pidfd_open};

/// How long to wait for anything that should happen at once on an idle machine. Tests run on busy ones.
pub const SOON: Duration = Duration::from_secs(60);

/// How long at most until a condition without a descriptor is looked at again.
const AGAIN: Duration = Duration::from_millis(5);
/// The part of the time waited so far after which it is looked at again: soon at first, so that a wait that is
/// timed is not much longer than what it waits for.
const PART: u32 = 20;

/// Looks until `look` finds something. Panics with `what` when `limit` has passed.
#[track_caller]
pub fn until<T>(what: &str, limit: Duration, mut look: impl FnMut() -> Option<T>) -> T {
    let began = Instant::now();
    loop {
        if let Some(found) = look() {
            return found;
        }
        let waited = began.elapsed();
        assert!(waited < limit, "waited {limit:?} for {what}");
        pause(&mut [], (waited / PART).clamp(AGAIN / 50, AGAIN));
    }
}

/// Looks until `holds` is true. Panics with `what` after [`SOON`].
#[track_caller]
pub fn soon(what: &str, mut holds: impl FnMut() -> bool) {
    until(what, SOON, || holds().then_some(()));
}

/// One process, watched by descriptor so that its number cannot come to mean another.
#[derive(Debug)]
pub struct Watched(OwnedFd);

impl Watched {
    /// Watches process `pid`; `None` when there is none.
    pub fn open(pid: u32) -> Option<Self> {
        let pid = Pid::from_raw(i32::try_from(pid).ok()?)?;
        pidfd_open(pid, PidfdFlags::empty()).ok().map(Self)
    }

    /// Waits at most `limit` for the process's end, and says whether it came.
    pub fn ends_within(&self, limit: Duration) -> bool {
        let mut descriptors = [PollFd::new(&self.0, PollFlags::IN)];
        pause(&mut descriptors, limit) > 0
    }

    /// Sends `signal`; a process that has ended is no error.
    pub fn signal(&self, signal: rustix::process::Signal) {
        // The only failures left for an open descriptor are "has ended" and "not allowed".
        let _ = rustix::process::pidfd_send_signal(self.0.as_fd(), signal);
    }
}

/// Waits for any of `descriptors` or for `limit`; gives how many are ready.
pub(crate) fn pause(descriptors: &mut [PollFd<'_>], limit: Duration) -> usize {
    let deadline = Instant::now() + limit;
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let left = Timespec { tv_sec: left.as_secs() as i64, tv_nsec: i64::from(left.subsec_nanos()) };
        match poll(descriptors, Some(&left)) {
            Ok(ready) => return ready,
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => panic!("cannot poll: {error}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[should_panic(expected = "for the moon")]
    fn a_wait_ends_at_its_deadline() {
        until("the moon", Duration::from_millis(20), || None::<()>);
    }

    #[test]
    fn the_end_of_a_process_is_seen() {
        let mut child = std::process::Command::new("true").spawn().expect("every machine has true");
        let watched = Watched::open(child.id()).expect("an unreaped child is there");
        assert!(watched.ends_within(SOON));
        child.wait().expect("it is our child");
    }
}
