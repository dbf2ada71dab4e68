//! The clone, seen from the parent.

#![expect(unsafe_code, reason = "the one call that makes the new process")]

use std::fs::File;
use std::os::fd::OwnedFd;

use berth_sys::child::{Born, CloneRequest, clone_child, exit, fork_beside, setns, wait_child};
use rustix::io::Errno;
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::{Pid, PidfdFlags, pidfd_open};

use crate::child;
use crate::error::{Doing as _, Result};
use crate::plan::{Birth, Plan};

/// Makes the process that carries out the plan.
pub(super) fn give(plan: &mut Plan, birth: &Birth, cgroup: Option<&OwnedFd>) -> Result<Born> {
    let doing = || "cannot make the container's process";
    if let Some(user) = &birth.user {
        return within(plan, birth, user, cgroup);
    }
    let _inside = birth.pid.as_ref().map(PidNamespace::enter).transpose()?;
    let mut clone = |cgroup: Option<&OwnedFd>| {
        let request = CloneRequest { namespaces: birth.flags, cgroup: cgroup.map(std::os::fd::AsFd::as_fd) };
        // SAFETY: child::run is async-signal-safe, as its module's documentation shows.
        unsafe { clone_child(&request, || child::run(plan)) }
    };
    clone(cgroup).doing(doing)
}

/// The same in a user namespace that is there: a process goes there first, makes the container's as its sibling, tells
/// who that is and ends.
fn within(plan: &mut Plan, birth: &Birth, user: &OwnedFd, cgroup: Option<&OwnedFd>) -> Result<Born> {
    let doing = || "cannot make the container's process in its user namespace";
    let (reader, writer) = pipe_with(PipeFlags::CLOEXEC).doing(doing)?;
    let request = CloneRequest { namespaces: 0, cgroup: cgroup.map(std::os::fd::AsFd::as_fd) };
    let namespaces = birth.flags as i32;
    let between = || {
        // SAFETY: this child has one thread, and child::run is async-signal-safe.
        let made = setns(user, libc::CLONE_NEWUSER).and_then(|()| unsafe { fork_beside(namespaces) });
        match made {
            Ok(0) => child::run(plan),
            told => {
                let word = told.unwrap_or_else(|error| -error.raw_os_error());
                // Without a word the parent knows as much.
                let _ = rustix::io::write(&writer, &word.to_ne_bytes());
                exit(0)
            }
        }
    };
    // SAFETY: the closure is async-signal-safe: it makes system calls on memory that is there.
    let middle = unsafe { clone_child(&request, between) }.doing(doing)?;
    drop(writer);
    let mut word = [0; 4];
    let told = rustix::io::read(&reader, &mut word);
    // Somebody else may have reaped it already.
    let _ = wait_child(middle.pid, libc::__WALL);
    let pid = match told.doing(doing)? {
        4 => i32::from_ne_bytes(word),
        _ => -Errno::SRCH.raw_os_error(),
    };
    if pid <= 0 {
        return Err(Errno::from_raw_os_error(-pid)).doing(doing);
    }
    let id = Pid::from_raw(pid).ok_or(Errno::SRCH).doing(doing)?;
    // It is our child and not waited for, so the number still means it.
    let pidfd = pidfd_open(id, PidfdFlags::empty()).doing(doing)?;
    Ok(Born { pid, pidfd })
}

/// As [`give`], trying another cgroup when the first has inner processes (v2 keeps them out).
pub(super) fn give_beside(
    plan: &mut Plan,
    birth: &Birth,
    cgroup: Option<&OwnedFd>,
    other: impl FnOnce() -> Option<OwnedFd>,
) -> Result<Born> {
    match give(plan, birth, cgroup) {
        Err(crate::error::Error::Step { source, .. })
            if source.raw_os_error() == Some(Errno::BUSY.raw_os_error()) && cgroup.is_some() =>
        {
            give(plan, birth, other().as_ref())
        }
        done => done,
    }
}

/// While it lives, children of this thread are born into another pid namespace. The thread itself
/// stays where it is, and so do the other threads' children.
struct PidNamespace {
    own: File,
}

impl PidNamespace {
    fn enter(namespace: &OwnedFd) -> Result<Self> {
        let doing = || "cannot enter the container's pid namespace";
        let own = File::open("/proc/thread-self/ns/pid").doing(doing)?;
        setns(namespace, libc::CLONE_NEWPID).doing(doing)?;
        Ok(Self { own })
    }
}

impl Drop for PidNamespace {
    fn drop(&mut self) {
        // Its own namespace is always allowed.
        let _ = setns(&self.own, libc::CLONE_NEWPID);
    }
}
