//! Start, signals, pause, update, deletion.

use std::io;
use std::os::fd::OwnedFd;
use std::time::Duration;

use berth_oci::runtime::{NamespaceKind, Resources, Status};
use rustix::fs::{CWD, Mode, OFlags};
use rustix::io::Errno;

use super::conversation::{Conversation, News};
use super::create::has_own;
use super::record::Record;
use super::{Container, Deletion, Target, hooks, process};
use crate::checkpoint::{self, Checkpoint, Saved};
use crate::error::{Doing as _, Error, Result};

/// How long a killed process may take to end.
const PATIENCE: Duration = Duration::from_secs(10);

fn wrong_state<T>(what: impl Into<String>) -> Result<T> {
    Err(Error::State { what: what.into() })
}

pub(super) fn start(container: &mut Container) -> Result<Vec<String>> {
    let _lock = container.folder.lock(container.id())?;
    let gate = container.folder.gate();
    let flags = OFlags::WRONLY | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let open = match rustix::fs::openat(CWD, &gate, flags, Mode::empty()) {
        Err(Errno::NOENT) => {
            return match container.status()? {
                Status::Stopped => wrong_state("cannot start a container that has stopped"),
                _ => wrong_state("cannot start an already running container"),
            };
        }
        // Nobody waits there.
        Err(Errno::NXIO) => return wrong_state("cannot start a container that has stopped"),
        done => done.doing(|| format!("cannot open {}", gate.display()))?,
    };
    // Gone first: from here on it counts as running.
    std::fs::remove_file(&gate).doing(|| format!("cannot remove {}", gate.display()))?;
    rustix::io::write(&open, b"0").doing(|| "cannot tell the container to start")?;
    drop(open);
    if let Some(socket) = container.socket.take() {
        runs(container, &socket)?;
    }
    let mut warnings = Vec::new();
    if let Some(configured) = &container.record.spec.hooks {
        // As the specification has it, a failure here is told and changes nothing.
        let state = container.state_with(Status::Running);
        if let Err(error) = hooks::run("poststart", &configured.poststart, &state) {
            warnings.push(error.chain());
        }
    }
    Ok(warnings)
}

/// Waits until the program runs, or why it does not.
fn runs(container: &Container, socket: &OwnedFd) -> Result<()> {
    let process = container.record.spec.process.clone().unwrap_or_default();
    let talk = Conversation { socket, spec: &container.record.spec, process: &process };
    loop {
        match talk.next()? {
            // Killed just before its program would have run looks the same, and is: it has ended.
            News::End => return Ok(()),
            News::Namespaces | News::Terminal(_) | News::Listener(_) | News::Prepared => {}
        }
    }
}

pub(super) fn kill(container: &Container, signal: i32, target: Target) -> Result<()> {
    let shared = !has_own(&container.record.spec, &NamespaceKind::Pid);
    let all = target == Target::All || (signal == libc::SIGKILL && shared);
    if all {
        if container.pids()?.is_empty() {
            return Err(Error::Finished);
        }
        return container.record.cgroup.signal(signal);
    }
    let Some(pidfd) = pidfd(container) else { return Err(Error::Finished) };
    let sent = berth_sys::child::pidfd_signal(&pidfd, signal);
    match sent {
        Err(Errno::SRCH) => return Err(Error::Finished),
        done => done.doing(|| format!("cannot send signal {signal} to container {}", container.id()))?,
    }
    // A frozen process does not die (v1) until it is thawed.
    if signal == libc::SIGKILL && container.record.cgroup.is_frozen() {
        container.record.cgroup.thaw()?;
    }
    Ok(())
}

/// A pidfd of the first process, if that still runs.
fn pidfd(container: &Container) -> Option<OwnedFd> {
    let record = &container.record;
    if !process::runs(record.pid, record.start_time) {
        return None;
    }
    match &container.pidfd {
        Some(pidfd) => pidfd.try_clone().ok(),
        None => process::open(record.pid, record.start_time),
    }
}

pub(super) fn delete(container: Container, deletion: Deletion) -> Result<Vec<String>> {
    let _lock = container.folder.lock(container.id())?;
    let status = container.status()?;
    match (status, deletion) {
        (Status::Stopped, _) => {}
        (Status::Created, _) | (_, Deletion::Force) => end(&container)?,
        (status, Deletion::Stopped) => {
            return wrong_state(format!(
                "cannot delete container {} that is not stopped: {}",
                container.id(),
                status.as_str()
            ));
        }
    }
    let mut warnings = Vec::new();
    container.record.cgroup.remove()?;
    if let Some(group) = &container.record.rdt {
        match std::fs::remove_dir(group) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => {
                warnings.push(format!("cannot remove {}: {e}", group.display()));
            }
            _ => {}
        }
    }
    // The state goes before its hooks run: whatever they do, the container is gone.
    container.folder.remove()?;
    if let Some(configured) = &container.record.spec.hooks {
        let state = container.state_with(Status::Stopped);
        for hook in &configured.poststop {
            if let Err(error) = hooks::run("poststop", std::slice::from_ref(hook), &state) {
                warnings.push(error.chain());
            }
        }
    }
    Ok(warnings)
}

/// Kills the first process and waits for its end. In a pid namespace of its own all others end with it;
/// else the cgroup's removal kills them.
fn end(container: &Container) -> Result<()> {
    let Some(pidfd) = pidfd(container) else { return Ok(()) };
    match kill(container, libc::SIGKILL, Target::Init) {
        Ok(()) | Err(Error::Finished) => {}
        Err(error) => return Err(error),
    }
    if process::await_end(&pidfd, PATIENCE) {
        return Ok(());
    }
    wrong_state(format!("container {} did not end within {PATIENCE:?} of SIGKILL", container.id()))
}

pub(super) fn pause(container: &Container) -> Result<()> {
    let _lock = container.folder.lock(container.id())?;
    match container.status()? {
        Status::Running | Status::Created => container.record.cgroup.freeze(),
        Status::Paused => wrong_state("container already paused"),
        _ => wrong_state("container not running"),
    }
}

pub(super) fn checkpoint(container: &Container, request: &Checkpoint) -> Result<()> {
    let _lock = container.folder.lock(container.id())?;
    match container.status()? {
        Status::Running | Status::Paused => {}
        status => {
            let (id, status) = (container.id(), status.as_str());
            return wrong_state(format!("cannot save container {id}, which is {status}: it must run"));
        }
    }
    let Record { id, pid, spec, bundle, cgroup, .. } = &container.record;
    checkpoint::refuse(spec)?;
    checkpoint::dump(&Saved { id, pid: *pid, spec, bundle, cgroup }, request)
}

pub(super) fn resume(container: &Container) -> Result<()> {
    let _lock = container.folder.lock(container.id())?;
    match container.status()? {
        Status::Paused => container.record.cgroup.thaw(),
        _ => wrong_state("container not paused"),
    }
}

pub(super) fn update(container: &mut Container, resources: &Resources) -> Result<Vec<String>> {
    let _lock = container.folder.lock(container.id())?;
    if container.status()? == Status::Stopped {
        return wrong_state("container not running");
    }
    let mut warnings = Vec::new();
    container.record.cgroup.apply(resources, &mut warnings)?;
    let linux = container.record.spec.linux.get_or_insert_default();
    merge(linux.resources.get_or_insert_default(), resources);
    container.folder.write(&container.record)?;
    Ok(warnings)
}

/// What the container's limits are from now on.
fn merge(into: &mut Resources, from: &Resources) {
    fn take<T: Clone>(into: &mut Option<T>, from: Option<&T>) {
        if let Some(from) = from {
            *into = Some(from.clone());
        }
    }
    if let Some(new) = &from.memory {
        let memory = into.memory.get_or_insert_default();
        take(&mut memory.limit, new.limit.as_ref());
        take(&mut memory.reservation, new.reservation.as_ref());
        take(&mut memory.swap, new.swap.as_ref());
        take(&mut memory.swappiness, new.swappiness.as_ref());
    }
    if let Some(new) = &from.cpu {
        let cpu = into.cpu.get_or_insert_default();
        take(&mut cpu.shares, new.shares.as_ref());
        take(&mut cpu.quota, new.quota.as_ref());
        take(&mut cpu.period, new.period.as_ref());
        take(&mut cpu.burst, new.burst.as_ref());
        take(&mut cpu.realtime_period, new.realtime_period.as_ref());
        take(&mut cpu.realtime_runtime, new.realtime_runtime.as_ref());
        take(&mut cpu.idle, new.idle.as_ref());
        for (old, new) in [(&mut cpu.cpus, &new.cpus), (&mut cpu.mems, &new.mems)] {
            if !new.is_empty() {
                old.clone_from(new);
            }
        }
    }
    take(&mut into.pids, from.pids.as_ref());
    take(&mut into.block_io, from.block_io.as_ref());
    if !from.devices.is_empty() {
        into.devices.clone_from(&from.devices);
    }
    into.unified.extend(from.unified.clone());
    into.rdma.extend(from.rdma.clone());
    if !from.hugepage_limits.is_empty() {
        into.hugepage_limits.clone_from(&from.hugepage_limits);
    }
}
