//! What there is, for whoever serves it.

use berth_proto::runtime::v1 as proto;

/// The labels that every figure has: the names of pod and namespace, and a container's name, id and image. Of a pod's own
/// figures the id is the pod's, and container and image are empty.
const LABELS: [&str; 5] = ["pod", "namespace", "container", "id", "image"];

/// Names, what they say, and the labels that they have beside the usual ones.
type Descriptor = (&'static str, &'static str, &'static [&'static str]);

const NONE: &[&str] = &[];
const DEVICE: &[&str] = &["device"];
const INTERFACE: &[&str] = &["interface"];

const ALL: [Descriptor; 49] = [
    ("container_cpu_user_seconds_total", "Processor time in user mode, in seconds.", NONE),
    ("container_cpu_system_seconds_total", "Processor time in the kernel, in seconds.", NONE),
    ("container_cpu_usage_seconds_total", "Processor time, in seconds.", NONE),
    ("container_cpu_cfs_periods_total", "Periods in which a quota of processor time was enforced.", NONE),
    ("container_cpu_cfs_throttled_periods_total", "Periods in which the quota was used up.", NONE),
    ("container_cpu_cfs_throttled_seconds_total", "Time that was lost to the quota, in seconds.", NONE),
    ("container_memory_cache", "Memory that caches files, in bytes.", NONE),
    ("container_memory_rss", "Anonymous memory, in bytes.", NONE),
    ("container_memory_kernel_usage", "Memory of the kernel, in bytes.", NONE),
    ("container_memory_mapped_file", "Memory of mapped files, in bytes.", NONE),
    ("container_memory_swap", "Swap, in bytes.", NONE),
    ("container_memory_failcnt", "How often the limit was hit; always 0 with version 2 of cgroups.", NONE),
    ("container_memory_usage_bytes", "Memory of every kind, in bytes.", NONE),
    ("container_memory_max_usage_bytes", "The most memory there was, in bytes.", NONE),
    ("container_memory_working_set_bytes", "Memory that could not be given back at once, in bytes.", NONE),
    ("container_memory_total_active_file_bytes", "Cache of files in use lately, in bytes.", NONE),
    ("container_memory_total_inactive_file_bytes", "Cache of files not in use lately, in bytes.", NONE),
    ("container_memory_failures_total", "Page faults.", &["failure_type", "scope"]),
    ("container_oom_events_total", "Processes that were killed for want of memory.", NONE),
    ("container_network_receive_bytes_total", "Bytes received.", INTERFACE),
    ("container_network_receive_packets_total", "Packets received.", INTERFACE),
    ("container_network_receive_packets_dropped_total", "Packets dropped at reception.", INTERFACE),
    ("container_network_receive_errors_total", "Errors at reception.", INTERFACE),
    ("container_network_transmit_bytes_total", "Bytes sent.", INTERFACE),
    ("container_network_transmit_packets_total", "Packets sent.", INTERFACE),
    ("container_network_transmit_packets_dropped_total", "Packets dropped at sending.", INTERFACE),
    ("container_network_transmit_errors_total", "Errors at sending.", INTERFACE),
    ("container_fs_inodes_free", "Files that the filesystem has room for.", DEVICE),
    ("container_fs_inodes_total", "Files that the filesystem can have.", DEVICE),
    ("container_fs_limit_bytes", "Size of the filesystem, in bytes.", DEVICE),
    ("container_fs_usage_bytes", "What the container has written, in bytes.", DEVICE),
    ("container_fs_reads_bytes_total", "Bytes read from a device.", DEVICE),
    ("container_fs_reads_total", "Reads from a device.", DEVICE),
    ("container_fs_writes_bytes_total", "Bytes written to a device.", DEVICE),
    ("container_fs_writes_total", "Writes to a device.", DEVICE),
    (
        "container_blkio_device_usage_total",
        "Bytes by device and operation.",
        &["device", "major", "minor", "operation"],
    ),
    ("container_processes", "Processes.", NONE),
    ("container_file_descriptors", "Open descriptors.", NONE),
    ("container_sockets", "Open sockets.", NONE),
    ("container_threads_max", "The most threads there may be; no limit if 0.", NONE),
    ("container_threads", "Threads.", NONE),
    ("container_ulimits_soft", "Soft limits of the first process.", &["ulimit"]),
    ("container_last_seen", "When it was last seen, in seconds since 1970.", NONE),
    ("container_start_time_seconds", "When it was started, in seconds since 1970.", NONE),
    ("container_spec_cpu_period", "Period of the quota of processor time, in microseconds.", NONE),
    ("container_spec_cpu_shares", "Shares of processor time.", NONE),
    ("container_spec_memory_limit_bytes", "Limit of memory, in bytes.", NONE),
    ("container_spec_memory_reservation_limit_bytes", "Memory that is set aside, in bytes.", NONE),
    ("container_spec_memory_swap_limit_bytes", "Limit of memory and swap together, in bytes.", NONE),
];

/// All of them.
pub(crate) fn descriptors() -> Vec<proto::MetricDescriptor> {
    let one = |(name, help, more): &Descriptor| proto::MetricDescriptor {
        name: (*name).to_owned(),
        help: (*help).to_owned(),
        label_keys: LABELS.iter().chain(*more).map(|label| (*label).to_owned()).collect(),
    };
    ALL.iter().map(one).collect()
}
