//! Figures of cgroup v2, from the files of the one folder.

use std::io;
use std::path::Path;

use berth_proto::io::containerd::cgroups::v2::{
    CpuStat, HugeTlbStat, IoEntry, IoStat, MemoryEvents, MemoryStat, Metrics, PidsStat, PsiData, PsiStats,
    RdmaEntry, RdmaStat,
};

use crate::read::{Table, huge_pages, limit, number, parse, rdma, text, value};

/// All figures.
pub(crate) fn metrics(folder: &Path) -> io::Result<Metrics> {
    Ok(Metrics {
        pids: Some(PidsStat { current: number(folder, "pids.current")?, limit: limit(folder, "pids.max")? }),
        cpu: Some(cpu(folder)?),
        memory: Some(memory(folder)?),
        rdma: Some(RdmaStat {
            current: rdma(folder, "rdma.current", rdma_entry)?,
            limit: rdma(folder, "rdma.max", rdma_entry)?,
        }),
        io: Some(IoStat { usage: io_entries(&text(folder, "io.stat")?), psi: psi(folder, "io.pressure")? }),
        hugetlb: hugetlb(folder)?,
        memory_events: Some(memory_events(folder)?),
        network: Vec::new(),
    })
}

fn cpu(folder: &Path) -> io::Result<CpuStat> {
    let stat = Table::read(folder, "cpu.stat")?;
    Ok(CpuStat {
        usage_usec: stat.number("usage_usec"),
        user_usec: stat.number("user_usec"),
        system_usec: stat.number("system_usec"),
        nr_periods: stat.number("nr_periods"),
        nr_throttled: stat.number("nr_throttled"),
        throttled_usec: stat.number("throttled_usec"),
        psi: psi(folder, "cpu.pressure")?,
        nr_bursts: stat.number("nr_bursts"),
        burst_usec: stat.number("burst_usec"),
    })
}

fn memory(folder: &Path) -> io::Result<MemoryStat> {
    let stat = Table::read(folder, "memory.stat")?;
    let at = |name: &str| stat.number(name);
    Ok(MemoryStat {
        anon: at("anon"),
        file: at("file"),
        kernel_stack: at("kernel_stack"),
        slab: at("slab"),
        sock: at("sock"),
        shmem: at("shmem"),
        file_mapped: at("file_mapped"),
        file_dirty: at("file_dirty"),
        file_writeback: at("file_writeback"),
        anon_thp: at("anon_thp"),
        inactive_anon: at("inactive_anon"),
        active_anon: at("active_anon"),
        inactive_file: at("inactive_file"),
        active_file: at("active_file"),
        unevictable: at("unevictable"),
        slab_reclaimable: at("slab_reclaimable"),
        slab_unreclaimable: at("slab_unreclaimable"),
        pgfault: at("pgfault"),
        pgmajfault: at("pgmajfault"),
        // Counted apart for anonymous pages and files since Linux 5.9.
        workingset_refault: at("workingset_refault")
            + at("workingset_refault_anon")
            + at("workingset_refault_file"),
        workingset_activate: at("workingset_activate")
            + at("workingset_activate_anon")
            + at("workingset_activate_file"),
        workingset_nodereclaim: at("workingset_nodereclaim"),
        pgrefill: at("pgrefill"),
        pgscan: at("pgscan"),
        pgsteal: at("pgsteal"),
        pgactivate: at("pgactivate"),
        pgdeactivate: at("pgdeactivate"),
        pglazyfree: at("pglazyfree"),
        pglazyfreed: at("pglazyfreed"),
        thp_fault_alloc: at("thp_fault_alloc"),
        thp_collapse_alloc: at("thp_collapse_alloc"),
        usage: number(folder, "memory.current")?,
        usage_limit: number(folder, "memory.max")?,
        swap_usage: number(folder, "memory.swap.current")?,
        swap_limit: number(folder, "memory.swap.max")?,
        max_usage: number(folder, "memory.peak")?,
        swap_max_usage: number(folder, "memory.swap.peak")?,
        psi: psi(folder, "memory.pressure")?,
    })
}

fn memory_events(folder: &Path) -> io::Result<MemoryEvents> {
    let events = Table::read(folder, "memory.events")?;
    Ok(MemoryEvents {
        low: events.number("low"),
        high: events.number("high"),
        max: events.number("max"),
        oom: events.number("oom"),
        oom_kill: events.number("oom_kill"),
        oom_group_kill: events.number("oom_group_kill"),
    })
}

/// Lines of `KIND avg10=N avg60=N avg300=N total=N`; none where the kernel does not measure pressure.
fn psi(folder: &Path, file: &str) -> io::Result<Option<PsiStats>> {
    let text = text(folder, file)?;
    let line = |kind: &str| {
        let rest = text.lines().find_map(|line| line.strip_prefix(kind)?.strip_prefix(' '))?;
        let average = |name: &str| value(rest, name).parse().unwrap_or(0.0);
        Some(PsiData {
            avg10: average("avg10"),
            avg60: average("avg60"),
            avg300: average("avg300"),
            total: parse(value(rest, "total")),
        })
    };
    Ok((!text.is_empty()).then(|| PsiStats { some: line("some"), full: line("full") }))
}

/// Lines of `MAJOR:MINOR rbytes=N wbytes=N rios=N wios=N …`.
fn io_entries(text: &str) -> Vec<IoEntry> {
    let entry = |line: &str| {
        let (device, rest) = line.split_once(' ')?;
        let (major, minor) = device.split_once(':')?;
        let count = |name: &str| parse(value(rest, name));
        Some(IoEntry {
            major: major.parse().ok()?,
            minor: minor.parse().ok()?,
            rbytes: count("rbytes"),
            wbytes: count("wbytes"),
            rios: count("rios"),
            wios: count("wios"),
        })
    };
    text.lines().filter_map(entry).collect()
}

fn hugetlb(folder: &Path) -> io::Result<Vec<HugeTlbStat>> {
    let stat = |pagesize: String| {
        let file = |what: &str| format!("hugetlb.{pagesize}.{what}");
        Ok(HugeTlbStat {
            current: number(folder, &file("current"))?,
            max: number(folder, &file("max"))?,
            failcnt: Table::read(folder, &file("events"))?.number("max"),
            pagesize,
        })
    };
    huge_pages(folder, "current")?.into_iter().map(stat).collect()
}

fn rdma_entry(device: String, hca_handles: u32, hca_objects: u32) -> RdmaEntry {
    RdmaEntry { device, hca_handles, hca_objects }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_of_version_two_is_read() {
        let scratch = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| std::fs::write(scratch.path().join(name), text).unwrap();
        write("cpu.stat", "usage_usec 12\nuser_usec 5\nsystem_usec 7\n");
        write("memory.current", "4096\n");
        write("memory.max", "max\n");
        write("memory.events", "low 0\noom 2\noom_kill 1\n");
        write("io.stat", "8:16 rbytes=1 wbytes=2 rios=3 wios=4 dbytes=0 dios=0\n");
        write("cpu.pressure", "some avg10=1.50 avg60=0.00 avg300=0.00 total=77\n");
        write("pids.max", "max\n");
        write("rdma.max", "mlx5_0 hca_handle=2 hca_object=max\n");
        write("hugetlb.2MB.current", "8\n");
        write("hugetlb.2MB.rsvd.current", "9\n");
        write("hugetlb.2MB.events", "max 3\n");
        let metrics = metrics(scratch.path()).unwrap();
        assert_eq!(metrics.cpu.as_ref().unwrap().usage_usec, 12);
        let memory = metrics.memory.unwrap();
        assert_eq!((memory.usage, memory.usage_limit), (4096, u64::MAX));
        assert_eq!(metrics.memory_events.unwrap().oom_kill, 1);
        assert_eq!(metrics.io.unwrap().usage[0].wios, 4);
        assert_eq!(metrics.cpu.unwrap().psi.unwrap().some.unwrap().total, 77);
        assert_eq!(metrics.pids.unwrap().limit, 0);
        let rdma = &metrics.rdma.unwrap().limit[0];
        assert_eq!((rdma.device.as_str(), rdma.hca_handles, rdma.hca_objects), ("mlx5_0", 2, u32::MAX));
        let [huge] = metrics.hugetlb.as_slice() else { panic!("one size: {:?}", metrics.hugetlb) };
        assert_eq!((huge.pagesize.as_str(), huge.current, huge.failcnt), ("2MB", 8, 3));
    }
}
