//! Shims that cannot be spoken to, found by what they have left in their bundle or show of themselves.

use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt as _;

use berth_types::{Error, Result};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

use crate::bundle::Bundle;

/// How often the machine's processes are looked through: one that is killed may have made another meanwhile.
const LOOKS: usize = 3;

/// Kills the shim that left its number in the bundle, if that number is still a shim's of this task. Where there is no
/// number, because the shim or the daemon ended while it was started, whoever was started for the task in the bundle.
/// Blocking.
pub(crate) fn end(bundle: &Bundle) -> Result<()> {
    if let Some(text) = bundle.read("shim.pid")? {
        let number = std::str::from_utf8(&text).ok().and_then(|text| text.trim().parse().ok());
        number.and_then(Pid::from_raw).map(|pid| end_one(bundle, pid, |_| true));
        return Ok(());
    }
    let folder = fs::metadata(bundle.path())
        .map_err(|error| Error::io(format!("cannot look at {}", bundle.path().display()), error))?;
    let works_there = |pid: Pid| {
        let at = fs::metadata(format!("/proc/{}/cwd", pid.as_raw_nonzero()));
        at.is_ok_and(|at| (at.dev(), at.ino()) == (folder.dev(), folder.ino()))
    };
    for _ in 0..LOOKS {
        let all = processes().map_err(|error| Error::io("cannot look through the processes", error))?;
        if all.into_iter().filter(|pid| works_there(*pid) && end_one(bundle, *pid, works_there)).count() == 0
        {
            break;
        }
    }
    Ok(())
}

/// Kills a process if it is a shim of the bundle's task, and is what is looked for; whether it was.
fn end_one(bundle: &Bundle, pid: Pid, is_it: impl Fn(Pid) -> bool) -> bool {
    // Opened before it is looked at: what is looked at is what is killed.
    let Ok(process) = pidfd_open(pid, PidfdFlags::empty()) else { return false };
    let is_it = is_it(pid) && is_for(bundle, pid);
    if is_it {
        tracing::info!(task = %bundle.key(), %pid, "ending a shim that cannot be spoken to");
        kill(&process);
    }
    is_it
}

/// Whether a process was called as a shim of the bundle's task.
fn is_for(bundle: &Bundle, pid: Pid) -> bool {
    let arguments = fs::read(format!("/proc/{}/cmdline", pid.as_raw_nonzero())).unwrap_or_default();
    let arguments: Vec<&[u8]> = arguments.split(|&byte| byte == 0).collect();
    let says = |flag: &str, value: &str| {
        arguments.windows(2).any(|pair| pair[0] == flag.as_bytes() && pair[1] == value.as_bytes())
    };
    says("-namespace", bundle.key().namespace.as_str()) && says("-id", bundle.key().id.as_str())
}

fn kill(process: &OwnedFd) {
    // The only failure left is that it has ended.
    let _ = pidfd_send_signal(process, Signal::KILL);
}

fn processes() -> io::Result<Vec<Pid>> {
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc")? {
        let name = entry?.file_name();
        found.extend(name.to_str().and_then(|name| name.parse().ok()).and_then(Pid::from_raw));
    }
    Ok(found)
}
