//! What containers use.

use std::collections::BTreeMap;
use std::fs;
use std::time::{Duration, SystemTime};

use berth_types::{Any, ContainerId, ErrorKind, Result};

use crate::Workload;

/// What a container had used at one moment. A runtime's own type becomes this by a function of the caller,
/// because the messages on the wire are not known here.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sample {
    /// Nanoseconds of processors.
    pub cpu: u64,
    /// Bytes of memory, without what the kernel can take back at once.
    pub memory: u64,
    /// Bytes allowed; none without a limit.
    pub memory_limit: Option<u64>,
    /// Processes and threads.
    pub pids: u64,
    /// Bytes read from devices.
    pub block_read: u64,
    /// Bytes written to devices.
    pub block_written: u64,
    /// Processes that the kernel killed for memory.
    pub oom_kills: u64,
}

/// What a container uses.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Usage {
    /// Hundredths of one processor.
    pub cpu_percent: f64,
    /// Bytes of memory.
    pub memory: u64,
    /// Bytes that it could have.
    pub memory_limit: u64,
    /// Hundredths of that.
    pub memory_percent: f64,
    /// Bytes received over network devices.
    pub received: u64,
    /// Bytes sent.
    pub sent: u64,
    /// Bytes read from devices.
    pub block_read: u64,
    /// Bytes written to devices.
    pub block_written: u64,
    /// Processes and threads.
    pub pids: u64,
}

impl Usage {
    /// What lies between two samples of one container that runs as `pid`.
    pub fn between(before: Option<&Sample>, after: &Sample, apart: Duration, pid: u32) -> Self {
        let cpu = before.map_or(0, |before| after.cpu.saturating_sub(before.cpu));
        let apart = apart.as_nanos().max(1) as f64;
        let total = total_memory();
        let limit = after.memory_limit.filter(|limit| *limit > 0 && *limit < total).unwrap_or(total);
        let (received, sent) = network(pid);
        Self {
            cpu_percent: cpu as f64 * 100.0 / apart,
            memory: after.memory,
            memory_limit: limit,
            memory_percent: if limit == 0 { 0.0 } else { after.memory as f64 * 100.0 / limit as f64 },
            received,
            sent,
            block_read: after.block_read,
            block_written: after.block_written,
            pids: after.pids,
        }
    }
}

impl Workload {
    /// Samples of the containers given, by id; one without a task is missing.
    pub async fn samples(
        &self,
        ids: &[&ContainerId],
        decode: &(dyn Fn(&Any) -> Option<Sample> + Sync),
    ) -> Result<BTreeMap<String, (SystemTime, Sample)>> {
        let mut samples = BTreeMap::new();
        if ids.is_empty() {
            return Ok(samples);
        }
        let filters: Vec<String> = ids.iter().map(|id| format!("id=={id}")).collect();
        let metrics = match self.catalog.tasks(&self.scope).metrics(&filters).await {
            Err(error) if error.kind() == ErrorKind::NotFound => Vec::new(),
            other => other?,
        };
        for metric in metrics {
            if let Some(sample) = metric.data.as_ref().and_then(decode) {
                samples.insert(metric.id.to_string(), (metric.timestamp, sample));
            }
        }
        Ok(samples)
    }
}

fn total_memory() -> u64 {
    let info = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let line = info.lines().find_map(|line| line.strip_prefix("MemTotal:"));
    line.and_then(|rest| rest.trim().strip_suffix("kB")?.trim().parse::<u64>().ok())
        .map_or(0, |kib| kib * 1024)
}

/// Bytes through every network device but loopback, as the process sees them.
fn network(pid: u32) -> (u64, u64) {
    let text = fs::read_to_string(format!("/proc/{pid}/net/dev")).unwrap_or_default();
    let mut total = (0, 0);
    for line in text.lines().skip(2) {
        let Some((name, rest)) = line.split_once(':') else { continue };
        if name.trim() == "lo" {
            continue;
        }
        let numbers: Vec<u64> = rest.split_whitespace().map(|number| number.parse().unwrap_or(0)).collect();
        total.0 += numbers.first().copied().unwrap_or(0);
        total.1 += numbers.get(8).copied().unwrap_or(0);
    }
    total
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_are_of_one_processor_and_of_the_limit() {
        let before = Sample { cpu: 1_000_000_000, ..Sample::default() };
        let after = Sample {
            cpu: 1_500_000_000,
            memory: 32 << 20,
            memory_limit: Some(64 << 20),
            ..Sample::default()
        };
        let usage = Usage::between(Some(&before), &after, Duration::from_secs(1), 0);
        assert!((usage.cpu_percent - 50.0).abs() < 0.001);
        assert!((usage.memory_percent - 50.0).abs() < 0.001);
        let first = Usage::between(None, &Sample { memory_limit: None, ..after }, Duration::ZERO, 0);
        assert!(first.cpu_percent.abs() < f64::EPSILON);
        assert!(first.memory_limit > 64 << 20);
    }
}
