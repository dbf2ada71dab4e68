//! Scheduling, execution domain, processors, memory policy: names into numbers.

use berth_oci::runtime::{IoPriority, MemoryPolicy, Personality, Scheduler};
use berth_sys::child::SchedAttributes;

use crate::error::{Error, Result};

fn unknown(what: &str, name: &str) -> Error {
    Error::Config { what: format!("{what} {name:?} is not known") }
}

fn number(what: &str, table: &[(&str, u64)], name: &str) -> Result<u64> {
    let found = table.iter().find(|(known, _)| *known == name);
    found.map(|(_, number)| *number).ok_or_else(|| unknown(what, name))
}

/// `<linux/sched.h>`.
const POLICIES: &[(&str, u64)] = &[
    ("SCHED_OTHER", 0),
    ("SCHED_FIFO", 1),
    ("SCHED_RR", 2),
    ("SCHED_BATCH", 3),
    ("SCHED_ISO", 4),
    ("SCHED_IDLE", 5),
    ("SCHED_DEADLINE", 6),
];

const FLAGS: &[(&str, u64)] = &[
    ("SCHED_FLAG_RESET_ON_FORK", 0x1),
    ("SCHED_FLAG_RECLAIM", 0x2),
    ("SCHED_FLAG_DL_OVERRUN", 0x4),
    ("SCHED_FLAG_KEEP_POLICY", 0x8),
    ("SCHED_FLAG_KEEP_PARAMS", 0x10),
    ("SCHED_FLAG_UTIL_CLAMP_MIN", 0x20),
    ("SCHED_FLAG_UTIL_CLAMP_MAX", 0x40),
];

pub(super) fn scheduler(wanted: &Scheduler) -> Result<SchedAttributes> {
    let mut flags = 0;
    for flag in &wanted.flags {
        flags |= number("scheduler flag", FLAGS, flag)?;
    }
    Ok(SchedAttributes {
        size: size_of::<SchedAttributes>() as u32,
        policy: number("scheduler policy", POLICIES, &wanted.policy)? as u32,
        flags,
        nice: wanted.nice,
        priority: wanted.priority as u32,
        runtime: wanted.runtime,
        deadline: wanted.deadline,
        period: wanted.period,
    })
}

/// The class in bits 13 and up, the level below.
pub(super) fn io_priority(wanted: &IoPriority) -> Result<i32> {
    const CLASSES: &[(&str, u64)] =
        &[("IOPRIO_CLASS_RT", 1), ("IOPRIO_CLASS_BE", 2), ("IOPRIO_CLASS_IDLE", 3)];
    let class = number("I/O priority class", CLASSES, &wanted.class)? as i32;
    if !(0..=7).contains(&wanted.priority) {
        return Err(Error::Config { what: format!("I/O priority {} is not 0 to 7", wanted.priority) });
    }
    Ok(class << 13 | wanted.priority)
}

pub(super) fn personality(wanted: &Personality) -> Result<u64> {
    if let Some(flag) = wanted.flags.first() {
        return Err(unknown("personality flag", flag));
    }
    number("personality", &[("LINUX", 0), ("LINUX32", 8)], &wanted.domain)
}

pub(super) fn memory_policy(wanted: &MemoryPolicy) -> Result<(i32, Vec<u64>)> {
    const MODES: &[(&str, u64)] = &[
        ("MPOL_DEFAULT", 0),
        ("MPOL_PREFERRED", 1),
        ("MPOL_BIND", 2),
        ("MPOL_INTERLEAVE", 3),
        ("MPOL_LOCAL", 4),
        ("MPOL_PREFERRED_MANY", 5),
        ("MPOL_WEIGHTED_INTERLEAVE", 6),
    ];
    const MODE_FLAGS: &[(&str, u64)] = &[
        ("MPOL_F_STATIC_NODES", 1 << 15),
        ("MPOL_F_RELATIVE_NODES", 1 << 14),
        ("MPOL_F_NUMA_BALANCING", 1 << 13),
    ];
    let mut mode = number("memory policy", MODES, &wanted.mode)?;
    for flag in &wanted.flags {
        mode |= number("memory policy flag", MODE_FLAGS, flag)?;
    }
    let nodes =
        if wanted.nodes.is_empty() { Vec::new() } else { list("memory policy nodes", &wanted.nodes)? };
    Ok((mode as i32, nodes))
}

/// A list such as `0-3,7` as a bit mask.
pub(super) fn list(what: &str, text: &str) -> Result<Vec<u64>> {
    let bad = || Error::Config { what: format!("{what}: {text:?} is no list such as 0-3,7") };
    let mut mask = Vec::new();
    for part in text.trim().split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let first: usize = first.trim().parse().map_err(|_| bad())?;
        let last: usize = last.trim().parse().map_err(|_| bad())?;
        if first > last || last >= 8192 {
            return Err(bad());
        }
        if mask.len() <= last / 64 {
            mask.resize(last / 64 + 1, 0u64);
        }
        for bit in first..=last {
            mask[bit / 64] |= 1 << (bit % 64);
        }
    }
    Ok(mask)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn processor_lists_become_masks_or_are_refused() {
        assert_eq!(list("cpus", "0-3,7").unwrap(), [0b1000_1111]);
        assert_eq!(list("cpus", "64").unwrap(), [0, 1]);
        for bad in ["", "3-1", "a", "1-", "99999"] {
            assert!(list("cpus", bad).is_err(), "{bad}");
        }
    }
}
