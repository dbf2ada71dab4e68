//! Figures of a container's cgroup.

use berth_cgroup::Metrics;
use berth_proto::io::containerd::cgroups::{v1, v2};
use berth_proto::runtime::v1::MetricType::Counter;

use super::Figures;

const NANOSECONDS: u64 = 1_000_000_000;
const MICROSECONDS: u64 = 1_000_000;
/// What page faults are counted of.
const SCOPE: &str = "container";

pub(super) fn add(figures: &mut Figures, metrics: &Metrics) {
    match metrics {
        Metrics::V1(metrics) => {
            cpu_v1(figures, metrics);
            memory_v1(figures, metrics);
            io_v1(figures, metrics);
            if let Some(pids) = &metrics.pids {
                processes(figures, pids.current, pids.limit);
            }
        }
        Metrics::V2(metrics) => {
            cpu_v2(figures, metrics);
            memory_v2(figures, metrics);
            io_v2(figures, metrics);
            if let Some(pids) = &metrics.pids {
                processes(figures, pids.current, pids.limit);
            }
        }
    }
}

fn cpu_v1(figures: &mut Figures, metrics: &v1::Metrics) {
    let Some(cpu) = &metrics.cpu else { return };
    if let Some(usage) = &cpu.usage {
        figures.count("container_cpu_usage_seconds_total", usage.total / NANOSECONDS);
        figures.count("container_cpu_user_seconds_total", usage.user / NANOSECONDS);
        figures.count("container_cpu_system_seconds_total", usage.kernel / NANOSECONDS);
    }
    if let Some(throttling) = &cpu.throttling {
        figures.count("container_cpu_cfs_periods_total", throttling.periods);
        figures.count("container_cpu_cfs_throttled_periods_total", throttling.throttled_periods);
        figures.count("container_cpu_cfs_throttled_seconds_total", throttling.throttled_time / NANOSECONDS);
    }
}

fn cpu_v2(figures: &mut Figures, metrics: &v2::Metrics) {
    let Some(cpu) = &metrics.cpu else { return };
    figures.count("container_cpu_usage_seconds_total", cpu.usage_usec / MICROSECONDS);
    figures.count("container_cpu_user_seconds_total", cpu.user_usec / MICROSECONDS);
    figures.count("container_cpu_system_seconds_total", cpu.system_usec / MICROSECONDS);
    figures.count("container_cpu_cfs_periods_total", cpu.nr_periods);
    figures.count("container_cpu_cfs_throttled_periods_total", cpu.nr_throttled);
    figures.count("container_cpu_cfs_throttled_seconds_total", cpu.throttled_usec / MICROSECONDS);
}

fn memory_v1(figures: &mut Figures, metrics: &v1::Metrics) {
    if let Some(control) = &metrics.memory_oom_control {
        figures.count("container_oom_events_total", control.oom_kill);
    }
    let Some(memory) = &metrics.memory else { return };
    if let Some(usage) = &memory.usage {
        figures.gauge("container_memory_usage_bytes", usage.usage);
        figures.gauge("container_memory_max_usage_bytes", usage.max);
        let working_set = usage.usage.saturating_sub(memory.total_inactive_file);
        figures.gauge("container_memory_working_set_bytes", working_set);
        figures.count("container_memory_failcnt", usage.failcnt);
    }
    if let Some(kernel) = &memory.kernel {
        figures.gauge("container_memory_kernel_usage", kernel.usage);
    }
    if let Some(swap) = &memory.swap {
        figures.gauge("container_memory_swap", swap.usage);
    }
    figures.gauge("container_memory_rss", memory.total_rss);
    figures.gauge("container_memory_cache", memory.total_cache);
    figures.gauge("container_memory_mapped_file", memory.total_mapped_file);
    figures.gauge("container_memory_total_active_file_bytes", memory.total_active_file);
    figures.gauge("container_memory_total_inactive_file_bytes", memory.total_inactive_file);
    faults(figures, memory.pg_fault, memory.pg_maj_fault);
}

fn memory_v2(figures: &mut Figures, metrics: &v2::Metrics) {
    if let Some(events) = &metrics.memory_events {
        figures.count("container_oom_events_total", events.oom_kill);
    }
    let Some(memory) = &metrics.memory else { return };
    figures.gauge("container_memory_usage_bytes", memory.usage);
    figures.gauge("container_memory_max_usage_bytes", memory.max_usage);
    let working_set = memory.usage.saturating_sub(memory.inactive_file);
    figures.gauge("container_memory_working_set_bytes", working_set);
    figures.count("container_memory_failcnt", 0);
    figures.gauge("container_memory_kernel_usage", memory.kernel_stack);
    figures.gauge("container_memory_swap", memory.swap_usage);
    figures.gauge("container_memory_rss", memory.anon);
    figures.gauge("container_memory_cache", memory.file);
    figures.gauge("container_memory_mapped_file", memory.file_mapped);
    figures.gauge("container_memory_total_active_file_bytes", memory.active_file);
    figures.gauge("container_memory_total_inactive_file_bytes", memory.inactive_file);
    faults(figures, memory.pgfault, memory.pgmajfault);
}

fn faults(figures: &mut Figures, all: u64, major: u64) {
    figures.add(Counter, "container_memory_failures_total", &["pgfault", SCOPE], all);
    figures.add(Counter, "container_memory_failures_total", &["pgmajfault", SCOPE], major);
}

fn io_v1(figures: &mut Figures, metrics: &v1::Metrics) {
    let Some(io) = &metrics.blkio else { return };
    for entry in &io.io_service_bytes_recursive {
        let (major, minor) = (entry.major.to_string(), entry.minor.to_string());
        let labels = [entry.device.as_str(), &major, &minor, &entry.op];
        figures.add(Counter, "container_blkio_device_usage_total", &labels, entry.value);
        let name = match entry.op.to_lowercase().as_str() {
            "read" => "container_fs_reads_bytes_total",
            "write" => "container_fs_writes_bytes_total",
            _ => continue,
        };
        figures.add(Counter, name, &[&entry.device], entry.value);
    }
    for entry in &io.io_serviced_recursive {
        let name = match entry.op.to_lowercase().as_str() {
            "read" => "container_fs_reads_total",
            "write" => "container_fs_writes_total",
            _ => continue,
        };
        figures.add(Counter, name, &[&entry.device], entry.value);
    }
}

fn io_v2(figures: &mut Figures, metrics: &v2::Metrics) {
    for entry in metrics.io.iter().flat_map(|io| &io.usage) {
        let device = format!("{}:{}", entry.major, entry.minor);
        figures.add(Counter, "container_fs_reads_bytes_total", &[&device], entry.rbytes);
        figures.add(Counter, "container_fs_writes_bytes_total", &[&device], entry.wbytes);
        figures.add(Counter, "container_fs_reads_total", &[&device], entry.rios);
        figures.add(Counter, "container_fs_writes_total", &[&device], entry.wios);
    }
}

/// The kernel's controller counts threads.
fn processes(figures: &mut Figures, current: u64, limit: u64) {
    figures.gauge("container_processes", current);
    figures.gauge("container_threads", current);
    figures.gauge("container_threads_max", limit);
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::stats::metrics::descriptors;

    #[test]
    fn every_figure_has_the_labels_that_its_descriptor_says() {
        let known: BTreeMap<String, usize> =
            descriptors().into_iter().map(|one| (one.name, one.label_keys.len())).collect();
        let entry = |op: &str| v1::BlkIoEntry { op: op.to_owned(), value: 7, ..Default::default() };
        let v1 = v1::Metrics {
            cpu: Some(v1::CpuStat {
                usage: Some(v1::CpuUsage::default()),
                throttling: Some(v1::Throttle::default()),
            }),
            memory: Some(v1::MemoryStat {
                usage: Some(v1::MemoryEntry { usage: 10, ..Default::default() }),
                kernel: Some(v1::MemoryEntry::default()),
                swap: Some(v1::MemoryEntry::default()),
                total_inactive_file: 4,
                ..Default::default()
            }),
            memory_oom_control: Some(v1::MemoryOomControl::default()),
            blkio: Some(v1::BlkIoStat {
                io_service_bytes_recursive: vec![entry("Read"), entry("Write"), entry("Sync")],
                io_serviced_recursive: vec![entry("Read"), entry("Write"), entry("Total")],
                ..Default::default()
            }),
            pids: Some(v1::PidsStat::default()),
            ..Default::default()
        };
        let v2 = v2::Metrics {
            cpu: Some(v2::CpuStat { usage_usec: 3_500_000, ..Default::default() }),
            memory: Some(v2::MemoryStat { usage: 10, inactive_file: 4, ..Default::default() }),
            memory_events: Some(v2::MemoryEvents::default()),
            io: Some(v2::IoStat { usage: vec![v2::IoEntry::default()], ..Default::default() }),
            pids: Some(v2::PidsStat::default()),
            ..Default::default()
        };
        for metrics in [Metrics::V1(v1.into()), Metrics::V2(v2.into())] {
            let mut figures = Figures::new(&Default::default(), Default::default());
            add(&mut figures, &metrics);
            for one in &figures.all {
                assert_eq!(known.get(&one.name), Some(&one.label_values.len()), "{}", one.name);
            }
            let figure =
                |name: &str| figures.all.iter().find(|one| one.name == name).unwrap().value.unwrap().value;
            assert_eq!(figure("container_memory_working_set_bytes"), 6);
            let names: std::collections::BTreeSet<_> = figures.all.iter().map(|one| &one.name).collect();
            assert!(names.len() >= 26, "{names:?}");
        }
    }
}
