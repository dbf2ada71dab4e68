//! Hooks that run inside the container's namespaces.

#![expect(unsafe_code, reason = "forks and executes in the new process")]

use std::os::fd::{AsRawFd, OwnedFd};

use berth_sys::child as sys;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::{Errno, Result};
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::{Pid, PidfdFlags, pidfd_open};

use super::step::At;
use super::{Failure, Step};
use crate::plan::HookCall;

/// Runs one hook with the state on its standard input, and waits for it.
pub(super) fn call(hook: &HookCall, state: &[u8], step: Step, n: usize) -> std::result::Result<(), Failure> {
    let (read, write) = pipe_with(PipeFlags::CLOEXEC).nth(Step::HookRun, n)?;
    // SAFETY: the process has one thread, being itself a clone; the new one only executes the hook.
    let pid = unsafe { sys::fork_again() }.nth(Step::HookRun, n)?;
    if pid == 0 {
        become_hook(hook, &read);
    }
    drop(read);
    // A pipe holds 64 KiB, more than any state; a hook that does not read it must not stop us.
    let _ = rustix::io::ioctl_fionbio(&write, true);
    let _ = rustix::io::write(&write, state);
    drop(write);
    let status = wait(pid, hook.timeout).nth(Step::HookRun, n)?;
    match status {
        Some(0) => Ok(()),
        Some(status) => Err(Failure { step, index: n as i32, code: status }),
        None => Err(Failure { step, index: n as i32, code: 0 }),
    }
}

fn become_hook(hook: &HookCall, stdin: &OwnedFd) -> ! {
    let _ = sys::duplicate_to(stdin.as_raw_fd(), 0);
    let _ = sys::close_range(3, u32::MAX, libc::CLOSE_RANGE_CLOEXEC);
    sys::default_signals();
    // SAFETY: Strings vectors end with a null pointer and own what they point to.
    unsafe { sys::execve(&hook.path, hook.argv.pointers(), hook.envp.pointers()) };
    sys::exit(127)
}

/// The wait status; `None` when the time was up and the hook was killed.
fn wait(pid: i32, timeout: i32) -> Result<Option<i32>> {
    if timeout > 0 {
        let named = Pid::from_raw(pid).ok_or(Errno::SRCH)?;
        let pidfd = pidfd_open(named, PidfdFlags::empty())?;
        let limit =
            Timespec { tv_sec: i64::from(timeout / 1000), tv_nsec: i64::from(timeout % 1000) * 1_000_000 };
        let mut fds = [PollFd::new(&pidfd, PollFlags::IN)];
        let ended = loop {
            match poll(&mut fds, Some(&limit)) {
                Err(Errno::INTR) => {}
                done => break done?,
            }
        };
        if ended == 0 {
            sys::kill(pid, libc::SIGKILL)?;
            sys::wait_child(pid, 0)?;
            return Ok(None);
        }
    }
    sys::wait_child(pid, 0)
}
