//! A user namespace that exists only as a descriptor, to map ids in mounts.
//!
//! The kernel makes a user namespace only together with a process, so a short-lived child is born
//! into one, its maps are written from outside, the namespace is opened, and the child is gone.

#![expect(unsafe_code, reason = "a raw clone whose child never returns to Rust code")]

use std::fmt::Write as _;
use std::fs::{self, File};
use std::io;
use std::os::fd::OwnedFd;
use std::path::PathBuf;

/// One line of `uid_map` or `gid_map`: `length` ids from `inside` appear outside as `outside`….
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IdMapping {
    /// First id inside the namespace.
    pub inside: u32,
    /// First id outside.
    pub outside: u32,
    /// How many ids follow one another.
    pub length: u32,
}

impl IdMapping {
    /// Reads containerd's form `inside:outside:length`; `None` when it is anything else.
    pub fn parse(text: &str) -> Option<Self> {
        let mut parts = text.split(':').map(str::parse::<u32>);
        let (inside, outside, length) = (parts.next()?.ok()?, parts.next()?.ok()?, parts.next()?.ok()?);
        (parts.next().is_none() && length > 0).then_some(Self { inside, outside, length })
    }

    /// Reads a comma-separated list of such triples.
    pub fn parse_list(text: &str) -> Option<Vec<Self>> {
        text.split(',').map(Self::parse).collect()
    }
}

/// Renders mappings the way `/proc/PID/uid_map` wants them written.
pub fn render(mappings: &[IdMapping]) -> String {
    let mut text = String::new();
    for m in mappings {
        // Writing to a String cannot fail.
        let _ = writeln!(text, "{} {} {}", m.inside, m.outside, m.length);
    }
    text
}

/// Makes a user namespace with these maps and returns its descriptor.
///
/// Blocking for well below a millisecond; needs the right to map the ids (`CAP_SETUID`,
/// `CAP_SETGID` in the parent namespace).
pub fn open(uids: &[IdMapping], gids: &[IdMapping]) -> io::Result<OwnedFd> {
    let child = Sleeper::born(libc::CLONE_NEWUSER)?;
    child.map(uids, gids)?;
    Ok(File::open(child.namespace("user"))?.into())
}

/// A child that only waits to be killed, in namespaces of its own.
pub(crate) struct Sleeper(libc::pid_t);

impl Sleeper {
    /// Its namespace of a kind, by the name that proc(5) has for it.
    pub(crate) fn namespace(&self, kind: &str) -> PathBuf {
        PathBuf::from(format!("/proc/{}/ns/{kind}", self.0))
    }

    /// Writes the maps of its user namespace.
    pub(crate) fn map(&self, uids: &[IdMapping], gids: &[IdMapping]) -> io::Result<()> {
        fs::write(format!("/proc/{}/uid_map", self.0), render(uids))?;
        fs::write(format!("/proc/{}/gid_map", self.0), render(gids))
    }

    /// Makes it, with new namespaces of the kinds in `kinds` (`CLONE_NEW…`).
    pub(crate) fn born(kinds: i32) -> io::Result<Self> {
        let flags = kinds | libc::CLONE_FILES;
        let none = std::ptr::null::<libc::c_void>();
        let parent = std::process::id();
        // SAFETY: without CLONE_VM the child owns a copy of this memory and without a stack argument
        // it goes on from here; the only thing it does is wait, with system calls. No exit signal is asked for, so no
        // SIGCHLD handler of the caller hears of it (and waiting needs __WALL).
        let pid =
            unsafe { libc::syscall(libc::SYS_clone, libc::c_long::from(flags), none, none, none, none) };
        if pid == 0 {
            sleep_beside(parent);
        }
        if pid < 0 { Err(io::Error::last_os_error()) } else { Ok(Self(pid as libc::pid_t)) }
    }
}

/// Waits for the end of `parent`: a child that outlived it would hold on to its files, of which one is the lock that the
/// next daemon needs.
fn sleep_beside(parent: u32) -> ! {
    // SAFETY: this option takes a number and touches no memory (PR_SET_PDEATHSIG(2const)).
    unsafe { libc::syscall(libc::SYS_prctl, libc::PR_SET_PDEATHSIG, libc::SIGKILL, 0, 0, 0) };
    // A parent that had died before that call sends no signal, and is the parent no more.
    // SAFETY: getppid takes no arguments and is async-signal-safe.
    while unsafe { libc::getppid() }.cast_unsigned() == parent {
        // SAFETY: pause takes no arguments and is async-signal-safe.
        unsafe { libc::pause() };
    }
    loop {
        // SAFETY: it ends this process, in which nothing of Rust's waits to be dropped.
        unsafe { libc::syscall(libc::SYS_exit_group, 0) };
    }
}

impl Drop for Sleeper {
    fn drop(&mut self) {
        // SAFETY: the process is our own child, unreaped, so the id cannot have been reused.
        unsafe { libc::kill(self.0, libc::SIGKILL) };
        // SAFETY: a null status pointer is allowed; the child is ours.
        unsafe { libc::waitpid(self.0, std::ptr::null_mut(), libc::__WALL) };
    }
}
