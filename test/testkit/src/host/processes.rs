//! Processes that belong to a test: their command line, environment, working directory or cgroup
//! has its tag, or they descend from one that does.

use std::collections::HashMap;
use std::fs;

use rustix::process::Signal;

use crate::wait::{SOON, Watched};

/// One process.
#[derive(Debug, Clone)]
pub struct Process {
    /// Its number.
    pub pid: u32,
    /// Its parent's number.
    pub parent: u32,
    /// Its command line, blanks between the words.
    pub command: String,
}

/// The processes that carry `tag`, and their descendants; never the test's own process.
pub fn tagged(tag: &str) -> Vec<Process> {
    let all = all();
    let own = std::process::id();
    let mut chosen: Vec<u32> =
        all.values().filter(|process| process.pid != own && carries(process, tag)).map(|p| p.pid).collect();
    let mut next = 0;
    while let Some(&parent) = chosen.get(next) {
        let children = all.values().filter(|process| process.parent == parent);
        let fresh: Vec<u32> = children.map(|child| child.pid).filter(|pid| !chosen.contains(pid)).collect();
        chosen.extend(fresh.into_iter().filter(|&pid| pid != own));
        next += 1;
    }
    chosen.sort_unstable();
    chosen.iter().filter_map(|pid| all.get(pid).cloned()).collect()
}

/// Kills the processes that carry `tag` until there are none, and waits for their end.
pub fn kill_tagged(tag: &str) {
    let deadline = std::time::Instant::now() + SOON;
    loop {
        let found = tagged(tag);
        if found.is_empty() || std::time::Instant::now() > deadline {
            return;
        }
        let watched: Vec<Watched> = found.iter().filter_map(|process| Watched::open(process.pid)).collect();
        watched.iter().for_each(|process| process.signal(Signal::KILL));
        for process in &watched {
            process.ends_within(SOON);
        }
    }
}

/// Every process that is not a zombie.
fn all() -> HashMap<u32, Process> {
    let Ok(entries) = fs::read_dir("/proc") else { return HashMap::new() };
    let pids = entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    pids.filter_map(read).map(|process| (process.pid, process)).collect()
}

fn read(pid: u32) -> Option<Process> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name is in parentheses and may hold anything, so fields count from the last one.
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace();
    if fields.next()? == "Z" {
        return None;
    }
    let parent = fields.next()?.parse().ok()?;
    let command = text(pid, "cmdline")?.replace('\0', " ");
    Some(Process { pid, parent, command })
}

fn carries(process: &Process, tag: &str) -> bool {
    let directory = || fs::read_link(format!("/proc/{}/cwd", process.pid)).ok();
    process.command.contains(tag)
        || text(process.pid, "cgroup").is_some_and(|cgroups| cgroups.contains(tag))
        || text(process.pid, "environ").is_some_and(|environment| environment.contains(tag))
        || directory().is_some_and(|path| path.to_string_lossy().contains(tag))
}

fn text(pid: u32, file: &str) -> Option<String> {
    let bytes = fs::read(format!("/proc/{pid}/{file}")).ok()?;
    Some(String::from_utf8_lossy(&bytes).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Invocation, wait};

    #[test]
    fn a_tagged_process_is_found_and_killed() {
        let tag = "berth-test-tagged-process";
        let child = Invocation::new("sh").args(["-c", "sleep 1000; true"]).env("MARK", tag).start();
        wait::soon("the shell and its child", || tagged(tag).len() == 2);
        kill_tagged(tag);
        assert_eq!(child.wait().code(), 137);
        assert!(tagged(tag).is_empty());
    }
}
