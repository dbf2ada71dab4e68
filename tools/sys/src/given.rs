//! Descriptors that the starter of this process has left open for it.

#![expect(unsafe_code, reason = "a bare number becomes an owned descriptor")]

use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};

/// A copy, closed on exec, of the descriptor that the starter left open under this number.
pub fn descriptor(number: i32) -> io::Result<OwnedFd> {
    // SAFETY: the number is only used for the one call that follows, which fails if nothing is open under it.
    let given = unsafe { BorrowedFd::borrow_raw(number) };
    Ok(rustix::io::fcntl_dupfd_cloexec(given, 3)?)
}

/// Closes the descriptors `first` to `last` that the starter left open, so that it sees them closed.
///
/// For the start of a program, when nothing of its own can be open under these numbers yet.
pub fn close(first: u32, last: u32) -> io::Result<()> {
    // SAFETY: the numbers are the starter's by its protocol; no object of this process owns one of them.
    let closed = unsafe { libc::syscall(libc::SYS_close_range, first, last, 0) };
    if closed == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
