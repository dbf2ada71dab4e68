//! The processes of a cgroup: listed, signalled, removed with it.

use std::fs;
use std::io;
use std::path::Path;
use std::time::{Duration, Instant};

use super::{Cgroup, Hierarchies, file};
use crate::error::{Doing as _, Result};

/// How long the last processes may take to vanish.
const PATIENCE: Duration = Duration::from_secs(10);

/// All processes below a directory, each once.
pub(super) fn all(directory: &Path) -> Result<Vec<i32>> {
    let mut pids = Vec::new();
    collect(directory, &mut pids).doing(|| format!("cannot list cgroup {}", directory.display()))?;
    pids.sort_unstable();
    pids.dedup();
    Ok(pids)
}

fn collect(directory: &Path, pids: &mut Vec<i32>) -> io::Result<()> {
    match fs::read_to_string(directory.join("cgroup.procs")) {
        Ok(text) => pids.extend(text.lines().filter_map(|line| line.parse::<i32>().ok())),
        // Gone meanwhile, or a threaded part of a domain that lists them higher up.
        Err(e) if e.kind() == io::ErrorKind::NotFound || e.raw_os_error() == Some(libc::EOPNOTSUPP) => {}
        Err(e) if e.raw_os_error() == Some(libc::ENODEV) => return Ok(()),
        Err(e) => return Err(e),
    }
    for child in children(directory) {
        collect(&child, pids)?;
    }
    Ok(())
}

fn children(directory: &Path) -> Vec<std::path::PathBuf> {
    let entries = fs::read_dir(directory).into_iter().flatten().filter_map(io::Result::ok);
    entries.filter(|e| e.file_type().is_ok_and(|t| t.is_dir())).map(|e| e.path()).collect()
}

/// Signals all of them. SIGKILL leaves no chance to fork away: v2 has a file for that, on v1 they are
/// frozen meanwhile.
pub(super) fn signal(cgroup: &Cgroup, signal: i32) -> Result<()> {
    let Some(directory) = cgroup.directory() else { return Ok(()) };
    let kill = signal == libc::SIGKILL;
    if kill
        && matches!(cgroup.hierarchies, Hierarchies::V2(_))
        && file::attempt(directory, "cgroup.kill", "1").is_ok()
    {
        return Ok(());
    }
    let frozen = kill && cgroup.freeze().is_ok();
    let pids = all(directory);
    for pid in pids.iter().flatten() {
        // A process that is gone needs no signal.
        let _ = berth_sys::child::kill(*pid, signal);
    }
    if frozen {
        cgroup.thaw()?;
    }
    pids.map(drop)
}

/// Removes the directories of all hierarchies; whoever is left in them is killed.
pub(super) fn remove(cgroup: &Cgroup) -> Result<()> {
    match &cgroup.hierarchies {
        Hierarchies::V2(own) => remove_one(own, cgroup),
        Hierarchies::V1(all) => {
            let results: Vec<Result<()>> = all.iter().map(|h| remove_one(&h.own, cgroup)).collect();
            results.into_iter().collect()
        }
    }
}

/// A directory stays busy while a killed process is on its way out: tried again with growing pauses,
/// since no event tells (a v1 cgroup has none).
fn remove_one(directory: &Path, cgroup: &Cgroup) -> Result<()> {
    let begun = Instant::now();
    let mut pause = Duration::from_micros(100);
    loop {
        match fs::remove_dir(directory) {
            Ok(()) => return Ok(()),
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(e) if e.raw_os_error() == Some(libc::EBUSY) && begun.elapsed() < PATIENCE => {}
            Err(e) => return Err(e).doing(|| format!("cannot remove cgroup {}", directory.display())),
        }
        for child in children(directory) {
            remove_one(&child, cgroup)?;
        }
        let pids = all(directory).unwrap_or_default();
        if !pids.is_empty() {
            if cgroup.is_frozen() {
                let _ = cgroup.thaw();
            }
            for pid in pids {
                let _ = berth_sys::child::kill(pid, libc::SIGKILL);
            }
        }
        super::freeze::rest(pause);
        pause = (pause * 2).min(Duration::from_millis(20));
    }
}
