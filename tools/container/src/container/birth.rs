//! The clone, seen from the parent.

#![expect(unsafe_code, reason = "the one call that makes the new process")]

use std::fs::File;
use std::os::fd::OwnedFd;

use berth_sys::child::{Born, CloneRequest, clone_child, setns};
use rustix::io::Errno;

use crate::child;
use crate::error::{Doing as _, Result};
use crate::plan::{Birth, Plan};

/// Makes the process that carries out the plan.
pub(super) fn give(plan: &mut Plan, birth: &Birth, cgroup: Option<&OwnedFd>) -> Result<Born> {
    let doing = || "cannot make the container's process";
    let _inside = birth.pid.as_ref().map(PidNamespace::enter).transpose()?;
    let mut clone = |cgroup: Option<&OwnedFd>| {
        let request = CloneRequest { namespaces: birth.flags, cgroup: cgroup.map(std::os::fd::AsFd::as_fd) };
        // SAFETY: child::run is async-signal-safe, as its module's documentation shows.
        unsafe { clone_child(&request, || child::run(plan)) }
    };
    clone(cgroup).doing(doing)
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
