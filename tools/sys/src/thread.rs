//! Work that needs a thread's own view of the filesystem.

#![expect(unsafe_code, reason = "unshare(CLONE_FS) of a thread that is about to end")]

use std::io;
use std::path::Path;

/// Runs `work` with `directory` as its working directory, without changing the process' own.
///
/// Blocking; the work runs on a thread of its own, which shares everything but the working
/// directory, root and umask.
pub fn in_own_directory<T: Send>(
    directory: &Path,
    work: impl FnOnce() -> io::Result<T> + Send,
) -> io::Result<T> {
    std::thread::scope(|scope| {
        let worker = scope.spawn(|| {
            // SAFETY: CLONE_FS only separates this thread's working directory, root and umask from the
            // process'; no memory or descriptor is affected and the thread ends with the closure.
            if unsafe { libc::unshare(libc::CLONE_FS) } != 0 {
                return Err(io::Error::last_os_error());
            }
            rustix::process::chdir(directory)?;
            work()
        });
        worker.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

/// Runs `work` in a mount namespace of its own, whose changes nobody else sees.
///
/// Blocking; on a thread of its own. Mounts made by `work` vanish when it returns, unless it gave a
/// descriptor away. Needs `CAP_SYS_ADMIN`.
pub fn in_private_mounts<T: Send>(work: impl FnOnce() -> io::Result<T> + Send) -> io::Result<T> {
    use rustix::mount::{MountPropagationFlags, mount_change};
    std::thread::scope(|scope| {
        let worker = scope.spawn(|| {
            // SAFETY: gives this thread, which ends with the closure, its own mounts and directory; no
            // memory or descriptor is affected.
            if unsafe { libc::unshare(libc::CLONE_NEWNS | libc::CLONE_FS) } != 0 {
                return Err(io::Error::last_os_error());
            }
            mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC)?;
            work()
        });
        worker.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

/// Runs `work` in a new network namespace, which lives as long as something refers to it.
///
/// Blocking; on a thread of its own, where `/proc/thread-self/ns/net` and `/proc/thread-self/net` are the new
/// namespace's. Needs `CAP_SYS_ADMIN`.
pub fn in_new_network<T: Send>(work: impl FnOnce() -> io::Result<T> + Send) -> io::Result<T> {
    std::thread::scope(|scope| {
        let worker = scope.spawn(|| {
            // SAFETY: gives this thread, which ends with the closure, its own network; no memory or
            // descriptor is affected.
            if unsafe { libc::unshare(libc::CLONE_NEWNET) } != 0 {
                return Err(io::Error::last_os_error());
            }
            work()
        });
        worker.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

/// Runs `work` in the network namespace that `namespace` is open on.
///
/// Blocking; on a thread of its own. Needs `CAP_SYS_ADMIN`.
pub fn in_network<T: Send>(
    namespace: std::os::fd::BorrowedFd<'_>,
    work: impl FnOnce() -> io::Result<T> + Send,
) -> io::Result<T> {
    use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
    std::thread::scope(|scope| {
        let worker = scope.spawn(|| {
            move_into_link_name_space(namespace, Some(LinkNameSpaceType::Network))?;
            work()
        });
        worker.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}
