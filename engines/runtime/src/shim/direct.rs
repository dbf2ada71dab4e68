//! The shortest way to our own shim: the daemon makes the socket and executes the shim on it.
//!
//! With `start`, a process is made that makes the shim and then tells where it listens. Here the place is
//! known before the shim is, so it is written down first, and the first call can wait in the socket while
//! the shim is still being loaded. Only for a container that shares its shim with nobody, since who shares
//! with whom is the shim's business.

use std::ffi::OsString;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::net::UnixListener;
use std::path::Path;

use berth_proto as proto;
use berth_sys::launch::{Apart, Child, Spawn, c_string};
use berth_sys::local_socket::listen_at;
use berth_types::{Any, Error, Result};
use rustix::fs::{CWD, Mode, OFlags, openat};

use super::answer::Answer;
use super::command::Inherited;
use crate::bundle::Bundle;

/// Annotations that put a container beside others.
const GROUPS: [&[u8]; 2] = [b"io.containerd.runc.v2.group", b"io.kubernetes.cri.sandbox-id"];

/// Whether a container's shim can be started this way: it is in no group, and nothing is asked for that
/// only `start` does.
pub(super) fn applies(
    spec: Option<&[u8]>,
    options: Option<&Any>,
    environment: &[(OsString, OsString)],
) -> bool {
    let Some(spec) = spec else { return false };
    // A mention anywhere is enough for the long way.
    let grouped = GROUPS.iter().any(|group| spec.windows(group.len()).any(|window| window == *group));
    let plain = options.is_none_or(|options| {
        proto::convert::unpack::<proto::containerd::runc::v1::Options>(options)
            .is_ok_and(|options| options.shim_cgroup.is_empty())
    });
    let scheduled = environment.iter().any(|(name, value)| name == "SCHED_CORE" && !value.is_empty());
    !grouped && plain && !scheduled
}

/// Starts the shim in its bundle, which is there. Blocks until it executes.
pub(super) fn spawn(
    bundle: &Bundle,
    program: &Path,
    arguments: &[OsString],
    inherited: &Inherited,
) -> Result<(Answer, Child)> {
    let answer = Answer::at(bundle.socket());
    bundle.write("shim-binary-path", program.as_os_str().as_encoded_bytes())?;
    bundle.write("address", answer.address.as_bytes())?;
    bundle.write("bootstrap.json", &answer.to_json())?;
    let started = listen(bundle.socket()).and_then(|listener| {
        let child = execute(&listener, bundle, program, arguments, inherited)?;
        // The kernel shall rather end the shim than the daemon.
        let _ = adjust_oom_score(child.pid());
        Ok(child)
    });
    let child = started.map_err(|source| Error::io(format!("cannot start {}", program.display()), source))?;
    bundle.write("shim.pid", child.pid().to_string().as_bytes())?;
    Ok((answer, child))
}

/// A bundle that was not there has no shim: what has its socket's name is a leftover.
fn listen(path: &Path) -> io::Result<UnixListener> {
    let own = Mode::RUSR | Mode::WUSR;
    match listen_at(path, own) {
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
            std::fs::remove_file(path)?;
            listen_at(path, own)
        }
        other => other,
    }
}

fn execute(
    listener: &UnixListener,
    bundle: &Bundle,
    program: &Path,
    arguments: &[OsString],
    inherited: &Inherited,
) -> io::Result<Child> {
    let null = openat(CWD, "/dev/null", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())?;
    // Open for both, it breaks with no daemon; without waiting, a daemon that does not read holds nobody up.
    let flags = OFlags::RDWR | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let log = openat(CWD, bundle.file("log"), flags, Mode::empty())?;
    let arguments = arguments.iter().map(c_string).collect::<io::Result<Vec<_>>>()?;
    Spawn {
        program,
        arguments: &arguments,
        environment: &inherited.environment,
        folder: bundle.path(),
        streams: [null.as_fd(), null.as_fd(), log.as_fd()],
        given: Some(listener.as_fd()),
        apart: Apart::Session,
        open_files: inherited.open_files,
    }
    .spawn()
}

/// One more than the daemon's own.
fn adjust_oom_score(pid: u32) -> io::Result<()> {
    let own = std::fs::read_to_string("/proc/self/oom_score_adj")?;
    let own: i32 = own.trim().parse().map_err(io::Error::other)?;
    std::fs::write(format!("/proc/{pid}/oom_score_adj"), (own + 1).min(1000).to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_container_that_asks_for_nothing_special_takes_the_short_way() {
        assert!(applies(Some(b"{}"), None, &[]));
        assert!(!applies(None, None, &[]));
        assert!(!applies(Some(br#"{"annotations":{"io.kubernetes.cri.sandbox-id":"x"}}"#), None, &[]));
        assert!(!applies(Some(b"{}"), None, &[("SCHED_CORE".into(), "1".into())]));
        let options = |shim_cgroup: &str| {
            let options = proto::containerd::runc::v1::Options {
                shim_cgroup: shim_cgroup.into(),
                ..Default::default()
            };
            proto::convert::pack(&options)
        };
        assert!(applies(Some(b"{}"), Some(&options("")), &[]));
        assert!(!applies(Some(b"{}"), Some(&options("/x")), &[]));
        assert!(!applies(Some(b"{}"), Some(&Any::new("kata.Options", [])), &[]));
    }
}
