//! Version 2. The units in the names are containerd's, also where pages or events are counted.

use berth_proto::io::containerd::cgroups::v2 as proto;

use super::Figures;

type Row<M> = (&'static str, &'static str, fn(&M) -> u64);

const PROCESSORS: [Row<proto::CpuStat>; 6] = [
    ("cpu_usage_usec_microseconds", "Processor time", |c| c.usage_usec),
    ("cpu_user_usec_microseconds", "Processor time outside the kernel", |c| c.user_usec),
    ("cpu_system_usec_microseconds", "Processor time in the kernel", |c| c.system_usec),
    ("cpu_nr_periods_total", "Periods with a quota", |c| c.nr_periods),
    ("cpu_nr_throttled_total", "Periods cut short", |c| c.nr_throttled),
    ("cpu_throttled_usec_microseconds", "Time held back", |c| c.throttled_usec),
];

const MEMORY: [Row<proto::MemoryStat>; 35] = [
    ("memory_usage_bytes", "What is used", |m| m.usage),
    ("memory_usage_limit_bytes", "The limit", |m| m.usage_limit),
    ("memory_swap_usage_bytes", "Swap in use", |m| m.swap_usage),
    ("memory_swap_limit_bytes", "The limit of swap", |m| m.swap_limit),
    ("memory_file_mapped_bytes", "Mapped files", |m| m.file_mapped),
    ("memory_file_dirty_bytes", "Pages to be written back", |m| m.file_dirty),
    ("memory_file_writeback_bytes", "Pages being written back", |m| m.file_writeback),
    ("memory_pgactivate_bytes", "Pages made active", |m| m.pgactivate),
    ("memory_pgdeactivate_bytes", "Pages made inactive", |m| m.pgdeactivate),
    ("memory_pgfault_bytes", "Page faults", |m| m.pgfault),
    ("memory_pgmajfault_bytes", "Page faults that read", |m| m.pgmajfault),
    ("memory_pglazyfree_bytes", "Pages to be freed under pressure", |m| m.pglazyfree),
    ("memory_pgrefill_bytes", "Active pages scanned", |m| m.pgrefill),
    ("memory_pglazyfreed_bytes", "Pages freed under pressure", |m| m.pglazyfreed),
    ("memory_pgscan_bytes", "Inactive pages scanned", |m| m.pgscan),
    ("memory_pgsteal_bytes", "Pages reclaimed", |m| m.pgsteal),
    ("memory_inactive_anon_bytes", "Anonymous memory not used lately", |m| m.inactive_anon),
    ("memory_active_anon_bytes", "Anonymous memory used lately", |m| m.active_anon),
    ("memory_inactive_file_bytes", "Page cache not used lately", |m| m.inactive_file),
    ("memory_active_file_bytes", "Page cache used lately", |m| m.active_file),
    ("memory_unevictable_bytes", "Memory that cannot be reclaimed", |m| m.unevictable),
    ("memory_anon_bytes", "Anonymous memory", |m| m.anon),
    ("memory_file_bytes", "Page cache", |m| m.file),
    ("memory_kernel_stack_bytes", "Stacks in the kernel", |m| m.kernel_stack),
    ("memory_slab_bytes", "Structures of the kernel", |m| m.slab),
    ("memory_sock_bytes", "Buffers of sockets", |m| m.sock),
    ("memory_shmem_bytes", "Shared memory and tmpfs", |m| m.shmem),
    ("memory_anon_thp_bytes", "Anonymous memory in huge pages", |m| m.anon_thp),
    ("memory_slab_reclaimable_bytes", "Structures of the kernel that can be reclaimed", |m| {
        m.slab_reclaimable
    }),
    ("memory_slab_unreclaimable_bytes", "Structures of the kernel that cannot be reclaimed", |m| {
        m.slab_unreclaimable
    }),
    ("memory_workingset_refault_bytes", "Pages read again after they were reclaimed", |m| {
        m.workingset_refault
    }),
    ("memory_workingset_activate_bytes", "Such pages that were active at once", |m| m.workingset_activate),
    ("memory_workingset_nodereclaim_bytes", "Shadow nodes reclaimed", |m| m.workingset_nodereclaim),
    ("memory_thp_fault_alloc_bytes", "Huge pages given at a fault", |m| m.thp_fault_alloc),
    ("memory_thp_collapse_alloc_bytes", "Huge pages put together", |m| m.thp_collapse_alloc),
];

const BLOCK: [Row<proto::IoEntry>; 4] = [
    ("io_rbytes_bytes", "Bytes read", |e| e.rbytes),
    ("io_wbytes_bytes", "Bytes written", |e| e.wbytes),
    ("io_rios_total", "Reads", |e| e.rios),
    ("io_wios_total", "Writes", |e| e.wios),
];

/// Adds whatever of a group's controllers is in the message.
pub(super) fn collect(figures: &mut Figures<'_, '_>, metrics: &proto::Metrics) {
    if let Some(pids) = &metrics.pids {
        figures.add("pids_limit", "Processes and threads allowed; 0 without a limit", pids.limit);
        figures.add("pids_current", "Processes and threads", pids.current);
    }
    if let Some(cpu) = &metrics.cpu {
        for (name, help, value) in PROCESSORS {
            figures.add(name, help, value(cpu));
        }
    }
    if let Some(memory) = &metrics.memory {
        for (name, help, value) in MEMORY {
            figures.add(name, help, value(memory));
        }
    }
    if let Some(events) = &metrics.memory_events {
        figures.add("memory_oom_total", "Times that memory ran out", events.oom);
    }
    for entry in metrics.io.iter().flat_map(|io| &io.usage) {
        let (major, minor) = (entry.major.to_string(), entry.minor.to_string());
        for (name, help, value) in BLOCK {
            figures.add_of(&[("major", &major), ("minor", &minor)], name, help, value(entry));
        }
    }
}
