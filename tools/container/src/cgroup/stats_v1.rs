//! Figures of cgroup v1.

use std::path::Path;

use super::{Cgroup, file};
use crate::error::Result;
use crate::stats::v1::*;

/// Reads what there is. A controller that is not mounted leaves its part out.
pub(super) fn read(cgroup: &Cgroup) -> Result<Metrics> {
    Ok(Metrics {
        hugetlb: cgroup.controller("hugetlb").map(hugetlb).unwrap_or_default(),
        pids: cgroup.controller("pids").map(pids),
        cpu: cpu(cgroup),
        memory: cgroup.controller("memory").map(memory),
        memory_oom_control: cgroup.controller("memory").map(oom),
        blkio: cgroup.controller("blkio").map(blkio),
        rdma: cgroup.controller("rdma").map(rdma),
        network: Vec::new(),
        cgroup_stats: None,
    })
}

fn pids(own: &Path) -> PidsStat {
    let limit = file::number(own, "pids.max");
    // No limit is told as 0.
    PidsStat { current: file::number(own, "pids.current"), limit: if limit == u64::MAX { 0 } else { limit } }
}

/// One tick of the times in `cpuacct.stat` (USER_HZ is 100 everywhere).
const TICK: u64 = 10_000_000;

fn cpu(cgroup: &Cgroup) -> Option<CpuStat> {
    let account = cgroup.controller("cpuacct");
    let throttled = cgroup.controller("cpu");
    if account.is_none() && throttled.is_none() {
        return None;
    }
    let usage = account.map(|own| {
        let mut usage = CpuUsage { total: file::number(own, "cpuacct.usage"), ..CpuUsage::default() };
        for (key, value) in file::pairs(&file::read(own, "cpuacct.stat")) {
            match key {
                "user" => usage.user = value * TICK,
                "system" => usage.kernel = value * TICK,
                _ => {}
            }
        }
        let by_cpu = file::read(own, "cpuacct.usage_percpu");
        usage.per_cpu = by_cpu.split_whitespace().map(file::parse).collect();
        usage
    });
    let throttling = throttled.map(|own| {
        let mut throttle = Throttle::default();
        for (key, value) in file::pairs(&file::read(own, "cpu.stat")) {
            match key {
                "nr_periods" => throttle.periods = value,
                "nr_throttled" => throttle.throttled_periods = value,
                "throttled_time" => throttle.throttled_time = value,
                _ => {}
            }
        }
        throttle
    });
    Some(CpuStat { usage, throttling })
}

fn entry(own: &Path, prefix: &str) -> Option<MemoryEntry> {
    let value = |name: &str| file::number(own, &format!("{prefix}.{name}"));
    own.join(format!("{prefix}.usage_in_bytes")).exists().then(|| MemoryEntry {
        limit: value("limit_in_bytes"),
        usage: value("usage_in_bytes"),
        max: value("max_usage_in_bytes"),
        failcnt: value("failcnt"),
    })
}

fn memory(own: &Path) -> MemoryStat {
    let mut stat = MemoryStat {
        usage: entry(own, "memory"),
        swap: entry(own, "memory.memsw"),
        kernel: entry(own, "memory.kmem"),
        kernel_tcp: entry(own, "memory.kmem.tcp"),
        ..MemoryStat::default()
    };
    for (key, value) in file::pairs(&file::read(own, "memory.stat")) {
        if let Some(field) = field(&mut stat, key) {
            *field = value;
        }
    }
    stat
}

fn field<'s>(stat: &'s mut MemoryStat, key: &str) -> Option<&'s mut u64> {
    Some(match key {
        "cache" => &mut stat.cache,
        "rss" => &mut stat.rss,
        "rss_huge" => &mut stat.rss_huge,
        "mapped_file" => &mut stat.mapped_file,
        "dirty" => &mut stat.dirty,
        "writeback" => &mut stat.writeback,
        "pgpgin" => &mut stat.pg_pg_in,
        "pgpgout" => &mut stat.pg_pg_out,
        "pgfault" => &mut stat.pg_fault,
        "pgmajfault" => &mut stat.pg_maj_fault,
        "inactive_anon" => &mut stat.inactive_anon,
        "active_anon" => &mut stat.active_anon,
        "inactive_file" => &mut stat.inactive_file,
        "active_file" => &mut stat.active_file,
        "unevictable" => &mut stat.unevictable,
        "hierarchical_memory_limit" => &mut stat.hierarchical_memory_limit,
        "hierarchical_memsw_limit" => &mut stat.hierarchical_swap_limit,
        "total_cache" => &mut stat.total_cache,
        "total_rss" => &mut stat.total_rss,
        "total_rss_huge" => &mut stat.total_rss_huge,
        "total_mapped_file" => &mut stat.total_mapped_file,
        "total_dirty" => &mut stat.total_dirty,
        "total_writeback" => &mut stat.total_writeback,
        "total_pgpgin" => &mut stat.total_pg_pg_in,
        "total_pgpgout" => &mut stat.total_pg_pg_out,
        "total_pgfault" => &mut stat.total_pg_fault,
        "total_pgmajfault" => &mut stat.total_pg_maj_fault,
        "total_inactive_anon" => &mut stat.total_inactive_anon,
        "total_active_anon" => &mut stat.total_active_anon,
        "total_inactive_file" => &mut stat.total_inactive_file,
        "total_active_file" => &mut stat.total_active_file,
        "total_unevictable" => &mut stat.total_unevictable,
        _ => return None,
    })
}

fn oom(own: &Path) -> MemoryOomControl {
    let mut control = MemoryOomControl::default();
    for (key, value) in file::pairs(&file::read(own, "memory.oom_control")) {
        match key {
            "oom_kill_disable" => control.oom_kill_disable = value,
            "under_oom" => control.under_oom = value,
            "oom_kill" => control.oom_kill = value,
            _ => {}
        }
    }
    control
}

/// CFQ's files where they have content, else those of throttling, which every kernel has.
fn blkio(own: &Path) -> BlkIoStat {
    let first = |names: &[&str]| {
        let all = names.iter().map(|name| entries(&file::read(own, name)));
        all.into_iter().find(|entries| !entries.is_empty()).unwrap_or_default()
    };
    BlkIoStat {
        io_service_bytes_recursive: first(&[
            "blkio.io_service_bytes_recursive",
            "blkio.throttle.io_service_bytes_recursive",
            "blkio.throttle.io_service_bytes",
        ]),
        io_serviced_recursive: first(&[
            "blkio.io_serviced_recursive",
            "blkio.throttle.io_serviced_recursive",
            "blkio.throttle.io_serviced",
        ]),
        io_queued_recursive: first(&["blkio.io_queued_recursive"]),
        io_service_time_recursive: first(&["blkio.io_service_time_recursive"]),
        io_wait_time_recursive: first(&["blkio.io_wait_time_recursive"]),
        io_merged_recursive: first(&["blkio.io_merged_recursive"]),
        io_time_recursive: first(&["blkio.time_recursive"]),
        sectors_recursive: first(&["blkio.sectors_recursive"]),
    }
}

/// Lines of `major:minor operation value`; the line of the total has no device and is left out.
fn entries(text: &str) -> Vec<BlkIoEntry> {
    let one = |line: &str| {
        let mut words = line.split_whitespace();
        let (major, minor) = words.next()?.split_once(':')?;
        let (second, third) = (words.next()?, words.next());
        let (op, value) = third.map_or(("", second), |value| (second, value));
        Some(BlkIoEntry {
            op: op.to_owned(),
            device: device(major, minor),
            major: major.parse().ok()?,
            minor: minor.parse().ok()?,
            value: value.parse().ok()?,
        })
    };
    text.lines().filter_map(one).collect()
}

/// The device's name in /dev.
fn device(major: &str, minor: &str) -> String {
    let link = std::fs::read_link(format!("/sys/dev/block/{major}:{minor}"));
    let name = link.ok().and_then(|l| l.file_name().map(|n| n.to_string_lossy().into_owned()));
    name.map(|n| format!("/dev/{n}")).unwrap_or_default()
}

fn hugetlb(own: &Path) -> Vec<HugetlbStat> {
    let one = |pagesize: String| {
        let value = |name: &str| file::number(own, &format!("hugetlb.{pagesize}.{name}"));
        HugetlbStat {
            usage: value("usage_in_bytes"),
            max: value("max_usage_in_bytes"),
            failcnt: value("failcnt"),
            pagesize,
        }
    };
    super::stats_v2::page_sizes(own, ".usage_in_bytes").into_iter().map(one).collect()
}

fn rdma(own: &Path) -> RdmaStat {
    let entry = |(device, hca_handles, hca_objects)| RdmaEntry { device, hca_handles, hca_objects };
    RdmaStat {
        current: super::stats_v2::rdma(own, "rdma.current").map(entry).collect(),
        limit: super::stats_v2::rdma(own, "rdma.max").map(entry).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_block_io_become_entries_without_the_total() {
        let all = entries("8:0 Read 4096\n8:0 Total 4096\nTotal 4096\nrubbish\n");
        assert_eq!(all.len(), 2);
        assert_eq!((all[0].op.as_str(), all[0].major, all[0].value), ("Read", 8, 4096));
    }
}
