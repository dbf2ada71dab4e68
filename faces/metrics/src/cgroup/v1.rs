//! Version 1. The units in the names are containerd's, also where pages or events are counted.

use berth_proto::io::containerd::cgroups::v1 as proto;

use super::Figures;

type Row<M> = (&'static str, &'static str, fn(&M) -> u64);

const MEMORY: [Row<proto::MemoryStat>; 32] = [
    ("memory_cache_bytes", "Page cache", |m| m.cache),
    ("memory_rss_bytes", "Anonymous memory", |m| m.rss),
    ("memory_rss_huge_bytes", "Anonymous memory in huge pages", |m| m.rss_huge),
    ("memory_mapped_file_bytes", "Mapped files", |m| m.mapped_file),
    ("memory_dirty_bytes", "Pages to be written back", |m| m.dirty),
    ("memory_writeback_bytes", "Pages being written back", |m| m.writeback),
    ("memory_pgpgin_bytes", "Pages charged", |m| m.pg_pg_in),
    ("memory_pgpgout_bytes", "Pages uncharged", |m| m.pg_pg_out),
    ("memory_pgfault_bytes", "Page faults", |m| m.pg_fault),
    ("memory_pgmajfault_bytes", "Page faults that read", |m| m.pg_maj_fault),
    ("memory_inactive_anon_bytes", "Anonymous memory not used lately", |m| m.inactive_anon),
    ("memory_active_anon_bytes", "Anonymous memory used lately", |m| m.active_anon),
    ("memory_inactive_file_bytes", "Page cache not used lately", |m| m.inactive_file),
    ("memory_active_file_bytes", "Page cache used lately", |m| m.active_file),
    ("memory_unevictable_bytes", "Memory that cannot be reclaimed", |m| m.unevictable),
    ("memory_hierarchical_memory_limit_bytes", "The lowest limit of memory up the tree", |m| {
        m.hierarchical_memory_limit
    }),
    ("memory_hierarchical_memsw_limit_bytes", "The lowest limit of memory and swap up the tree", |m| {
        m.hierarchical_swap_limit
    }),
    ("memory_total_cache_bytes", "Page cache, with groups below", |m| m.total_cache),
    ("memory_total_rss_bytes", "Anonymous memory, with groups below", |m| m.total_rss),
    ("memory_total_rss_huge_bytes", "Anonymous memory in huge pages, with groups below", |m| {
        m.total_rss_huge
    }),
    ("memory_total_mapped_file_bytes", "Mapped files, with groups below", |m| m.total_mapped_file),
    ("memory_total_dirty_bytes", "Pages to be written back, with groups below", |m| m.total_dirty),
    ("memory_total_writeback_bytes", "Pages being written back, with groups below", |m| m.total_writeback),
    ("memory_total_pgpgin_bytes", "Pages charged, with groups below", |m| m.total_pg_pg_in),
    ("memory_total_pgpgout_bytes", "Pages uncharged, with groups below", |m| m.total_pg_pg_out),
    ("memory_total_pgfault_bytes", "Page faults, with groups below", |m| m.total_pg_fault),
    ("memory_total_pgmajfault_bytes", "Page faults that read, with groups below", |m| m.total_pg_maj_fault),
    ("memory_total_inactive_anon_bytes", "Anonymous memory not used lately, with groups below", |m| {
        m.total_inactive_anon
    }),
    ("memory_total_active_anon_bytes", "Anonymous memory used lately, with groups below", |m| {
        m.total_active_anon
    }),
    ("memory_total_inactive_file_bytes", "Page cache not used lately, with groups below", |m| {
        m.total_inactive_file
    }),
    ("memory_total_active_file_bytes", "Page cache used lately, with groups below", |m| m.total_active_file),
    ("memory_total_unevictable_bytes", "Memory that cannot be reclaimed, with groups below", |m| {
        m.total_unevictable
    }),
];

const MEMORY_ENTRY: [Row<proto::MemoryEntry>; 4] = [
    ("failcnt_total", "Times that a limit was met", |e| e.failcnt),
    ("limit_bytes", "The limit", |e| e.limit),
    ("max_bytes", "The most that was used", |e| e.max),
    ("usage_bytes", "What is used", |e| e.usage),
];

type BlockRow = (&'static str, &'static str, fn(&proto::BlkIoStat) -> &[proto::BlkIoEntry]);

const BLOCK: [BlockRow; 7] = [
    ("blkio_io_merged_recursive_total", "Requests merged", |b| &b.io_merged_recursive),
    ("blkio_io_queued_recursive_total", "Requests waiting", |b| &b.io_queued_recursive),
    ("blkio_io_service_bytes_recursive_bytes", "Bytes moved", |b| &b.io_service_bytes_recursive),
    ("blkio_io_service_time_recursive_total", "Nanoseconds of service", |b| &b.io_service_time_recursive),
    ("blkio_io_serviced_recursive_total", "Requests done", |b| &b.io_serviced_recursive),
    ("blkio_io_time_recursive_total", "Milliseconds of the device", |b| &b.io_time_recursive),
    ("blkio_sectors_recursive_total", "Sectors moved", |b| &b.sectors_recursive),
];

/// Adds whatever of a group's controllers is in the message.
pub(super) fn collect(figures: &mut Figures<'_, '_>, metrics: &proto::Metrics) {
    if let Some(pids) = &metrics.pids {
        figures.add("pids_limit", "Processes and threads allowed; 0 without a limit", pids.limit);
        figures.add("pids_current", "Processes and threads", pids.current);
    }
    if let Some(cpu) = &metrics.cpu {
        processors(figures, cpu);
    }
    if let Some(memory) = &metrics.memory {
        for (name, help, value) in MEMORY {
            figures.add(name, help, value(memory));
        }
        for (part, entry) in [
            ("usage", &memory.usage),
            ("swap", &memory.swap),
            ("kernel", &memory.kernel),
            ("kerneltcp", &memory.kernel_tcp),
        ] {
            let Some(entry) = entry else { continue };
            for (name, help, value) in MEMORY_ENTRY {
                figures.add(&format!("memory_{part}_{name}"), help, value(entry));
            }
        }
    }
    for huge in &metrics.hugetlb {
        let of = [("page", &*huge.pagesize)];
        figures.add_of(&of, "hugetlb_usage_bytes", "Huge pages in use, in bytes", huge.usage);
        figures.add_of(&of, "hugetlb_failcnt_total", "Times that the limit was met", huge.failcnt);
        figures.add_of(&of, "hugetlb_max_bytes", "The most huge pages that were used, in bytes", huge.max);
    }
    if let Some(block) = &metrics.blkio {
        for (name, help, entries) in BLOCK {
            for entry in entries(block) {
                let (major, minor) = (entry.major.to_string(), entry.minor.to_string());
                let of =
                    [("op", &*entry.op), ("device", &*entry.device), ("major", &*major), ("minor", &*minor)];
                figures.add_of(&of, name, help, entry.value);
            }
        }
    }
}

fn processors(figures: &mut Figures<'_, '_>, cpu: &proto::CpuStat) {
    if let Some(usage) = &cpu.usage {
        figures.add("cpu_total_nanoseconds", "Processor time", usage.total);
        figures.add("cpu_kernel_nanoseconds", "Processor time in the kernel", usage.kernel);
        figures.add("cpu_user_nanoseconds", "Processor time outside the kernel", usage.user);
        for (index, time) in usage.per_cpu.iter().enumerate() {
            let index = index.to_string();
            figures.add_of(&[("cpu", &index)], "per_cpu_nanoseconds", "Time of one processor", *time);
        }
    }
    if let Some(throttling) = &cpu.throttling {
        figures.add("cpu_throttle_periods_total", "Periods with a quota", throttling.periods);
        figures.add("cpu_throttled_periods_total", "Periods cut short", throttling.throttled_periods);
        figures.add("cpu_throttled_time_nanoseconds", "Time held back", throttling.throttled_time);
    }
}
