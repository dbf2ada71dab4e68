//! Figures of cgroup v1, from the files of each controller.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use berth_proto::io::containerd::cgroups::v1::{
    BlkIoEntry, BlkIoStat, CpuStat, CpuUsage, HugetlbStat, MemoryEntry, MemoryOomControl, MemoryStat,
    Metrics, PidsStat, RdmaEntry, RdmaStat, Throttle,
};

use crate::read::{Table, huge_pages, limit, number, parse, rdma, text};

/// A kernel tick of `cpuacct.stat` in nanoseconds; the unit has been 1/100 s on every Linux that there is.
const TICK: u64 = 10_000_000;

/// All figures.
pub(crate) fn metrics(controllers: &BTreeMap<String, PathBuf>) -> io::Result<Metrics> {
    let folder = |name: &str| controllers.get(name).filter(|path| path.is_dir());
    let mut metrics = Metrics::default();
    if let Some(pids) = folder("pids") {
        let (current, limit) = (number(pids, "pids.current")?, limit(pids, "pids.max")?);
        metrics.pids = Some(PidsStat { current, limit });
    }
    let usage = folder("cpuacct").map(|path| cpu_usage(path)).transpose()?;
    let throttling = folder("cpu").map(|path| throttle(path)).transpose()?;
    if usage.is_some() || throttling.is_some() {
        metrics.cpu = Some(CpuStat { usage, throttling });
    }
    if let Some(memory) = folder("memory") {
        metrics.memory = Some(memory_stat(memory)?);
        let oom = Table::read(memory, "memory.oom_control")?;
        metrics.memory_oom_control = Some(MemoryOomControl {
            oom_kill_disable: oom.number("oom_kill_disable"),
            under_oom: oom.number("under_oom"),
            oom_kill: oom.number("oom_kill"),
        });
    }
    if let Some(blkio) = folder("blkio") {
        metrics.blkio = Some(blkio_stat(blkio)?);
    }
    if let Some(hugetlb) = folder("hugetlb") {
        metrics.hugetlb = hugetlb_stat(hugetlb)?;
    }
    if let Some(folder) = folder("rdma") {
        metrics.rdma = Some(RdmaStat {
            current: rdma(folder, "rdma.current", rdma_entry)?,
            limit: rdma(folder, "rdma.max", rdma_entry)?,
        });
    }
    Ok(metrics)
}

fn cpu_usage(folder: &Path) -> io::Result<CpuUsage> {
    let stat = Table::read(folder, "cpuacct.stat")?;
    let per_cpu = text(folder, "cpuacct.usage_percpu")?;
    Ok(CpuUsage {
        total: number(folder, "cpuacct.usage")?,
        kernel: stat.number("system") * TICK,
        user: stat.number("user") * TICK,
        per_cpu: per_cpu.split_whitespace().map(parse).collect(),
    })
}

fn throttle(folder: &Path) -> io::Result<Throttle> {
    let stat = Table::read(folder, "cpu.stat")?;
    Ok(Throttle {
        periods: stat.number("nr_periods"),
        throttled_periods: stat.number("nr_throttled"),
        throttled_time: stat.number("throttled_time"),
    })
}

fn memory_stat(folder: &Path) -> io::Result<MemoryStat> {
    let stat = Table::read(folder, "memory.stat")?;
    let at = |name: &str| stat.number(name);
    Ok(MemoryStat {
        cache: at("cache"),
        rss: at("rss"),
        rss_huge: at("rss_huge"),
        mapped_file: at("mapped_file"),
        dirty: at("dirty"),
        writeback: at("writeback"),
        pg_pg_in: at("pgpgin"),
        pg_pg_out: at("pgpgout"),
        pg_fault: at("pgfault"),
        pg_maj_fault: at("pgmajfault"),
        inactive_anon: at("inactive_anon"),
        active_anon: at("active_anon"),
        inactive_file: at("inactive_file"),
        active_file: at("active_file"),
        unevictable: at("unevictable"),
        hierarchical_memory_limit: at("hierarchical_memory_limit"),
        hierarchical_swap_limit: at("hierarchical_memsw_limit"),
        total_cache: at("total_cache"),
        total_rss: at("total_rss"),
        total_rss_huge: at("total_rss_huge"),
        total_mapped_file: at("total_mapped_file"),
        total_dirty: at("total_dirty"),
        total_writeback: at("total_writeback"),
        total_pg_pg_in: at("total_pgpgin"),
        total_pg_pg_out: at("total_pgpgout"),
        total_pg_fault: at("total_pgfault"),
        total_pg_maj_fault: at("total_pgmajfault"),
        total_inactive_anon: at("total_inactive_anon"),
        total_active_anon: at("total_active_anon"),
        total_inactive_file: at("total_inactive_file"),
        total_active_file: at("total_active_file"),
        total_unevictable: at("total_unevictable"),
        usage: memory_entry(folder, "memory")?,
        swap: memory_entry(folder, "memory.memsw")?,
        kernel: memory_entry(folder, "memory.kmem")?,
        kernel_tcp: memory_entry(folder, "memory.kmem.tcp")?,
    })
}

/// The four figures of one kind of memory; none when the kernel does not count it.
fn memory_entry(folder: &Path, kind: &str) -> io::Result<Option<MemoryEntry>> {
    if text(folder, &format!("{kind}.usage_in_bytes"))?.is_empty() {
        return Ok(None);
    }
    let at = |what: &str| number(folder, &format!("{kind}.{what}"));
    Ok(Some(MemoryEntry {
        limit: at("limit_in_bytes")?,
        usage: at("usage_in_bytes")?,
        max: at("max_usage_in_bytes")?,
        failcnt: at("failcnt")?,
    }))
}

fn blkio_stat(folder: &Path) -> io::Result<BlkIoStat> {
    let entries = |kind: &str| -> io::Result<Vec<BlkIoEntry>> {
        let own = text(folder, &format!("blkio.{kind}"))?;
        // Where the old scheduler's files are missing or empty, the throttler counts the same.
        if !own.lines().any(|line| line.contains(':')) {
            let name = match kind {
                "io_service_bytes_recursive" => "blkio.throttle.io_service_bytes",
                "io_serviced_recursive" => "blkio.throttle.io_serviced",
                _ => return Ok(Vec::new()),
            };
            return Ok(blkio_entries(&text(folder, name)?));
        }
        Ok(blkio_entries(&own))
    };
    Ok(BlkIoStat {
        io_service_bytes_recursive: entries("io_service_bytes_recursive")?,
        io_serviced_recursive: entries("io_serviced_recursive")?,
        io_queued_recursive: entries("io_queued_recursive")?,
        io_service_time_recursive: entries("io_service_time_recursive")?,
        io_wait_time_recursive: entries("io_wait_time_recursive")?,
        io_merged_recursive: entries("io_merged_recursive")?,
        io_time_recursive: entries("time_recursive")?,
        sectors_recursive: entries("sectors_recursive")?,
    })
}

/// Lines of `MAJOR:MINOR [OPERATION] NUMBER`; the closing total has no device.
fn blkio_entries(text: &str) -> Vec<BlkIoEntry> {
    let parsed = text.lines().filter_map(|line| {
        let words: Vec<&str> = line.split_whitespace().collect();
        let (device, op, value) = match words.as_slice() {
            [device, value] => (device, "", value),
            [device, op, value] => (device, *op, value),
            _ => return None,
        };
        let (major, minor) = device.split_once(':')?;
        Some(BlkIoEntry {
            op: op.to_owned(),
            device: device_name(device),
            major: major.parse().ok()?,
            minor: minor.parse().ok()?,
            value: parse(value),
        })
    });
    parsed.collect()
}

/// `/dev/NAME` of a device number, if the kernel knows one.
fn device_name(numbers: &str) -> String {
    let target = std::fs::read_link(format!("/sys/dev/block/{numbers}"));
    let name = target.ok().and_then(|path| Some(path.file_name()?.to_string_lossy().into_owned()));
    name.map(|name| format!("/dev/{name}")).unwrap_or_default()
}

fn hugetlb_stat(folder: &Path) -> io::Result<Vec<HugetlbStat>> {
    let stat = |pagesize: String| {
        let at = |what: &str| number(folder, &format!("hugetlb.{pagesize}.{what}"));
        Ok(HugetlbStat {
            usage: at("usage_in_bytes")?,
            max: at("max_usage_in_bytes")?,
            failcnt: at("failcnt")?,
            pagesize,
        })
    };
    huge_pages(folder, "usage_in_bytes")?.into_iter().map(stat).collect()
}

fn rdma_entry(device: String, hca_handles: u32, hca_objects: u32) -> RdmaEntry {
    RdmaEntry { device, hca_handles, hca_objects }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn block_devices_are_read_and_the_total_is_not_one() {
        let found = blkio_entries("8:0 Read 4096\n8:0 Write 0\nTotal 4096\n");
        assert_eq!(found.len(), 2);
        assert_eq!((found[0].major, found[0].op.as_str(), found[0].value), (8, "Read", 4096));
    }
}
