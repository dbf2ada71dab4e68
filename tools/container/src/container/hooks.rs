//! Hooks that run in the runtime's own namespaces.

use std::io::{Read as _, Write as _};
use std::os::fd::AsFd as _;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use berth_oci::runtime::{Hook, State};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, pidfd_open};

use crate::error::{Error, Result};

/// Output of a hook that is kept for an error.
const MAX_OUTPUT: usize = 64 << 10;

/// Runs hooks one after another, each with the state on its standard input.
pub(crate) fn run(point: &'static str, hooks: &[Hook], state: &State) -> Result<()> {
    if hooks.is_empty() {
        return Ok(());
    }
    let document = serde_json::to_vec(state).unwrap_or_default();
    for (index, hook) in hooks.iter().enumerate() {
        feed(hook, &document).map_err(|what| Error::Hook {
            point,
            index,
            path: hook.path.clone().into(),
            what,
        })?;
    }
    Ok(())
}

/// Runs one program with `input`, of less than 64 KiB, on its standard input; what went wrong comes back in words.
pub(crate) fn feed(hook: &Hook, input: &[u8]) -> std::result::Result<(), String> {
    use std::os::unix::process::CommandExt as _;
    let mut command = Command::new(&hook.path);
    if let Some((name, rest)) = hook.args.split_first() {
        command.arg0(name).args(rest);
    }
    command.env_clear();
    command.envs(hook.env.iter().filter_map(|entry| entry.split_once('=')));
    command.current_dir("/");
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().map_err(|e| e.to_string())?;
    // One that does not read must not stop us: the pipe is larger than any state, and one that is gone already is
    // none to care for.
    if let Some(mut stdin) = child.stdin.take() {
        let _ = rustix::io::ioctl_fionbio(&stdin, true);
        let _ = stdin.write_all(input);
    }
    let limit = hook.timeout.and_then(|t| u64::try_from(t).ok()).filter(|t| *t > 0).map(Duration::from_secs);
    let output = gather(&mut child, limit);
    let in_time = output.is_some();
    if !in_time {
        let _ = child.kill();
    }
    // A caller that reaps every child may have been faster; then only the output can tell.
    match child.wait() {
        _ if !in_time => Err("it took too long and was killed".into()),
        Ok(status) if !status.success() => Err(format!("{status}, output: {}", text(output))),
        _ => Ok(()),
    }
}

fn text(output: Option<Vec<u8>>) -> String {
    String::from_utf8_lossy(&output.unwrap_or_default()).trim().to_owned()
}

/// Reads what it says until it has ended; `None` when the time was up.
fn gather(child: &mut std::process::Child, limit: Option<Duration>) -> Option<Vec<u8>> {
    let begun = Instant::now();
    let mut output = Vec::new();
    let pid = Pid::from_child(child);
    let Ok(pidfd) = pidfd_open(pid, PidfdFlags::empty()) else { return Some(output) };
    let (mut stdout, mut stderr) = (child.stdout.take()?, child.stderr.take()?);
    let _ = rustix::io::ioctl_fionbio(&stdout, true);
    let _ = rustix::io::ioctl_fionbio(&stderr, true);
    let mut buffer = [0u8; 4096];
    let (mut out_open, mut err_open) = (true, true);
    loop {
        let left = match limit {
            Some(limit) => Some(limit.checked_sub(begun.elapsed())?),
            None => None,
        };
        let left = left.map(|l| Timespec { tv_sec: l.as_secs() as i64, tv_nsec: l.subsec_nanos().into() });
        let mut fds = vec![PollFd::new(&pidfd, PollFlags::IN)];
        if out_open {
            fds.push(PollFd::from_borrowed_fd(stdout.as_fd(), PollFlags::IN));
        }
        if err_open {
            fds.push(PollFd::from_borrowed_fd(stderr.as_fd(), PollFlags::IN));
        }
        let _ = poll(&mut fds, left.as_ref());
        let ended = fds.first().is_some_and(|fd| !fd.revents().is_empty());
        drop(fds);
        let mut take = |result: std::io::Result<usize>, buffer: &[u8; 4096]| match result {
            Ok(0) => false,
            Ok(n) => {
                if output.len() < MAX_OUTPUT {
                    output.extend_from_slice(&buffer[..n]);
                }
                true
            }
            Err(e) => matches!(e.kind(), std::io::ErrorKind::WouldBlock | std::io::ErrorKind::Interrupted),
        };
        if out_open {
            out_open = take(stdout.read(&mut buffer), &buffer);
        }
        if err_open {
            err_open = take(stderr.read(&mut buffer), &buffer);
        }
        if ended {
            return Some(output);
        }
    }
}
