//! Memory of processes, from `/proc/PID/smaps_rollup` (proc(5)), in KiB.

use anyhow::{Context, Result};

/// What some processes take.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Memory {
    /// Pages that only they have and that cannot be dropped.
    pub(crate) private: u64,
    /// Their share of all pages, shared ones divided by their users.
    pub(crate) proportional: u64,
}

impl Memory {
    /// What one process takes.
    pub(crate) fn of(pid: u32) -> Result<Self> {
        let path = format!("/proc/{pid}/smaps_rollup");
        let text = std::fs::read_to_string(&path).with_context(|| format!("cannot read {path}"))?;
        Ok(Self { private: field(&text, "Private_Dirty:"), proportional: field(&text, "Pss:") })
    }

    /// What many take together.
    pub(crate) fn of_all(pids: impl IntoIterator<Item = u32>) -> Result<Self> {
        pids.into_iter().try_fold(Self::default(), |sum, pid| {
            let one = Self::of(pid)?;
            Ok(Self { private: sum.private + one.private, proportional: sum.proportional + one.proportional })
        })
    }
}

/// The most that a process has had in memory so far, programs' pages included: `VmHWM` of proc_pid_status(5).
pub(crate) fn peak(pid: u32) -> Result<u64> {
    let path = format!("/proc/{pid}/status");
    let text = std::fs::read_to_string(&path).with_context(|| format!("cannot read {path}"))?;
    Ok(field(&text, "VmHWM:"))
}

fn field(text: &str, name: &str) -> u64 {
    let line = text.lines().find_map(|line| line.strip_prefix(name));
    line.and_then(|rest| rest.split_whitespace().next()).and_then(|word| word.parse().ok()).unwrap_or(0)
}
