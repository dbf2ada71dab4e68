//! Another process in a container.

use std::fs::{self, File};
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::{Path, PathBuf};

use berth_oci::runtime::Status;
use berth_sys::child::{Born, set_affinity};
use rustix::io::Errno;
use rustix::net::SocketType;

use super::conversation::{Conversation, News, pair, send_fd};
use super::create::{reap, set_oom_score};
use super::{Container, Exec, Execed, Stdio, birth, process};
use crate::error::{Doing as _, Error, Result};
use crate::plan::{self, Joining};

pub(super) fn exec(container: &mut Container, exec: Exec) -> Result<Execed> {
    let record = &container.record;
    match container.status()? {
        Status::Stopped => {
            return Err(Error::State { what: "cannot exec in a stopped container".into() });
        }
        Status::Paused if !exec.ignore_paused => {
            let what = "cannot exec in a paused container (use --ignore-paused to override)";
            return Err(Error::State { what: what.into() });
        }
        _ => {}
    }
    let init = match &container.pidfd {
        Some(pidfd) => pidfd.try_clone().doing(|| "cannot keep a pidfd")?,
        None => process::open(record.pid, record.start_time)
            .ok_or_else(|| Error::State { what: "cannot exec in a stopped container".into() })?,
    };
    let cgroup = record.cgroup.below(&exec.cgroup)?;
    let (birthplace, entrances) = entrance(&cgroup)?;
    let (ours, theirs) = pair()?;
    let console = match &exec.stdio {
        Stdio::ConsoleSocket(path) => Some(path.clone()),
        _ => None,
    };
    let mut warnings = Vec::new();
    let joining = Joining {
        id: &record.id,
        init: &init,
        process: &exec.process,
        stdio: exec.stdio,
        keyring: exec.keyring,
        preserve: exec.preserve_fds,
        socket: theirs,
        entrances,
    };
    let (mut plan, birth) = plan::exec(&record.spec, joining, &mut warnings)?;
    let beside = || own_cgroup(record.pid);
    let born = birth::give_beside(&mut plan, &birth, birthplace.as_ref(), beside)?;
    drop(plan);
    let talk = Conversation { socket: &ours, spec: &record.spec, process: &exec.process };
    match follow(&talk, &born, container, console.as_deref(), &mut warnings) {
        Ok(terminal) => Ok(Execed { pid: born.pid, pidfd: born.pidfd, terminal, warnings }),
        Err(error) => {
            reap(&born);
            Err(error)
        }
    }
}

/// A v2 directory to be born in and the v1 files to join by.
fn entrance(cgroup: &crate::cgroup::Cgroup) -> Result<(Option<OwnedFd>, Vec<OwnedFd>)> {
    let own = cgroup.unified();
    let birthplace = match own {
        // A hybrid machine's may be missing; it limits nothing.
        Some(own) => File::open(own).ok().map(OwnedFd::from),
        None => None,
    };
    Ok((birthplace, cgroup.entrances()?))
}

/// Where the first process itself is on v2: a container that runs other containers, or systemd, moves
/// its processes into cgroups below its own, which then takes no more.
fn own_cgroup(pid: i32) -> Option<OwnedFd> {
    let text = fs::read_to_string(format!("/proc/{pid}/cgroup")).ok()?;
    let path = text.lines().find_map(|line| line.strip_prefix("0::"))?;
    let base = Path::new("/sys/fs/cgroup");
    let base = if base.join("unified").is_dir() { base.join("unified") } else { base.to_owned() };
    File::open(base.join(path.trim_start_matches('/'))).ok().map(OwnedFd::from)
}

fn follow(
    talk: &Conversation<'_>,
    born: &Born,
    container: &Container,
    console: Option<&Path>,
    warnings: &mut Vec<String>,
) -> Result<Option<OwnedFd>> {
    if let Some(list) = talk.process.exec_cpu_affinity.as_ref().filter(|a| !a.initial.is_empty()) {
        let mask = plan::processors("execCPUAffinity.initial", &list.initial)?;
        match set_affinity(born.pid, &mask) {
            // It has run to its end already.
            Err(Errno::SRCH) => {}
            done => done.doing(|| "cannot set the initial CPU affinity")?,
        }
    }
    if let Some(score) = talk.process.oom_score_adj {
        set_oom_score(born.pid, score, warnings)?;
    }
    let mut terminal = None;
    let mut prepared = false;
    loop {
        match talk.next()? {
            News::Terminal(master) => match console {
                Some(path) => {
                    let path: PathBuf = container.record.bundle.join(path);
                    send_fd(&path, SocketType::STREAM, b"/dev/ptmx", master.as_fd())
                        .doing(|| format!("cannot send the terminal to {}", path.display()))?;
                }
                None => terminal = Some(master),
            },
            News::Listener(number) => {
                talk.listener(&born.pidfd, number, born.pid, container.state()?)?;
            }
            News::Prepared => {
                prepared = true;
                // In a frozen cgroup it gets no farther until somebody thaws it.
                if container.record.cgroup.is_frozen() {
                    return Ok(terminal);
                }
            }
            News::Namespaces => {}
            News::End if prepared => return Ok(terminal),
            News::End => {
                let what = "the process was killed before it was ready".into();
                return Err(Error::Process { what });
            }
        }
    }
}
