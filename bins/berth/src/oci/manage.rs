//! kill, delete, pause, resume, update.

use std::io::Read as _;

use berth_container::{Container, Deletion, Error, Target};
use berth_oci::runtime::Resources;

use super::log::Log;
use super::{Failure, Outcome, args};

/// Names of signals by number, from 1.
const SIGNALS: [&str; 31] = [
    "HUP", "INT", "QUIT", "ILL", "TRAP", "ABRT", "BUS", "FPE", "KILL", "USR1", "SEGV", "USR2", "PIPE",
    "ALRM", "TERM", "STKFLT", "CHLD", "CONT", "STOP", "TSTP", "TTIN", "TTOU", "URG", "XCPU", "XFSZ",
    "VTALRM", "PROF", "WINCH", "IO", "PWR", "SYS",
];

/// A number, or a name with or without SIG.
fn signal(text: &str) -> Result<i32, Failure> {
    let unknown = || Failure::new(format!("unknown signal {text:?}"));
    if let Ok(number) = text.parse::<i32>() {
        return if (0..=64).contains(&number) { Ok(number) } else { Err(unknown()) };
    }
    let upper = text.to_uppercase();
    let name = upper.strip_prefix("SIG").unwrap_or(&upper);
    if let Some(above) = name.strip_prefix("RTMIN+").and_then(|n| n.parse::<i32>().ok()) {
        return if (0..=30).contains(&above) { Ok(34 + above) } else { Err(unknown()) };
    }
    let at = SIGNALS.iter().position(|known| *known == name).ok_or_else(unknown)?;
    Ok(at as i32 + 1)
}

pub(super) fn kill(globals: &args::Globals, wanted: &args::Kill) -> Outcome {
    let container = Container::load(&globals.root, &wanted.id)?;
    let number = signal(wanted.signal.as_deref().unwrap_or("TERM"))?;
    let target = if wanted.all { Target::All } else { Target::Init };
    match container.kill(number, target) {
        // As runc: a container of which nothing is left has received it.
        Err(Error::Finished) if wanted.all => Ok(0),
        Err(Error::Finished) => Err(Failure::new("container not running")),
        done => done.map(|()| 0).map_err(Failure::from),
    }
}

pub(super) fn delete(globals: &args::Globals, wanted: &args::Delete, log: &Log) -> Outcome {
    let deletion = if wanted.force { Deletion::Force } else { Deletion::Stopped };
    let container = match Container::load(&globals.root, &wanted.id) {
        Err(error @ (Error::NotFound { .. } | Error::Document { .. })) => {
            // What a creation that was cut off has left has no state to load.
            if wanted.force {
                Container::sweep(&globals.root, &wanted.id)?;
                return Ok(0);
            }
            return Err(error.into());
        }
        done => done?,
    };
    log.warnings(&container.delete(deletion)?);
    Ok(0)
}

pub(super) fn pause(globals: &args::Globals, id: &str) -> Outcome {
    Container::load(&globals.root, id)?.pause()?;
    Ok(0)
}

pub(super) fn resume(globals: &args::Globals, id: &str) -> Outcome {
    Container::load(&globals.root, id)?.resume()?;
    Ok(0)
}

pub(super) fn update(globals: &args::Globals, wanted: &args::Update, log: &Log) -> Outcome {
    let mut container = Container::load(&globals.root, &wanted.id)?;
    let resources = match &wanted.resources {
        Some(path) => document(path)?,
        None => from_flags(wanted)?,
    };
    log.warnings(&container.update(&resources)?);
    Ok(0)
}

fn document(path: &std::path::Path) -> Result<Resources, Failure> {
    let mut text = Vec::new();
    let read = if path.as_os_str() == "-" {
        std::io::stdin().read_to_end(&mut text)
    } else {
        std::fs::File::open(path).and_then(|mut file| file.read_to_end(&mut text))
    };
    read.map_err(|e| Failure::new(format!("cannot read {}: {e}", path.display())))?;
    serde_json::from_slice(&text).map_err(|e| Failure::new(format!("cannot read {}: {e}", path.display())))
}

fn from_flags(wanted: &args::Update) -> Result<Resources, Failure> {
    let mut resources = Resources::default();
    if let Some(weight) = wanted.blkio_weight {
        resources.block_io.get_or_insert_default().weight = Some(weight);
    }
    if let Some(limit) = wanted.pids_limit {
        resources.pids.get_or_insert_default().limit = Some(limit);
    }
    let cpu = resources.cpu.get_or_insert_default();
    cpu.period = wanted.cpu_period;
    cpu.quota = wanted.cpu_quota;
    cpu.burst = wanted.cpu_burst;
    cpu.realtime_period = wanted.cpu_rt_period;
    cpu.realtime_runtime = wanted.cpu_rt_runtime;
    cpu.shares = wanted.cpu_share;
    cpu.idle = wanted.cpu_idle;
    cpu.cpus = wanted.cpuset_cpus.clone().unwrap_or_default();
    cpu.mems = wanted.cpuset_mems.clone().unwrap_or_default();
    let memory = resources.memory.get_or_insert_default();
    memory.limit = wanted.memory.as_deref().map(bytes).transpose()?;
    memory.reservation = wanted.memory_reservation.as_deref().map(bytes).transpose()?;
    memory.swap = wanted.memory_swap.as_deref().map(bytes).transpose()?;
    Ok(resources)
}

/// A number of bytes with one of b, k, m, g, t; -1 for no limit.
fn bytes(text: &str) -> Result<i64, Failure> {
    let bad = || Failure::new(format!("{text:?} is no size such as 64m"));
    if text == "-1" {
        return Ok(-1);
    }
    let lower = text.to_lowercase();
    let lower = lower.strip_suffix("ib").or_else(|| lower.strip_suffix('b')).unwrap_or(&lower);
    let (number, shift) = match lower.as_bytes().last() {
        Some(b'k') => (&lower[..lower.len() - 1], 10),
        Some(b'm') => (&lower[..lower.len() - 1], 20),
        Some(b'g') => (&lower[..lower.len() - 1], 30),
        Some(b't') => (&lower[..lower.len() - 1], 40),
        _ => (lower, 0),
    };
    let number: i64 = number.trim().parse().map_err(|_| bad())?;
    number.checked_mul(1 << shift).filter(|n| *n >= 0).ok_or_else(bad)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signals_and_sizes_are_read_as_runc_reads_them() {
        for (text, number) in [("9", 9), ("KILL", 9), ("sigterm", 15), ("SIGRTMIN+3", 37), ("SYS", 31)] {
            assert_eq!(signal(text).unwrap(), number);
        }
        assert!(signal("NONE").is_err() && signal("65").is_err());
        for (text, number) in [("-1", -1), ("64m", 64 << 20), ("1GiB", 1 << 30), ("12", 12), ("3kb", 3072)] {
            assert_eq!(bytes(text).unwrap(), number);
        }
        assert!(bytes("m").is_err() && bytes("9999999999999t").is_err());
    }
}
