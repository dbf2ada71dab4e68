//! The clone itself.

use std::convert::Infallible;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use rustix::io::{Errno, Result};

use super::calls::ret;

/// `struct clone_args` of `<linux/sched.h>`, as of Linux 5.7.
#[derive(Default)]
#[repr(C, align(8))]
struct CloneArgs {
    flags: u64,
    pidfd: u64,
    child_tid: u64,
    parent_tid: u64,
    exit_signal: u64,
    stack: u64,
    stack_size: u64,
    tls: u64,
    set_tid: u64,
    set_tid_size: u64,
    cgroup: u64,
}

/// From `<linux/sched.h>`: handlers of the parent become the default action in the child.
const CLONE_CLEAR_SIGHAND: u64 = 0x1_0000_0000;
/// From `<linux/sched.h>`: the child is born in the cgroup of `cgroup`.
const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;

/// What the child is to be.
#[derive(Debug, Default)]
pub struct CloneRequest<'a> {
    /// `CLONE_NEW…` flags. Flags that share memory or descriptors are refused with EINVAL.
    pub namespaces: u64,
    /// A directory of cgroup v2 to be born in.
    pub cgroup: Option<BorrowedFd<'a>>,
}

/// The new child.
#[derive(Debug)]
pub struct Born {
    /// Its id. It ends with SIGCHLD and is reaped as usual.
    pub pid: i32,
    /// A descriptor of it.
    pub pidfd: OwnedFd,
}

/// The namespace flags of clone3.
const NAMESPACES: u64 = 0x7e02_0080;

/// Makes a child that runs `child` on a copy of this memory, with every signal blocked and every
/// handler gone (ignored signals stay ignored until [`super::default_signals`]).
///
/// # Safety
///
/// `child` must be async-signal-safe: it may use memory that was prepared before, the functions of
/// this module, and rustix with `&CStr` paths; it must not allocate, free, lock, print or panic. It
/// ends by executing a program or by [`exit`].
pub unsafe fn clone_child(request: &CloneRequest<'_>, child: impl FnOnce() -> Infallible) -> Result<Born> {
    if request.namespaces & !NAMESPACES != 0 {
        return Err(Errno::INVAL);
    }
    let mut pidfd: libc::c_int = -1;
    let mut args = CloneArgs {
        flags: request.namespaces | CLONE_CLEAR_SIGHAND | libc::CLONE_PIDFD as u64,
        pidfd: &raw mut pidfd as u64,
        exit_signal: libc::SIGCHLD as u64,
        ..CloneArgs::default()
    };
    if let Some(cgroup) = request.cgroup {
        args.flags |= CLONE_INTO_CGROUP;
        args.cgroup = cgroup.as_raw_fd() as u64;
    }
    // Blocked across the clone: a handler of the parent must never run on the child's copy.
    let before = block_all_signals()?;
    // SAFETY: without CLONE_VM the child has a copy of this memory and goes on from here on a copy of
    // this stack; the caller vouches for what it does next. pidfd outlives the call.
    let pid = ret(unsafe { libc::syscall(libc::SYS_clone3, &raw const args, size_of::<CloneArgs>()) });
    if matches!(pid, Ok(0)) {
        run(child);
    }
    restore_signals(&before);
    // SAFETY: the kernel has just put a new descriptor there, owned by nobody else.
    pid.map(|pid| Born { pid: pid as i32, pidfd: unsafe { OwnedFd::from_raw_fd(pidfd) } })
}

/// `extern "C"`, so that a panic ends the child instead of unwinding into the parent's frames.
extern "C" fn run(child: impl FnOnce() -> Infallible) -> ! {
    match child() {}
}

/// Ends the calling process at once: no handlers, no destructors.
pub fn exit(code: i32) -> ! {
    loop {
        // SAFETY: does not return, touches no memory.
        unsafe { libc::syscall(libc::SYS_exit_group, code) };
    }
}

/// The kernel's signal set, 64 bits everywhere.
type SignalSet = u64;

fn block_all_signals() -> Result<SignalSet> {
    let all: SignalSet = !0;
    let mut before = MaybeUninit::<SignalSet>::uninit();
    // SAFETY: both pointers are to live sets of the size given.
    ret(unsafe {
        libc::syscall(
            libc::SYS_rt_sigprocmask,
            libc::SIG_SETMASK,
            &raw const all,
            before.as_mut_ptr(),
            size_of::<SignalSet>(),
        )
    })?;
    // SAFETY: the kernel has filled it in.
    Ok(unsafe { before.assume_init() })
}

fn restore_signals(before: &SignalSet) {
    // SAFETY: the set is live; no old set is asked for. It cannot fail with these arguments.
    unsafe {
        libc::syscall(
            libc::SYS_rt_sigprocmask,
            libc::SIG_SETMASK,
            std::ptr::from_ref(before),
            std::ptr::null_mut::<SignalSet>(),
            size_of::<SignalSet>(),
        )
    };
}
