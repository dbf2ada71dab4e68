//! System calls that rustix does not have in a form that a child can use.

use std::ffi::CStr;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::ptr::{null, null_mut};

use rustix::io::{Errno, Result};

/// The result of a system call as libc leaves it.
pub(super) fn ret(value: libc::c_long) -> Result<libc::c_long> {
    if value >= 0 {
        return Ok(value);
    }
    // SAFETY: takes nothing.
    let location = unsafe { libc::__errno_location() };
    // SAFETY: the location is this thread's own, valid as long as the thread.
    let errno = unsafe { location.as_ref() };
    Err(errno.map_or(Errno::IO, |errno| Errno::from_raw_os_error(*errno)))
}

/// Runs a program in place of this one. The vectors end with a null pointer.
///
/// # Safety
///
/// `argv` and `envp` must be null-terminated arrays of pointers to NUL-terminated strings.
pub unsafe fn execve(path: &CStr, argv: &[*const libc::c_char], envp: &[*const libc::c_char]) -> Errno {
    // SAFETY: as the caller promises.
    let done = ret(unsafe { libc::syscall(libc::SYS_execve, path.as_ptr(), argv.as_ptr(), envp.as_ptr()) });
    done.err().unwrap_or(Errno::NOEXEC)
}

/// A fork whose child goes on from here: 0 in the child, its id in the parent.
///
/// # Safety
///
/// Only in a process with one thread, such as a child made by [`super::clone_child`]; the same rules
/// hold for the new one.
pub unsafe fn fork_again() -> Result<i32> {
    let none = null::<libc::c_void>();
    // SAFETY: no shared memory, no stack of its own: the child has copies.
    let pid =
        unsafe { libc::syscall(libc::SYS_clone, libc::c_long::from(libc::SIGCHLD), none, none, none, none) };
    ret(pid).map(|pid| pid as i32)
}

/// A child of this process's parent, with new namespaces of the kinds in `namespaces`: 0 in the child, its id here.
/// It ends with the signal that this process ends with.
///
/// # Safety
///
/// Only in a process with one thread, such as a child made by [`super::clone_child`]; the same rules
/// hold for the new one.
pub unsafe fn fork_beside(namespaces: i32) -> Result<i32> {
    let none = null::<libc::c_void>();
    let flags = libc::c_long::from(namespaces | libc::CLONE_PARENT);
    // SAFETY: no shared memory, no stack of its own: the child has copies.
    let pid = unsafe { libc::syscall(libc::SYS_clone, flags, none, none, none, none) };
    ret(pid).map(|pid| pid as i32)
}

/// Waits for a child by id; its raw wait status, or `None` when `WNOHANG` found it alive.
pub fn wait_child(pid: i32, flags: i32) -> Result<Option<i32>> {
    let mut status = 0i32;
    loop {
        // SAFETY: status is live; no usage is asked for.
        let done = ret(unsafe {
            libc::syscall(libc::SYS_wait4, pid, &raw mut status, flags, null_mut::<libc::rusage>())
        });
        match done {
            Err(Errno::INTR) => {}
            Ok(0) => return Ok(None),
            other => return other.map(|_| Some(status)),
        }
    }
}

/// Sends a signal to a process.
pub fn kill(pid: i32, signal: i32) -> Result<()> {
    // SAFETY: touches no memory.
    ret(unsafe { libc::syscall(libc::SYS_kill, pid, signal) }).map(drop)
}

/// Sends any signal, also a real-time one, to the process of a pidfd.
pub fn pidfd_signal(pidfd: impl AsFd, signal: i32) -> Result<()> {
    let fd = pidfd.as_fd().as_raw_fd();
    // SAFETY: no siginfo is given: the kernel makes one.
    let done = unsafe { libc::syscall(libc::SYS_pidfd_send_signal, fd, signal, null::<u8>(), 0) };
    ret(done).map(drop)
}

/// Every signal back to its default action, then none blocked.
pub fn default_signals() {
    /// `struct sigaction` of the kernel: handler, flags, restorer, mask; zero is the default action.
    const DEFAULT: [u64; 4] = [0; 4];
    for signal in 1..=64 {
        // SAFETY: the struct is live and large enough on every architecture; failure (KILL, STOP) is fine.
        unsafe { libc::syscall(libc::SYS_rt_sigaction, signal, DEFAULT.as_ptr(), null_mut::<u64>(), 8usize) };
    }
    let none = 0u64;
    // SAFETY: the set is live; no old set is asked for.
    unsafe {
        libc::syscall(libc::SYS_rt_sigprocmask, libc::SIG_SETMASK, &raw const none, null_mut::<u64>(), 8usize)
    };
}

/// Leaves namespaces for new ones.
pub fn unshare(flags: i32) -> Result<()> {
    // SAFETY: touches no memory of this process.
    ret(unsafe { libc::syscall(libc::SYS_unshare, flags) }).map(drop)
}

/// Enters the namespaces that a descriptor stands for (a file of /proc/PID/ns, or a pidfd).
pub fn setns(fd: impl AsFd, flags: i32) -> Result<()> {
    // SAFETY: touches no memory of this process.
    ret(unsafe { libc::syscall(libc::SYS_setns, fd.as_fd().as_raw_fd(), flags) }).map(drop)
}

/// prctl(2) with plain numbers.
pub fn prctl(option: i32, args: [u64; 4]) -> Result<i64> {
    // SAFETY: the callers' options take numbers, not pointers.
    ret(unsafe { libc::syscall(libc::SYS_prctl, option, args[0], args[1], args[2], args[3]) })
}

/// Sets real, effective and saved user id of this process.
pub fn set_user(uid: u32) -> Result<()> {
    // SAFETY: touches no memory.
    ret(unsafe { libc::syscall(libc::SYS_setresuid, uid, uid, uid) }).map(drop)
}

/// Sets real, effective and saved group id of this process.
pub fn set_group(gid: u32) -> Result<()> {
    // SAFETY: touches no memory.
    ret(unsafe { libc::syscall(libc::SYS_setresgid, gid, gid, gid) }).map(drop)
}

/// Sets the supplementary groups.
pub fn set_groups(groups: &[u32]) -> Result<()> {
    // SAFETY: the slice is live and its length is passed.
    ret(unsafe { libc::syscall(libc::SYS_setgroups, groups.len(), groups.as_ptr()) }).map(drop)
}

/// Three capability sets as bit masks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CapabilityMasks {
    /// What is checked.
    pub effective: u64,
    /// What can be made effective.
    pub permitted: u64,
    /// What survives an exec of files that inherit it.
    pub inheritable: u64,
}

/// Sets the capabilities of the calling thread (capset(2), version 3).
pub fn set_capabilities(masks: CapabilityMasks) -> Result<()> {
    let header: [u32; 2] = [0x2008_0522, 0];
    let (e, p, i) = (masks.effective, masks.permitted, masks.inheritable);
    let data: [u32; 6] = [e as u32, p as u32, i as u32, (e >> 32) as u32, (p >> 32) as u32, (i >> 32) as u32];
    // SAFETY: header and data are live and laid out as version 3 wants them.
    ret(unsafe { libc::syscall(libc::SYS_capset, header.as_ptr(), data.as_ptr()) }).map(drop)
}

/// Closes descriptors `first..=last`, or marks them close-on-exec with `CLOSE_RANGE_CLOEXEC`.
pub fn close_range(first: u32, last: u32, flags: u32) -> Result<()> {
    // SAFETY: the caller's business is which descriptors; no memory is touched.
    ret(unsafe { libc::syscall(libc::SYS_close_range, first, last, flags) }).map(drop)
}

/// Makes `to` another name of `from`, without close-on-exec.
pub fn duplicate_to(from: RawFd, to: RawFd) -> Result<()> {
    if from == to {
        return keep_on_exec(to);
    }
    // SAFETY: touches no memory.
    ret(unsafe { libc::syscall(libc::SYS_dup3, from, to, 0) }).map(drop)
}

/// Makes `to` another name of `from`, with close-on-exec.
pub fn duplicate_private(from: RawFd, to: RawFd) -> Result<()> {
    if from == to {
        return Ok(());
    }
    // SAFETY: touches no memory.
    ret(unsafe { libc::syscall(libc::SYS_dup3, from, to, libc::O_CLOEXEC) }).map(drop)
}

/// Takes close-on-exec off a descriptor.
pub fn keep_on_exec(fd: RawFd) -> Result<()> {
    // SAFETY: touches no memory.
    ret(unsafe { libc::syscall(libc::SYS_fcntl, fd, libc::F_SETFD, 0 as libc::c_ulong) }).map(drop)
}

/// Gives the process a new session keyring of this name (keyctl(2)).
pub fn join_session_keyring(name: &CStr) -> Result<()> {
    const KEYCTL_JOIN_SESSION_KEYRING: i32 = 1;
    // SAFETY: name is NUL-terminated.
    ret(unsafe { libc::syscall(libc::SYS_keyctl, KEYCTL_JOIN_SESSION_KEYRING, name.as_ptr()) }).map(drop)
}

/// One instruction of a classic BPF program, `struct sock_filter`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct BpfInstruction {
    /// Operation.
    pub code: u16,
    /// Jump when true.
    pub jt: u8,
    /// Jump when false.
    pub jf: u8,
    /// Operand.
    pub k: u32,
}

/// `struct sock_fprog`.
#[repr(C)]
struct BpfProgram {
    len: u16,
    filter: *const BpfInstruction,
}

/// Loads a filter (seccomp(2)); with `SECCOMP_FILTER_FLAG_NEW_LISTENER` returns the listener's number.
pub fn load_filter(program: &[BpfInstruction], flags: u32) -> Result<i32> {
    const SECCOMP_SET_MODE_FILTER: u32 = 1;
    let Ok(len) = u16::try_from(program.len()) else { return Err(Errno::INVAL) };
    let program = BpfProgram { len, filter: program.as_ptr() };
    // SAFETY: the program is live and its length is passed; the kernel copies it.
    ret(unsafe { libc::syscall(libc::SYS_seccomp, SECCOMP_SET_MODE_FILTER, flags, &raw const program) })
        .map(|fd| fd as i32)
}

/// The working directory into `buffer`, without its NUL. A directory outside the root is given as
/// `(unreachable)…` by the kernel.
pub fn working_directory(buffer: &mut [u8]) -> Result<&[u8]> {
    // SAFETY: the buffer is live and its length is passed.
    let len = ret(unsafe { libc::syscall(libc::SYS_getcwd, buffer.as_mut_ptr(), buffer.len()) })?;
    Ok(buffer.get(..(len as usize).saturating_sub(1)).unwrap_or_default())
}

/// Execution domain (personality(2)).
pub fn set_personality(persona: u64) -> Result<()> {
    // SAFETY: touches no memory.
    ret(unsafe { libc::syscall(libc::SYS_personality, persona) }).map(drop)
}

/// `struct sched_attr` of `<linux/sched/types.h>`, version 0.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct SchedAttributes {
    /// Size of this struct.
    pub size: u32,
    /// `SCHED_…`.
    pub policy: u32,
    /// `SCHED_FLAG_…`.
    pub flags: u64,
    /// Nice value.
    pub nice: i32,
    /// Static priority.
    pub priority: u32,
    /// Nanoseconds.
    pub runtime: u64,
    /// Nanoseconds.
    pub deadline: u64,
    /// Nanoseconds.
    pub period: u64,
}

/// Sets the scheduling attributes of the calling thread.
pub fn set_scheduler(attributes: &SchedAttributes) -> Result<()> {
    // SAFETY: the struct is live and says its own size; pid 0 is the caller.
    ret(unsafe { libc::syscall(libc::SYS_sched_setattr, 0, std::ptr::from_ref(attributes), 0) }).map(drop)
}

/// Sets the I/O priority of the calling thread: class in bits 13 and up, level below.
pub fn set_io_priority(priority: i32) -> Result<()> {
    const IOPRIO_WHO_PROCESS: i32 = 1;
    // SAFETY: touches no memory; 0 is the caller.
    ret(unsafe { libc::syscall(libc::SYS_ioprio_set, IOPRIO_WHO_PROCESS, 0, priority) }).map(drop)
}

/// Sets the processors on which a thread runs (0 for the caller), as a bit mask.
pub fn set_affinity(pid: i32, mask: &[u64]) -> Result<()> {
    // SAFETY: the mask is live and its length in bytes is passed.
    ret(unsafe { libc::syscall(libc::SYS_sched_setaffinity, pid, size_of_val(mask), mask.as_ptr()) })
        .map(drop)
}

/// Sets the NUMA policy of the calling thread; `nodes` is a bit mask.
pub fn set_memory_policy(mode: i32, nodes: &[u64]) -> Result<()> {
    let bits = if nodes.is_empty() { 0 } else { nodes.len() * 64 + 1 };
    let mask = if nodes.is_empty() { null() } else { nodes.as_ptr() };
    // SAFETY: the mask is live (or null for none) and its length in bits is passed.
    ret(unsafe { libc::syscall(libc::SYS_set_mempolicy, mode, mask, bits) }).map(drop)
}

/// The slave side of a pseudo terminal by its master, without a path.
pub fn terminal_peer(master: impl AsFd) -> Result<OwnedFd> {
    let flags = libc::O_RDWR | libc::O_NOCTTY | libc::O_CLOEXEC;
    let fd = master.as_fd().as_raw_fd();
    // SAFETY: the request takes flags by value.
    let peer = ret(unsafe { libc::syscall(libc::SYS_ioctl, fd, libc::TIOCGPTPEER, flags as libc::c_ulong) })?;
    // SAFETY: a new descriptor, owned by nobody else.
    Ok(unsafe { OwnedFd::from_raw_fd(peer as RawFd) })
}

/// Lets the slave side of a pseudo terminal be opened.
pub fn unlock_terminal(master: impl AsFd) -> Result<()> {
    let unlock: libc::c_int = 0;
    let fd = master.as_fd().as_raw_fd();
    // SAFETY: the request reads one int, which is live.
    ret(unsafe { libc::syscall(libc::SYS_ioctl, fd, libc::TIOCSPTLCK, &raw const unlock) }).map(drop)
}

/// Makes a terminal the controlling one of this session.
pub fn control_terminal(fd: RawFd) -> Result<()> {
    // SAFETY: the request takes a number.
    ret(unsafe { libc::syscall(libc::SYS_ioctl, fd, libc::TIOCSCTTY, 0 as libc::c_ulong) }).map(drop)
}

/// Sets the size of a terminal in characters.
pub fn terminal_size(fd: impl AsFd, rows: u16, columns: u16) -> Result<()> {
    let size = libc::winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
    let fd = fd.as_fd().as_raw_fd();
    // SAFETY: the request reads a winsize, which is live.
    ret(unsafe { libc::syscall(libc::SYS_ioctl, fd, libc::TIOCSWINSZ, &raw const size) }).map(drop)
}

/// The process' file mode creation mask; returns the one before.
pub fn set_umask(mask: u32) -> u32 {
    // SAFETY: cannot fail, touches no memory.
    (unsafe { libc::syscall(libc::SYS_umask, mask) }) as u32
}

/// Directory entries as `struct linux_dirent64`s into `buffer`; 0 at the end.
pub fn read_directory(fd: impl AsFd, buffer: &mut [u8]) -> Result<usize> {
    let fd = fd.as_fd().as_raw_fd();
    // SAFETY: the buffer is live and its length is passed.
    ret(unsafe { libc::syscall(libc::SYS_getdents64, fd, buffer.as_mut_ptr(), buffer.len()) })
        .map(|n| n as usize)
}

/// Sets a resource limit of a process (0 for the caller).
pub fn set_limit(pid: i32, resource: u32, soft: u64, hard: u64) -> Result<()> {
    let limit: [u64; 2] = [soft, hard];
    // SAFETY: the kernel's struct rlimit64 is these two numbers; no old value is asked for.
    ret(unsafe { libc::syscall(libc::SYS_prlimit64, pid, resource, limit.as_ptr(), null_mut::<u64>()) })
        .map(drop)
}

/// The bpf(2) system call.
///
/// # Safety
///
/// `attributes` must be what `command` takes; pointers in it must be to live memory.
pub unsafe fn bpf<T>(command: u32, attributes: &mut T) -> Result<i64> {
    // SAFETY: as the caller promises; the size is that of the struct.
    ret(unsafe { libc::syscall(libc::SYS_bpf, command, std::ptr::from_mut(attributes), size_of::<T>()) })
}
