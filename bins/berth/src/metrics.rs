//! What runtimes report of a container's use, off the wire.

use berth_proto as proto;
use berth_types::Any;
use berth_workload::Sample;
use proto::io::containerd::cgroups::{v1, v2};
use proto::prost::Message;

/// Reads cgroup metrics of either version; none for a type that nobody knows.
pub(crate) fn decode(any: &Any) -> Option<Sample> {
    match any.type_url.trim_start_matches("type.googleapis.com/") {
        "io.containerd.cgroups.v1.Metrics" => {
            v1::Metrics::decode(any.value.as_slice()).ok().map(|one| first(&one))
        }
        "io.containerd.cgroups.v2.Metrics" => {
            v2::Metrics::decode(any.value.as_slice()).ok().map(|two| second(&two))
        }
        _ => None,
    }
}

fn first(metrics: &v1::Metrics) -> Sample {
    let memory = metrics.memory.as_ref();
    let usage = memory.and_then(|memory| memory.usage.as_ref());
    let idle = memory.map_or(0, |memory| memory.total_inactive_file);
    let bytes = |op: &str| {
        let entries = metrics.blkio.iter().flat_map(|io| &io.io_service_bytes_recursive);
        entries.filter(|entry| entry.op.eq_ignore_ascii_case(op)).map(|entry| entry.value).sum()
    };
    Sample {
        cpu: metrics.cpu.as_ref().and_then(|cpu| cpu.usage.as_ref()).map_or(0, |usage| usage.total),
        memory: usage.map_or(0, |usage| usage.usage).saturating_sub(idle),
        memory_limit: usage.map(|usage| usage.limit),
        pids: metrics.pids.as_ref().map_or(0, |pids| pids.current),
        block_read: bytes("read"),
        block_written: bytes("write"),
        oom_kills: metrics.memory_oom_control.map_or(0, |control| control.oom_kill),
    }
}

fn second(metrics: &v2::Metrics) -> Sample {
    let memory = metrics.memory.as_ref();
    let entries = || metrics.io.iter().flat_map(|io| &io.usage);
    Sample {
        cpu: metrics.cpu.as_ref().map_or(0, |cpu| cpu.usage_usec.saturating_mul(1000)),
        memory: memory.map_or(0, |memory| memory.usage.saturating_sub(memory.inactive_file)),
        memory_limit: memory.map(|memory| memory.usage_limit),
        pids: metrics.pids.as_ref().map_or(0, |pids| pids.current),
        block_read: entries().map(|entry| entry.rbytes).sum(),
        block_written: entries().map(|entry| entry.wbytes).sum(),
        oom_kills: metrics.memory_events.map_or(0, |events| events.oom_kill),
    }
}
