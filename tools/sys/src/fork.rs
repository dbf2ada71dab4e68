//! A second process from this one, for daemons that serve on after they have answered.

#![expect(unsafe_code, reason = "fork has no safe wrapper: it copies one thread of many")]

use std::io;

/// Which of the two the caller now is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fork {
    /// The old process; the new one has this number.
    Parent(u32),
    /// The new process.
    Child,
}

/// Forks. Refused (`Unsupported`) when the process has more than one thread, because the others' locks would stay
/// taken in the child for ever.
pub fn fork() -> io::Result<Fork> {
    if std::fs::read_dir("/proc/self/task")?.count() != 1 {
        return Err(io::Error::new(io::ErrorKind::Unsupported, "a process with several threads cannot fork"));
    }
    // SAFETY: this is the only thread, as just seen and as nobody else could start another meanwhile; so the child
    // has every thread, and every lock's owner, that the parent had.
    match unsafe { libc::fork() } {
        -1 => Err(io::Error::last_os_error()),
        0 => Ok(Fork::Child),
        pid => Ok(Fork::Parent(pid as u32)),
    }
}
