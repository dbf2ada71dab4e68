//! events: usage in runc's form, and news of processes killed for memory.

use std::os::fd::AsFd as _;
use std::time::{Duration, Instant};

use berth_cgroup::{Metrics, v1_messages as v1, v2_messages as v2};
use berth_container::Container;
use berth_oci::runtime::Status;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use serde_json::{Value, json};

use super::{Failure, Outcome, args};

pub(super) fn events(globals: &args::Globals, wanted: &args::Events) -> Outcome {
    let container = Container::load(&globals.root, &wanted.id)?;
    if container.status()? == Status::Stopped {
        return Err(Failure::new(format!("container with id {} is not running", wanted.id)));
    }
    let id = container.id().to_owned();
    let print = |kind: &str, data: Option<Value>| {
        let mut event = json!({ "type": kind, "id": id });
        if let Some(data) = data {
            event["data"] = data;
        }
        println!("{event}");
    };
    if wanted.stats {
        print("stats", Some(figures(&container.stats()?)));
        return Ok(0);
    }
    let interval = duration(&wanted.interval)?;
    let mut oom = container.watch_oom()?;
    let mut next = Instant::now() + interval;
    loop {
        let left = next.saturating_duration_since(Instant::now());
        let left = Timespec { tv_sec: left.as_secs() as i64, tv_nsec: left.subsec_nanos().into() };
        // A signal only makes the loop turn once more.
        let _ = poll(&mut [PollFd::from_borrowed_fd(oom.as_fd(), PollFlags::IN)], Some(&left));
        if oom.take() {
            print("oom", None);
        }
        if container.status()? == Status::Stopped {
            return Ok(0);
        }
        if Instant::now() >= next {
            print("stats", Some(figures(&container.stats()?)));
            next = Instant::now() + interval;
        }
    }
}

/// Go's form of a duration: a number with h, m, s or ms.
fn duration(text: &str) -> Result<Duration, Failure> {
    let bad = || Failure::new(format!("duration interval must be greater than 0, such as 5s, not {text:?}"));
    let (number, unit) = text.split_at(text.find(|c: char| c.is_alphabetic()).unwrap_or(text.len()));
    let number: f64 = number.parse().map_err(|_| bad())?;
    let seconds = match unit {
        "ms" => number / 1000.0,
        "s" => number,
        "m" => number * 60.0,
        "h" => number * 3600.0,
        _ => return Err(bad()),
    };
    if seconds > 0.0 { Duration::try_from_secs_f64(seconds).map_err(|_| bad()) } else { Err(bad()) }
}

fn figures(metrics: &Metrics) -> Value {
    match metrics {
        Metrics::V1(metrics) => of_v1(metrics),
        Metrics::V2(metrics) => of_v2(metrics),
    }
}

fn of_v1(metrics: &v1::Metrics) -> Value {
    let cpu = metrics.cpu.clone().unwrap_or_default();
    let (usage, throttle) = (cpu.usage.unwrap_or_default(), cpu.throttling.unwrap_or_default());
    let memory = metrics.memory.unwrap_or_default();
    let pids = metrics.pids.unwrap_or_default();
    let blkio = metrics.blkio.clone().unwrap_or_default();
    let entry = |e: &Option<v1::MemoryEntry>| {
        let e = e.unwrap_or_default();
        json!({ "limit": e.limit, "usage": e.usage, "max": e.max, "failcnt": e.failcnt })
    };
    let entries = |all: &[v1::BlkIoEntry]| -> Value {
        let one =
            |e: &v1::BlkIoEntry| json!({ "major": e.major, "minor": e.minor, "op": e.op, "value": e.value });
        all.iter().map(one).collect()
    };
    let huge = metrics
        .hugetlb
        .iter()
        .map(|h| (h.pagesize.clone(), json!({ "usage": h.usage, "max": h.max, "failcnt": h.failcnt })));
    json!({
        "cpu": {
            "usage": { "total": usage.total, "percpu": usage.per_cpu, "kernel": usage.kernel, "user": usage.user },
            "throttling": {
                "periods": throttle.periods,
                "throttledPeriods": throttle.throttled_periods,
                "throttledTime": throttle.throttled_time
            }
        },
        "cpuset": {},
        "memory": {
            "cache": memory.cache,
            "usage": entry(&memory.usage),
            "swap": entry(&memory.swap),
            "kernel": entry(&memory.kernel),
            "kernelTCP": entry(&memory.kernel_tcp),
            "raw": {
                "active_anon": memory.active_anon, "active_file": memory.active_file,
                "cache": memory.cache, "dirty": memory.dirty,
                "hierarchical_memory_limit": memory.hierarchical_memory_limit,
                "inactive_anon": memory.inactive_anon, "inactive_file": memory.inactive_file,
                "mapped_file": memory.mapped_file, "pgfault": memory.pg_fault,
                "pgmajfault": memory.pg_maj_fault, "pgpgin": memory.pg_pg_in, "pgpgout": memory.pg_pg_out,
                "rss": memory.rss, "rss_huge": memory.rss_huge,
                "total_active_anon": memory.total_active_anon, "total_active_file": memory.total_active_file,
                "total_cache": memory.total_cache, "total_inactive_anon": memory.total_inactive_anon,
                "total_inactive_file": memory.total_inactive_file, "total_rss": memory.total_rss,
                "unevictable": memory.unevictable, "writeback": memory.writeback
            }
        },
        "pids": { "current": pids.current, "limit": pids.limit },
        "blkio": {
            "ioServiceBytesRecursive": entries(&blkio.io_service_bytes_recursive),
            "ioServicedRecursive": entries(&blkio.io_serviced_recursive),
            "ioQueueRecursive": entries(&blkio.io_queued_recursive),
            "ioServiceTimeRecursive": entries(&blkio.io_service_time_recursive),
            "ioWaitTimeRecursive": entries(&blkio.io_wait_time_recursive),
            "ioMergedRecursive": entries(&blkio.io_merged_recursive),
            "ioTimeRecursive": entries(&blkio.io_time_recursive),
            "sectorsRecursive": entries(&blkio.sectors_recursive)
        },
        "hugetlb": huge.collect::<serde_json::Map<_, _>>(),
        "intel_rdt": {},
        "network_interfaces": null
    })
}

/// Nanoseconds, as runc gives v2's microseconds too.
const NANO: u64 = 1000;

fn of_v2(metrics: &v2::Metrics) -> Value {
    let cpu = metrics.cpu.unwrap_or_default();
    let memory = metrics.memory.unwrap_or_default();
    let pids = metrics.pids.unwrap_or_default();
    let usage = metrics.io.clone().unwrap_or_default().usage;
    let entries = |read: fn(&v2::IoEntry) -> u64, write: fn(&v2::IoEntry) -> u64| -> Value {
        let one = |e: &v2::IoEntry| {
            let with = |op: &str, value: u64| json!({ "major": e.major, "minor": e.minor, "op": op, "value": value });
            [with("Read", read(e)), with("Write", write(e))]
        };
        usage.iter().flat_map(one).collect()
    };
    json!({
        "cpu": {
            "usage": {
                "total": cpu.usage_usec * NANO, "kernel": cpu.system_usec * NANO, "user": cpu.user_usec * NANO
            },
            "throttling": {
                "periods": cpu.nr_periods,
                "throttledPeriods": cpu.nr_throttled,
                "throttledTime": cpu.throttled_usec * NANO
            }
        },
        "cpuset": {},
        "memory": {
            "cache": memory.file,
            "usage": { "limit": memory.usage_limit, "usage": memory.usage, "max": memory.max_usage, "failcnt": 0 },
            "swap": { "limit": memory.swap_limit, "usage": memory.swap_usage, "max": memory.swap_max_usage, "failcnt": 0 },
            "kernel": { "failcnt": 0 },
            "kernelTCP": { "failcnt": 0 },
            "raw": {
                "active_anon": memory.active_anon, "active_file": memory.active_file, "anon": memory.anon,
                "file": memory.file, "file_dirty": memory.file_dirty, "file_mapped": memory.file_mapped,
                "file_writeback": memory.file_writeback, "inactive_anon": memory.inactive_anon,
                "inactive_file": memory.inactive_file, "kernel_stack": memory.kernel_stack,
                "pgfault": memory.pgfault, "pgmajfault": memory.pgmajfault, "shmem": memory.shmem,
                "slab": memory.slab, "slab_reclaimable": memory.slab_reclaimable,
                "slab_unreclaimable": memory.slab_unreclaimable, "sock": memory.sock,
                "unevictable": memory.unevictable
            }
        },
        "pids": { "current": pids.current, "limit": pids.limit },
        "blkio": {
            "ioServiceBytesRecursive": entries(|e| e.rbytes, |e| e.wbytes),
            "ioServicedRecursive": entries(|e| e.rios, |e| e.wios)
        },
        "hugetlb": {},
        "intel_rdt": {},
        "network_interfaces": null
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_gos() {
        assert_eq!(duration("5s").unwrap(), Duration::from_secs(5));
        assert_eq!(duration("100ms").unwrap(), Duration::from_millis(100));
        assert!(duration("0s").is_err() && duration("5").is_err() && duration("-1s").is_err());
    }
}
