//! Figures of cgroup v1, named as in containerd's `io.containerd.cgroups.v1`. What the kernel does not tell stays zero or empty.

/// `Metrics`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Metrics {
    /// `hugetlb`.
    pub hugetlb: Vec<HugetlbStat>,
    /// `pids`.
    pub pids: Option<PidsStat>,
    /// `cpu`.
    pub cpu: Option<CpuStat>,
    /// `memory`.
    pub memory: Option<MemoryStat>,
    /// `blkio`.
    pub blkio: Option<BlkIoStat>,
    /// `rdma`.
    pub rdma: Option<RdmaStat>,
    /// `network`.
    pub network: Vec<NetworkStat>,
    /// `cgroup_stats`.
    pub cgroup_stats: Option<CgroupStats>,
    /// `memory_oom_control`.
    pub memory_oom_control: Option<MemoryOomControl>,
}

/// `HugetlbStat`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct HugetlbStat {
    /// `usage`.
    pub usage: u64,
    /// `max`.
    pub max: u64,
    /// `failcnt`.
    pub failcnt: u64,
    /// `pagesize`.
    pub pagesize: String,
}

/// `PidsStat`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct PidsStat {
    /// `current`.
    pub current: u64,
    /// `limit`.
    pub limit: u64,
}

/// `CPUStat`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct CpuStat {
    /// `usage`.
    pub usage: Option<CpuUsage>,
    /// `throttling`.
    pub throttling: Option<Throttle>,
}

/// `CPUUsage`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct CpuUsage {
    /// `total`.
    pub total: u64,
    /// `kernel`.
    pub kernel: u64,
    /// `user`.
    pub user: u64,
    /// `per_cpu`.
    pub per_cpu: Vec<u64>,
}

/// `Throttle`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Throttle {
    /// `periods`.
    pub periods: u64,
    /// `throttled_periods`.
    pub throttled_periods: u64,
    /// `throttled_time`.
    pub throttled_time: u64,
}

/// `MemoryStat`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct MemoryStat {
    /// `cache`.
    pub cache: u64,
    /// `rss`.
    pub rss: u64,
    /// `rss_huge`.
    pub rss_huge: u64,
    /// `mapped_file`.
    pub mapped_file: u64,
    /// `dirty`.
    pub dirty: u64,
    /// `writeback`.
    pub writeback: u64,
    /// `pg_pg_in`.
    pub pg_pg_in: u64,
    /// `pg_pg_out`.
    pub pg_pg_out: u64,
    /// `pg_fault`.
    pub pg_fault: u64,
    /// `pg_maj_fault`.
    pub pg_maj_fault: u64,
    /// `inactive_anon`.
    pub inactive_anon: u64,
    /// `active_anon`.
    pub active_anon: u64,
    /// `inactive_file`.
    pub inactive_file: u64,
    /// `active_file`.
    pub active_file: u64,
    /// `unevictable`.
    pub unevictable: u64,
    /// `hierarchical_memory_limit`.
    pub hierarchical_memory_limit: u64,
    /// `hierarchical_swap_limit`.
    pub hierarchical_swap_limit: u64,
    /// `total_cache`.
    pub total_cache: u64,
    /// `total_rss`.
    pub total_rss: u64,
    /// `total_rss_huge`.
    pub total_rss_huge: u64,
    /// `total_mapped_file`.
    pub total_mapped_file: u64,
    /// `total_dirty`.
    pub total_dirty: u64,
    /// `total_writeback`.
    pub total_writeback: u64,
    /// `total_pg_pg_in`.
    pub total_pg_pg_in: u64,
    /// `total_pg_pg_out`.
    pub total_pg_pg_out: u64,
    /// `total_pg_fault`.
    pub total_pg_fault: u64,
    /// `total_pg_maj_fault`.
    pub total_pg_maj_fault: u64,
    /// `total_inactive_anon`.
    pub total_inactive_anon: u64,
    /// `total_active_anon`.
    pub total_active_anon: u64,
    /// `total_inactive_file`.
    pub total_inactive_file: u64,
    /// `total_active_file`.
    pub total_active_file: u64,
    /// `total_unevictable`.
    pub total_unevictable: u64,
    /// `usage`.
    pub usage: Option<MemoryEntry>,
    /// `swap`.
    pub swap: Option<MemoryEntry>,
    /// `kernel`.
    pub kernel: Option<MemoryEntry>,
    /// `kernel_tcp`.
    pub kernel_tcp: Option<MemoryEntry>,
}

/// `MemoryEntry`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct MemoryEntry {
    /// `limit`.
    pub limit: u64,
    /// `usage`.
    pub usage: u64,
    /// `max`.
    pub max: u64,
    /// `failcnt`.
    pub failcnt: u64,
}

/// `MemoryOomControl`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct MemoryOomControl {
    /// `oom_kill_disable`.
    pub oom_kill_disable: u64,
    /// `under_oom`.
    pub under_oom: u64,
    /// `oom_kill`.
    pub oom_kill: u64,
}

/// `BlkIOStat`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct BlkIoStat {
    /// `io_service_bytes_recursive`.
    pub io_service_bytes_recursive: Vec<BlkIoEntry>,
    /// `io_serviced_recursive`.
    pub io_serviced_recursive: Vec<BlkIoEntry>,
    /// `io_queued_recursive`.
    pub io_queued_recursive: Vec<BlkIoEntry>,
    /// `io_service_time_recursive`.
    pub io_service_time_recursive: Vec<BlkIoEntry>,
    /// `io_wait_time_recursive`.
    pub io_wait_time_recursive: Vec<BlkIoEntry>,
    /// `io_merged_recursive`.
    pub io_merged_recursive: Vec<BlkIoEntry>,
    /// `io_time_recursive`.
    pub io_time_recursive: Vec<BlkIoEntry>,
    /// `sectors_recursive`.
    pub sectors_recursive: Vec<BlkIoEntry>,
}

/// `BlkIOEntry`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct BlkIoEntry {
    /// `op`.
    pub op: String,
    /// `device`.
    pub device: String,
    /// `major`.
    pub major: u64,
    /// `minor`.
    pub minor: u64,
    /// `value`.
    pub value: u64,
}

/// `RdmaStat`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct RdmaStat {
    /// `current`.
    pub current: Vec<RdmaEntry>,
    /// `limit`.
    pub limit: Vec<RdmaEntry>,
}

/// `RdmaEntry`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct RdmaEntry {
    /// `device`.
    pub device: String,
    /// `hca_handles`.
    pub hca_handles: u32,
    /// `hca_objects`.
    pub hca_objects: u32,
}

/// `NetworkStat`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct NetworkStat {
    /// `name`.
    pub name: String,
    /// `rx_bytes`.
    pub rx_bytes: u64,
    /// `rx_packets`.
    pub rx_packets: u64,
    /// `rx_errors`.
    pub rx_errors: u64,
    /// `rx_dropped`.
    pub rx_dropped: u64,
    /// `tx_bytes`.
    pub tx_bytes: u64,
    /// `tx_packets`.
    pub tx_packets: u64,
    /// `tx_errors`.
    pub tx_errors: u64,
    /// `tx_dropped`.
    pub tx_dropped: u64,
}

/// `CgroupStats`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct CgroupStats {
    /// `nr_sleeping`.
    pub nr_sleeping: u64,
    /// `nr_running`.
    pub nr_running: u64,
    /// `nr_stopped`.
    pub nr_stopped: u64,
    /// `nr_uninterruptible`.
    pub nr_uninterruptible: u64,
    /// `nr_io_wait`.
    pub nr_io_wait: u64,
}
