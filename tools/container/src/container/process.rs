//! A process on the host that is or was a container's first one.

use std::fs;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, pidfd_open};

/// State letter and start time of a process; `None` when there is none of this number.
pub(crate) fn stat(pid: i32) -> Option<(char, u64)> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    parse(&text)
}

/// The name in parentheses may hold anything, so fields count from its end.
fn parse(text: &str) -> Option<(char, u64)> {
    let mut fields = text.get(text.rfind(')')? + 1..)?.split_whitespace();
    let state = fields.next()?.chars().next()?;
    // The start time is field 22 of all, the state is field 3.
    Some((state, fields.nth(18)?.parse().ok()?))
}

/// Whether the process of this number and start time still runs.
pub(crate) fn runs(pid: i32, start_time: u64) -> bool {
    stat(pid).is_some_and(|(state, started)| started == start_time && !matches!(state, 'Z' | 'X'))
}

/// A descriptor of the process, unless the number means another one by now.
pub(crate) fn open(pid: i32, start_time: u64) -> Option<OwnedFd> {
    let pidfd = pidfd_open(Pid::from_raw(pid)?, PidfdFlags::empty()).ok()?;
    // Looked at after opening: it is the one that the descriptor is of.
    stat(pid).is_some_and(|(_, started)| started == start_time).then_some(pidfd)
}

/// Waits until the process has ended; `false` when that takes too long.
pub(crate) fn await_end(pidfd: &OwnedFd, patience: Duration) -> bool {
    let begun = Instant::now();
    while let Some(left) = patience.checked_sub(begun.elapsed()) {
        let left = Timespec { tv_sec: left.as_secs() as i64, tv_nsec: left.subsec_nanos().into() };
        if matches!(poll(&mut [PollFd::new(pidfd, PollFlags::IN)], Some(&left)), Ok(n) if n > 0) {
            return true;
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_parentheses_does_not_shift_the_fields() {
        let line = "7 (a) b (c)) S 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 4242 20";
        assert_eq!(parse(line), Some(('S', 4242)));
        assert_eq!(parse("rubbish"), None);
        let own = std::process::id() as i32;
        let (_, started) = stat(own).unwrap();
        assert!(runs(own, started) && !runs(own, started + 1));
    }
}
