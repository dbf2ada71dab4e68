//! Figures of cgroup v2.

use std::path::Path;

use super::file;
use crate::error::Result;
use crate::stats::v2::*;

/// Reads what there is. A controller that is not enabled leaves its part out.
pub(super) fn read(own: &Path) -> Result<Metrics> {
    let has = |name: &str| own.join(name).exists();
    Ok(Metrics {
        pids: has("pids.current").then(|| PidsStat {
            current: file::number(own, "pids.current"),
            limit: file::number(own, "pids.max"),
        }),
        cpu: Some(cpu(own)),
        memory: has("memory.current").then(|| memory(own)),
        memory_events: has("memory.events").then(|| events(own)),
        rdma: has("rdma.current").then(|| {
            let entry = |(device, hca_handles, hca_objects)| RdmaEntry { device, hca_handles, hca_objects };
            RdmaStat {
                current: rdma(own, "rdma.current").map(entry).collect(),
                limit: rdma(own, "rdma.max").map(entry).collect(),
            }
        }),
        io: has("io.stat").then(|| IoStat {
            usage: file::read(own, "io.stat").lines().filter_map(io_entry).collect(),
            psi: pressure(own, "io.pressure"),
        }),
        hugetlb: page_sizes(own, ".current").into_iter().map(|size| hugetlb(own, size)).collect(),
        network: Vec::new(),
    })
}

fn cpu(own: &Path) -> CpuStat {
    let mut stat = CpuStat { psi: pressure(own, "cpu.pressure"), ..CpuStat::default() };
    for (key, value) in file::pairs(&file::read(own, "cpu.stat")) {
        match key {
            "usage_usec" => stat.usage_usec = value,
            "user_usec" => stat.user_usec = value,
            "system_usec" => stat.system_usec = value,
            "nr_periods" => stat.nr_periods = value,
            "nr_throttled" => stat.nr_throttled = value,
            "throttled_usec" => stat.throttled_usec = value,
            "nr_bursts" => stat.nr_bursts = value,
            "burst_usec" => stat.burst_usec = value,
            _ => {}
        }
    }
    stat
}

fn memory(own: &Path) -> MemoryStat {
    let mut stat = MemoryStat {
        usage: file::number(own, "memory.current"),
        usage_limit: file::number(own, "memory.max"),
        max_usage: file::number(own, "memory.peak"),
        swap_usage: file::number(own, "memory.swap.current"),
        swap_limit: file::number(own, "memory.swap.max"),
        swap_max_usage: file::number(own, "memory.swap.peak"),
        psi: pressure(own, "memory.pressure"),
        ..MemoryStat::default()
    };
    for (key, value) in file::pairs(&file::read(own, "memory.stat")) {
        if let Some(field) = field(&mut stat, key) {
            *field += value;
        }
    }
    stat
}

fn field<'s>(stat: &'s mut MemoryStat, key: &str) -> Option<&'s mut u64> {
    Some(match key {
        "anon" => &mut stat.anon,
        "file" => &mut stat.file,
        "kernel_stack" => &mut stat.kernel_stack,
        "slab" => &mut stat.slab,
        "sock" => &mut stat.sock,
        "shmem" => &mut stat.shmem,
        "file_mapped" => &mut stat.file_mapped,
        "file_dirty" => &mut stat.file_dirty,
        "file_writeback" => &mut stat.file_writeback,
        "anon_thp" => &mut stat.anon_thp,
        "inactive_anon" => &mut stat.inactive_anon,
        "active_anon" => &mut stat.active_anon,
        "inactive_file" => &mut stat.inactive_file,
        "active_file" => &mut stat.active_file,
        "unevictable" => &mut stat.unevictable,
        "slab_reclaimable" => &mut stat.slab_reclaimable,
        "slab_unreclaimable" => &mut stat.slab_unreclaimable,
        "pgfault" => &mut stat.pgfault,
        "pgmajfault" => &mut stat.pgmajfault,
        // Since 5.9 the kernel counts them apart; the message has one field.
        "workingset_refault" | "workingset_refault_anon" | "workingset_refault_file" => {
            &mut stat.workingset_refault
        }
        "workingset_activate" | "workingset_activate_anon" | "workingset_activate_file" => {
            &mut stat.workingset_activate
        }
        "workingset_nodereclaim" => &mut stat.workingset_nodereclaim,
        "pgrefill" => &mut stat.pgrefill,
        "pgscan" => &mut stat.pgscan,
        "pgsteal" => &mut stat.pgsteal,
        "pgactivate" => &mut stat.pgactivate,
        "pgdeactivate" => &mut stat.pgdeactivate,
        "pglazyfree" => &mut stat.pglazyfree,
        "pglazyfreed" => &mut stat.pglazyfreed,
        "thp_fault_alloc" => &mut stat.thp_fault_alloc,
        "thp_collapse_alloc" => &mut stat.thp_collapse_alloc,
        _ => return None,
    })
}

fn events(own: &Path) -> MemoryEvents {
    let mut events = MemoryEvents::default();
    for (key, value) in file::pairs(&file::read(own, "memory.events")) {
        match key {
            "low" => events.low = value,
            "high" => events.high = value,
            "max" => events.max = value,
            "oom" => events.oom = value,
            "oom_kill" => events.oom_kill = value,
            "oom_group_kill" => events.oom_group_kill = value,
            _ => {}
        }
    }
    events
}

/// `8:0 rbytes=1 wbytes=2 rios=3 wios=4 …`
fn io_entry(line: &str) -> Option<IoEntry> {
    let mut words = line.split_whitespace();
    let (major, minor) = words.next()?.split_once(':')?;
    let mut entry = IoEntry { major: major.parse().ok()?, minor: minor.parse().ok()?, ..IoEntry::default() };
    for (key, value) in words.filter_map(|word| word.split_once('=')) {
        let value = file::parse(value);
        match key {
            "rbytes" => entry.rbytes = value,
            "wbytes" => entry.wbytes = value,
            "rios" => entry.rios = value,
            "wios" => entry.wios = value,
            _ => {}
        }
    }
    Some(entry)
}

/// `some avg10=0.00 avg60=0.00 avg300=0.00 total=0` and the same for `full`.
fn pressure(own: &Path, name: &str) -> Option<PsiStats> {
    let text = file::read(own, name);
    let line = |kind: &str| {
        let words = text.lines().find_map(|l| l.strip_prefix(kind))?;
        let mut data = PsiData::default();
        for (key, value) in words.split_whitespace().filter_map(|word| word.split_once('=')) {
            match key {
                "avg10" => data.avg10 = value.parse().unwrap_or(0.0),
                "avg60" => data.avg60 = value.parse().unwrap_or(0.0),
                "avg300" => data.avg300 = value.parse().unwrap_or(0.0),
                "total" => data.total = file::parse(value),
                _ => {}
            }
        }
        Some(data)
    };
    (!text.is_empty()).then(|| PsiStats { some: line("some "), full: line("full ") })
}

/// Sizes of huge pages, from the names of files `hugetlb.SIZE<suffix>`.
pub(super) fn page_sizes(own: &Path, suffix: &str) -> Vec<String> {
    let entries = std::fs::read_dir(own).into_iter().flatten().filter_map(std::result::Result::ok);
    let size = |name: String| {
        let size = name.strip_prefix("hugetlb.")?.strip_suffix(suffix)?;
        (!size.contains('.')).then(|| size.to_owned())
    };
    let mut sizes: Vec<_> =
        entries.filter_map(|e| size(e.file_name().to_string_lossy().into_owned())).collect();
    sizes.sort();
    sizes
}

fn hugetlb(own: &Path, pagesize: String) -> HugetlbStat {
    let events = file::read(own, &format!("hugetlb.{pagesize}.events"));
    HugetlbStat {
        current: file::number(own, &format!("hugetlb.{pagesize}.current")),
        max: file::number(own, &format!("hugetlb.{pagesize}.max")),
        failcnt: file::pairs(&events).find(|(key, _)| *key == "max").map_or(0, |(_, value)| value),
        pagesize,
    }
}

/// Lines of `device hca_handle=1 hca_object=max`: device, handles, objects.
pub(super) fn rdma(own: &Path, name: &str) -> impl Iterator<Item = (String, u32, u32)> + use<> {
    let text = file::read(own, name);
    let one = |line: &str| {
        let mut words = line.split_whitespace();
        let device = words.next()?.to_owned();
        let (mut handles, mut objects) = (0, 0);
        for (key, value) in words.filter_map(|word| word.split_once('=')) {
            let value = u32::try_from(file::parse(value)).unwrap_or(u32::MAX);
            match key {
                "hca_handle" => handles = value,
                "hca_object" => objects = value,
                _ => {}
            }
        }
        Some((device, handles, objects))
    };
    text.lines().filter_map(one).collect::<Vec<_>>().into_iter()
}
