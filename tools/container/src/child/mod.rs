//! What happens in the new process until its program runs.
//!
//! **Why this is safe in a clone of a process with threads.** Such a process may have been cloned
//! while another thread held the allocator's lock, or any other. Therefore nothing below here
//! allocates, frees, locks, formats or panics: every path is a prepared C string, every buffer is on
//! the stack or in the [`Plan`], failures are three numbers, and the functions used are those of
//! [`berth_sys::child`] and of rustix with `&CStr`, which call the kernel and nothing else. Signals
//! are blocked and handlers gone from the first instant. The process ends by executing a program or by
//! `exit_group`, never by returning: destructors of the plan never run. If a bug panics nevertheless,
//! the `extern "C"` frame of the clone turns it into an abort, and the parent sees an end of file.
//!
//! **What the container can do to it.** Before it enters any namespace the process becomes
//! non-dumpable, so that processes in the container can neither trace it nor open its descriptors or
//! its executable through /proc. All paths inside the container are resolved beneath its root, by
//! descriptor. Before the working directory is entered, all descriptors but the streams, the kept ones,
//! the socket and the gate are closed.

mod console;
mod copy_up;
mod dev;
mod home;
mod hooks;
mod mounts;
mod program;
mod resolve;
mod rootfs;
mod step;
pub(crate) mod wire;

use std::convert::Infallible;
use std::os::fd::{AsFd, OwnedFd};

use berth_sys::child as sys;
use rustix::io::Errno;

use self::step::At;
pub(crate) use self::step::{Failure, Step};
use self::wire::Kind;
use crate::plan::{Init, Plan, Task, UserNamespace};

/// Carries out the plan; the body of the new process.
pub(crate) fn run(plan: &mut Plan) -> Infallible {
    let failure = match perform(plan) {
        Err(failure) => failure,
        Ok(never) => match never {},
    };
    let numbers = [failure.step as i32, failure.index, failure.code];
    // A parent that has gone cannot be told.
    let _ = wire::send(&plan.socket, Kind::Failed, numbers, &[], &[]);
    // As shells have it: not found is 127, anything else on the way to the program 126.
    let missing = failure.step == Step::NotInPath
        || (failure.code == Errno::NOENT.raw_os_error()
            && matches!(failure.step, Step::Stat | Step::Execute));
    sys::exit(if missing { 127 } else { 126 })
}

fn perform(plan: &mut Plan) -> Result<Infallible, Failure> {
    // Blocked signals and a missing parent are no reason to stay: the parent's end of the socket tells.
    sys::prctl(libc::PR_SET_DUMPABLE, [0; 4]).at(Step::Join)?;
    if plan.user_namespace == UserNamespace::New {
        expect(plan, Kind::Go)?;
    }
    // A session of its own: no terminal of the caller's, no signals to its group.
    let _ = rustix::process::setsid();
    let gate = match &mut plan.task {
        Task::Exec(cgroups) => {
            for (n, file) in cgroups.iter().enumerate() {
                join_cgroup(file).nth(Step::Cgroup, n)?;
            }
            join_namespaces(plan)?;
            console::set_up(plan, None)?;
            None
        }
        Task::Init(_) => {
            join_namespaces(plan)?;
            Some(init(plan)?)
        }
    };
    program::execute(plan, gate)
}

/// Enters existing namespaces and becomes root in a user namespace.
fn join_namespaces(plan: &Plan) -> Result<(), Failure> {
    for (n, (fd, kind)) in plan.join.iter().enumerate() {
        sys::setns(fd, *kind).nth(Step::Join, n)?;
    }
    if plan.user_namespace != UserNamespace::Same {
        // Groups may be forbidden to be set; the user's own are set, or refused, later.
        let _ = sys::set_groups(&[]);
        sys::set_group(0).at(Step::Root)?;
        sys::set_user(0).at(Step::Root)?;
        // Changing ids made it what the container's processes may trace; undo that again.
        sys::prctl(libc::PR_SET_DUMPABLE, [0; 4]).at(Step::Root)?;
    }
    Ok(())
}

/// Everything that makes a container; returns the gate's descriptor number.
fn init(plan: &mut Plan) -> Result<i32, Failure> {
    use std::os::fd::AsRawFd as _;
    sys::set_umask(0);
    if let Task::Init(init) = &plan.task {
        sys::unshare(init.unshare).at(Step::Unshare)?;
        if let Some(offsets) = &init.time_namespace {
            time_namespace(offsets)?;
        }
        if init.report_namespaces {
            wire::send(&plan.socket, Kind::Namespaces, [0; 3], &[], &[]).at(Step::Talk)?;
        }
    }
    rootfs::build(plan)?;
    let Task::Init(init) = &plan.task else { return Err(talk(Errno::INVAL)) };
    Ok(init.gate.as_raw_fd())
}

/// Leaves the cgroup namespace, after the cgroup of the container has been joined.
///
/// The parent makes the cgroups while the child mounts, and sends their files. The child writes `0`
/// into each v1 `tasks` file: moving the calling thread itself spares the kernel the lock on all forks
/// and exits of the machine, and with it the RCU grace period of 10 ms or more that moving another
/// process (`cgroup.procs`) costs.
fn await_cgroup(socket: &OwnedFd, init: &Init) -> Result<(), Failure> {
    let mut failed = Ok(());
    let mut n = 0;
    let message = wire::receive(socket, &mut [], |file| {
        if failed.is_ok() {
            failed = join_cgroup(&file).nth(Step::Cgroup, n);
        }
        n += 1;
    });
    check(message, Kind::Cgroup)?;
    failed?;
    if init.cgroup_namespace {
        sys::unshare(libc::CLONE_NEWCGROUP).at(Step::Unshare)?;
    }
    Ok(())
}

fn join_cgroup(file: impl AsFd) -> rustix::io::Result<()> {
    rustix::io::write(file, b"0").map(drop)
}

fn time_namespace(offsets: &[u8]) -> Result<(), Failure> {
    use rustix::fs::{Mode, OFlags, open};
    sys::unshare(libc::CLONE_NEWTIME).at(Step::Unshare)?;
    let flags = OFlags::WRONLY | OFlags::CLOEXEC;
    let file = open(c"/proc/self/timens_offsets", flags, Mode::empty()).at(Step::Time)?;
    if !offsets.is_empty() {
        rustix::io::write(&file, offsets).at(Step::Time)?;
    }
    let flags = OFlags::RDONLY | OFlags::CLOEXEC;
    let own = open(c"/proc/self/ns/time_for_children", flags, Mode::empty()).at(Step::Time)?;
    sys::setns(&own, libc::CLONE_NEWTIME).at(Step::Time)
}

/// Waits for a message of this kind without body.
fn expect(plan: &Plan, kind: Kind) -> Result<(), Failure> {
    check(wire::receive(&plan.socket, &mut [], drop), kind).map(drop)
}

/// The length of the body of a message that must be of this kind.
fn check(message: rustix::io::Result<Option<(wire::Message, usize)>>, kind: Kind) -> Result<usize, Failure> {
    match message.at(Step::Talk)? {
        Some((message, length)) if message.is(kind) => Ok(length),
        // The parent died or gave up: so does the child.
        _ => Err(talk(Errno::PIPE)),
    }
}

fn talk(errno: Errno) -> Failure {
    Failure { step: Step::Talk, index: 0, code: errno.raw_os_error() }
}
