//! Figures of a cgroup of either version, in the words of the CRI.

use berth_cgroup::Metrics;
use berth_proto::io::containerd::cgroups::{v1, v2};
use berth_proto::runtime::v1 as proto;

/// What a kubelet wants to know of a cgroup. Bytes, and nanoseconds.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Reading {
    /// When, in nanoseconds since 1970.
    pub(super) at: i64,
    /// Processor time.
    pub(super) cpu: u64,
    /// Memory that is used, and its limit.
    pub(super) memory: u64,
    pub(super) limit: u64,
    /// Pages of files that nobody has used lately, and anonymous pages.
    pub(super) inactive_file: u64,
    pub(super) anonymous: u64,
    pub(super) faults: u64,
    pub(super) major_faults: u64,
    /// Swap that is used, and how much there could be.
    pub(super) swap: Option<(u64, u64)>,
    /// Processes.
    pub(super) processes: u64,
    /// Waiting for processor, memory and disk.
    pub(super) pressure: [Option<proto::PsiStats>; 3],
}

/// A limit that is none, as the kernel writes it.
const UNLIMITED: u64 = 1 << 62;

impl Reading {
    pub(super) fn of(metrics: &Metrics, at: i64) -> Self {
        match metrics {
            Metrics::V1(metrics) => Self::v1(metrics, at),
            Metrics::V2(metrics) => Self::v2(metrics, at),
        }
    }

    fn v1(metrics: &v1::Metrics, at: i64) -> Self {
        let memory = metrics.memory.unwrap_or_default();
        let usage = memory.usage.unwrap_or_default();
        let swap = memory.swap.as_ref().map(|swap| {
            (swap.usage.saturating_sub(usage.usage), swap.limit.saturating_sub(usage.limit.min(swap.limit)))
        });
        Self {
            at,
            cpu: metrics.cpu.as_ref().and_then(|cpu| cpu.usage.as_ref()).map_or(0, |usage| usage.total),
            memory: usage.usage,
            limit: memory.hierarchical_memory_limit,
            inactive_file: memory.total_inactive_file,
            anonymous: memory.total_rss,
            faults: memory.pg_fault,
            major_faults: memory.pg_maj_fault,
            swap,
            processes: metrics.pids.as_ref().map_or(0, |pids| pids.current),
            pressure: [None, None, None],
        }
    }

    fn v2(metrics: &v2::Metrics, at: i64) -> Self {
        let memory = metrics.memory.unwrap_or_default();
        let cpu = metrics.cpu.unwrap_or_default();
        let io = metrics.io.as_ref().and_then(|io| io.psi.as_ref());
        Self {
            at,
            cpu: cpu.usage_usec.saturating_mul(1000),
            memory: memory.usage,
            limit: memory.usage_limit,
            inactive_file: memory.inactive_file,
            anonymous: memory.anon,
            faults: memory.pgfault,
            major_faults: memory.pgmajfault,
            swap: Some((memory.swap_usage, memory.swap_limit)),
            processes: metrics.pids.as_ref().map_or(0, |pids| pids.current),
            pressure: [cpu.psi.as_ref(), memory.psi.as_ref(), io].map(|psi| psi.map(pressure)),
        }
    }

    /// Memory that could not be given back at once.
    fn working_set(&self) -> u64 {
        self.memory.saturating_sub(self.inactive_file)
    }

    pub(super) fn cpu(&self, rate: Option<u64>) -> proto::CpuUsage {
        proto::CpuUsage {
            timestamp: self.at,
            usage_core_nano_seconds: value(self.cpu),
            usage_nano_cores: rate.and_then(value),
            psi: self.pressure[0],
        }
    }

    pub(super) fn memory(&self) -> proto::MemoryUsage {
        let available =
            (self.limit > 0 && self.limit < UNLIMITED).then(|| self.limit.saturating_sub(self.working_set()));
        proto::MemoryUsage {
            timestamp: self.at,
            working_set_bytes: value(self.working_set()),
            available_bytes: value(available.unwrap_or_default()),
            usage_bytes: value(self.memory),
            rss_bytes: value(self.anonymous),
            page_faults: value(self.faults),
            major_page_faults: value(self.major_faults),
            psi: self.pressure[1],
        }
    }

    pub(super) fn swap(&self) -> Option<proto::SwapUsage> {
        let (used, limit) = self.swap?;
        let available = if limit < UNLIMITED { limit.saturating_sub(used) } else { 0 };
        Some(proto::SwapUsage {
            timestamp: self.at,
            swap_available_bytes: value(available),
            swap_usage_bytes: value(used),
        })
    }

    pub(super) fn io(&self) -> Option<proto::IoUsage> {
        self.pressure[2].map(|psi| proto::IoUsage { timestamp: self.at, psi: Some(psi) })
    }
}

#[expect(clippy::unnecessary_wraps, reason = "every field on the wire may be missing")]
pub(super) fn value(value: u64) -> Option<proto::UInt64Value> {
    Some(proto::UInt64Value { value })
}

fn pressure(psi: &v2::PsiStats) -> proto::PsiStats {
    let data = |data: &Option<v2::PsiData>| {
        data.as_ref().map(|data| proto::PsiData {
            total: data.total,
            avg10: data.avg10,
            avg60: data.avg60,
            avg300: data.avg300,
        })
    };
    proto::PsiStats { full: data(&psi.full), some: data(&psi.some) }
}
