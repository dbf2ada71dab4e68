//! What the daemon takes when idle, after a thousand runs, and what each running container adds.

use std::time::Duration;

use anyhow::{Context, Result};
use testkit::{Daemon, Kind, processes};

use super::fleet;
use crate::measure::Samples;
use crate::memory::Memory;
use crate::subject::{self, Subject};
use crate::table::{Better, Table};

/// Runs for each round, of which there are twenty unless told otherwise.
const RUNS: usize = 50;
/// How long a daemon is left alone before it is looked at: idle threads have ended by then.
const REST: Duration = Duration::from_secs(5);

pub(super) fn run(rounds: usize, table: &mut Table) -> Result<()> {
    let subjects = [Subject::empty(Kind::Berth)?, Subject::empty(Kind::Containerd)?];
    rest()?;
    add(table, "daemon, idle", subjects.iter().map(|subject| daemon(&subject.daemon)))?;
    drop(subjects);

    let subjects = subject::both()?;
    for subject in &subjects {
        fleet::start(subject)?;
    }
    add(table, "per running container (its shim)", subjects.iter().map(per_container))?;
    for subject in &subjects {
        fleet::remove(subject)?;
    }
    let runs = rounds * RUNS;
    for run in 0..runs {
        for subject in &subjects {
            subject.run(&format!("run-{run}"), &["true"])?.ok();
        }
    }
    rest()?;
    let what = format!("daemon, after {} runs", runs + fleet::SIZE);
    add(table, &what, subjects.iter().map(|subject| daemon(&subject.daemon)))
}

fn rest() -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build()?;
    runtime.block_on(async { tokio::time::sleep(REST).await });
    Ok(())
}

fn add(table: &mut Table, what: &str, memory: impl Iterator<Item = Result<Memory>>) -> Result<()> {
    let (mut private, mut proportional) = <([Samples; 2], [Samples; 2])>::default();
    for (at, memory) in memory.enumerate() {
        let memory = memory?;
        private[at].push(memory.private as f64);
        proportional[at].push(memory.proportional as f64);
    }
    table.add(("memory", &format!("{what}, private dirty"), "KiB"), Better::Less, private);
    table.add(("memory", &format!("{what}, proportional"), "KiB"), Better::Less, proportional);
    Ok(())
}

fn daemon(daemon: &Daemon) -> Result<Memory> {
    Memory::of(daemon.pid().context("the daemon does not run")?)
}

/// The shims' memory by container; the containers' own processes are the same on both sides.
fn per_container(subject: &Subject) -> Result<Memory> {
    let tagged = processes::tagged(subject.daemon.tag());
    let shims = tagged.iter().filter(|process| process.command.contains("shim"));
    let all = Memory::of_all(shims.map(|shim| shim.pid))?;
    let size = fleet::SIZE as u64;
    Ok(Memory { private: all.private / size, proportional: all.proportional / size })
}
