//! A process in the foreground: signals go to it, its terminal is ours, its exit code becomes ours.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use berth_sys::child::{pidfd_signal, terminal_size};
use berth_sys::signal::SignalFd;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use rustix::process::{WaitId, WaitIdOptions, waitid};
use rustix::termios::{OptionalActions, Termios, tcgetattr, tcgetwinsize, tcsetattr};

use super::Failure;

/// Signals that are passed on. Those that tell of our own faults, and SIGKILL and SIGSTOP, cannot be.
const FORWARDED: [i32; 10] = [
    libc::SIGHUP,
    libc::SIGINT,
    libc::SIGQUIT,
    libc::SIGUSR1,
    libc::SIGUSR2,
    libc::SIGPIPE,
    libc::SIGALRM,
    libc::SIGTERM,
    libc::SIGCONT,
    libc::SIGWINCH,
];

/// Ready to follow a process: signals wait from now on.
pub(super) struct Foreground {
    signals: SignalFd,
}

/// Standard input as it was, restored whatever happens.
struct Raw(Termios);

impl Drop for Raw {
    fn drop(&mut self) {
        let _ = tcsetattr(io::stdin(), OptionalActions::Drain, &self.0);
    }
}

impl Foreground {
    pub(super) fn prepare() -> Result<Self, Failure> {
        let signals =
            SignalFd::block(&FORWARDED).map_err(|e| Failure::new(format!("cannot receive signals: {e}")))?;
        Ok(Self { signals })
    }

    /// Follows the process to its end; its exit code, or 128 and the signal.
    pub(super) fn follow(&self, process: BorrowedFd<'_>, terminal: Option<OwnedFd>) -> Result<u8, Failure> {
        let failed = |e: Errno| Failure::new(format!("cannot follow the process: {e}"));
        let _raw = terminal.as_ref().and_then(|master| enter(master.as_fd()));
        let mut input = terminal.is_some();
        let mut output = terminal.is_some();
        loop {
            let stdin = io::stdin();
            let mut fds = vec![
                PollFd::new(&process, PollFlags::IN),
                PollFd::from_borrowed_fd(self.signals.as_fd(), PollFlags::IN),
            ];
            if let Some(master) = terminal.as_ref().filter(|_| output) {
                fds.push(PollFd::new(master, PollFlags::IN));
                if input {
                    fds.push(PollFd::new(&stdin, PollFlags::IN));
                }
            }
            match poll(&mut fds, None) {
                Err(Errno::INTR) => continue,
                done => done.map_err(failed)?,
            };
            let ready: Vec<bool> = fds.iter().map(|fd| !fd.revents().is_empty()).collect();
            drop(fds);
            let is = |n: usize| ready.get(n).copied().unwrap_or(false);
            if is(1) {
                self.forward(process, terminal.as_ref());
            }
            if let Some(master) = &terminal {
                if is(2) {
                    output = copy(master.as_fd(), rustix::stdio::stdout());
                }
                if is(3) {
                    input = copy(rustix::stdio::stdin(), master.as_fd());
                }
            }
            if is(0) {
                if let Some(master) = terminal.filter(|_| output) {
                    drain(master.as_fd());
                }
                return code(process).map_err(failed);
            }
        }
    }

    fn forward(&self, process: BorrowedFd<'_>, terminal: Option<&OwnedFd>) {
        while let Ok(Some(signal)) = self.signals.next() {
            match (signal, terminal) {
                (libc::SIGWINCH, Some(master)) => resize(master.as_fd()),
                (libc::SIGWINCH | libc::SIGPIPE, _) => {}
                // A process that has just ended needs none.
                (signal, _) => drop(pidfd_signal(process, signal)),
            }
        }
    }
}

fn enter(master: BorrowedFd<'_>) -> Option<Raw> {
    resize(master);
    let before = tcgetattr(io::stdin()).ok()?;
    let mut raw = before.clone();
    raw.make_raw();
    tcsetattr(io::stdin(), OptionalActions::Drain, &raw).ok()?;
    Some(Raw(before))
}

fn resize(master: BorrowedFd<'_>) {
    if let Ok(size) = tcgetwinsize(io::stdin()) {
        let _ = terminal_size(master, size.ws_row, size.ws_col);
    }
}

/// One portion; `false` at the end.
fn copy(from: BorrowedFd<'_>, to: BorrowedFd<'_>) -> bool {
    let mut buffer = [0u8; 16 << 10];
    let read = match rustix::io::read(from, &mut buffer) {
        Err(Errno::INTR | Errno::AGAIN) => return true,
        // A terminal whose last user has gone reads as EIO.
        Ok(0) | Err(_) => return false,
        Ok(read) => read,
    };
    let mut rest = &buffer[..read];
    while !rest.is_empty() {
        match rustix::io::write(to, rest) {
            Err(Errno::INTR) => {}
            Err(_) => return false,
            Ok(written) => rest = &rest[written..],
        }
    }
    true
}

/// What is left in the terminal after the process has ended.
fn drain(master: BorrowedFd<'_>) {
    let _ = rustix::io::ioctl_fionbio(master, true);
    let mut buffer = [0u8; 16 << 10];
    while let Ok(read @ 1..) = rustix::io::read(master, &mut buffer) {
        let _ = rustix::io::write(rustix::stdio::stdout(), &buffer[..read]);
    }
}

fn code(process: BorrowedFd<'_>) -> Result<u8, Errno> {
    let status = waitid(WaitId::PidFd(process), WaitIdOptions::EXITED)?.ok_or(Errno::CHILD)?;
    let signalled = || 128 + status.terminating_signal().unwrap_or(0);
    Ok(status.exit_status().unwrap_or_else(signalled) as u8)
}
