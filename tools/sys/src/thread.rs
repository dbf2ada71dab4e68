//! Work that needs a thread's own view of the machine: its directory, its mounts, its network.

use std::io;
use std::os::fd::BorrowedFd;
use std::path::Path;

use rustix::mount::{MountPropagationFlags, mount_change};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use crate::child::unshare;

/// Runs `work` with `directory` as its working directory, without changing the process' own.
///
/// Blocking; the work runs on a thread of its own, which shares everything but the working
/// directory, root and umask.
pub fn in_own_directory<T: Send>(
    directory: &Path,
    work: impl FnOnce() -> io::Result<T> + Send,
) -> io::Result<T> {
    after(
        || {
            unshare(libc::CLONE_FS)?;
            Ok(rustix::process::chdir(directory)?)
        },
        work,
    )
}

/// Runs `work` in a mount namespace of its own, whose changes nobody else sees. What is unmounted outside meanwhile
/// goes here too, where mounts are shared at all.
///
/// Blocking; on a thread of its own. Mounts made by `work` vanish when it returns, unless it gave a
/// descriptor away. Needs `CAP_SYS_ADMIN`.
pub fn in_private_mounts<T: Send>(work: impl FnOnce() -> io::Result<T> + Send) -> io::Result<T> {
    after(
        || {
            unshare(libc::CLONE_NEWNS | libc::CLONE_FS)?;
            Ok(mount_change("/", MountPropagationFlags::DOWNSTREAM | MountPropagationFlags::REC)?)
        },
        work,
    )
}

/// Runs `work` in a new network namespace, which lives as long as something refers to it.
///
/// Blocking; on a thread of its own, where `/proc/thread-self/ns/net` and `/proc/thread-self/net` are the new
/// namespace's. Needs `CAP_SYS_ADMIN`.
pub fn in_new_network<T: Send>(work: impl FnOnce() -> io::Result<T> + Send) -> io::Result<T> {
    after(|| Ok(unshare(libc::CLONE_NEWNET)?), work)
}

/// Runs `work` in the network namespace that `namespace` is open on.
///
/// Blocking; on a thread of its own. Needs `CAP_SYS_ADMIN`.
pub fn in_network<T: Send>(
    namespace: BorrowedFd<'_>,
    work: impl FnOnce() -> io::Result<T> + Send,
) -> io::Result<T> {
    after(|| Ok(move_into_link_name_space(namespace, Some(LinkNameSpaceType::Network))?), work)
}

/// Runs `work` after `enter` on a thread that ends with it: what `enter` leaves, nobody else uses.
pub(crate) fn after<T: Send>(
    enter: impl FnOnce() -> io::Result<()> + Send,
    work: impl FnOnce() -> io::Result<T> + Send,
) -> io::Result<T> {
    std::thread::scope(|scope| {
        let worker = scope.spawn(|| {
            enter()?;
            work()
        });
        worker.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}
