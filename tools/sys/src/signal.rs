//! Signals as a descriptor that a poll loop reads.

#![expect(unsafe_code, reason = "signalfd and sigprocmask have no wrapper in rustix")]

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, FromRawFd, OwnedFd};

use rustix::io::Errno;

/// Signals that arrive as readable bytes instead of interrupting the process.
#[derive(Debug)]
pub struct SignalFd(OwnedFd);

impl SignalFd {
    /// Blocks `signals` in the calling thread and opens a descriptor, not blocking, that tells of them.
    ///
    /// Call it before the first thread is started: threads inherit the mask. So do programs that are executed; the
    /// standard library's `Command` clears the mask of its children.
    pub fn block(signals: &[i32]) -> io::Result<Self> {
        let mut set = MaybeUninit::<libc::sigset_t>::uninit();
        // SAFETY: `set` is memory of the right size and type, which this call initialises.
        unsafe { libc::sigemptyset(set.as_mut_ptr()) };
        for signal in signals {
            // SAFETY: `set` was initialised above; a number that is no signal is refused with an error.
            if unsafe { libc::sigaddset(set.as_mut_ptr(), *signal) } != 0 {
                return Err(io::Error::last_os_error());
            }
        }
        // SAFETY: `set` is initialised; the old mask is not asked for.
        let error = unsafe { libc::pthread_sigmask(libc::SIG_BLOCK, set.as_ptr(), std::ptr::null_mut()) };
        if error != 0 {
            return Err(io::Error::from_raw_os_error(error));
        }
        // SAFETY: `set` is initialised and only read.
        let fd = unsafe { libc::signalfd(-1, set.as_ptr(), libc::SFD_CLOEXEC | libc::SFD_NONBLOCK) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the call succeeded, so this is a fresh descriptor that nobody else owns.
        Ok(Self(unsafe { OwnedFd::from_raw_fd(fd) }))
    }

    /// The next signal that has arrived, or none.
    pub fn next(&self) -> io::Result<Option<i32>> {
        let mut record = [0u8; size_of::<libc::signalfd_siginfo>()];
        match rustix::io::read(&self.0, &mut record) {
            // The signal's number is the record's first field, in the machine's byte order.
            Ok(count) if count == record.len() => {
                Ok(Some(u32::from_ne_bytes([record[0], record[1], record[2], record[3]]) as i32))
            }
            Ok(_) | Err(Errno::AGAIN | Errno::INTR) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }
}

impl AsFd for SignalFd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// The signal of a number between 1 and `SIGRTMAX`; none for another.
pub fn by_number(number: i32) -> Option<rustix::process::Signal> {
    if let Some(signal) = rustix::process::Signal::from_named_raw(number) {
        return Some(signal);
    }
    if !(1..=libc::SIGRTMAX()).contains(&number) {
        return None;
    }
    // SAFETY: the kernel knows the number as a signal; those below `SIGRTMIN` that the C library keeps to itself
    // only reach other processes, which have a C library of their own.
    Some(unsafe { rustix::process::Signal::from_raw_unchecked(number) })
}
