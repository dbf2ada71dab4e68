//! Figures of cgroup v2, named as in containerd's `io.containerd.cgroups.v2`. What the kernel does not tell stays zero or empty.

/// `Metrics`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Metrics {
    /// `pids`.
    pub pids: Option<PidsStat>,
    /// `cpu`.
    pub cpu: Option<CpuStat>,
    /// `memory`.
    pub memory: Option<MemoryStat>,
    /// `rdma`.
    pub rdma: Option<RdmaStat>,
    /// `io`.
    pub io: Option<IoStat>,
    /// `hugetlb`.
    pub hugetlb: Vec<HugetlbStat>,
    /// `memory_events`.
    pub memory_events: Option<MemoryEvents>,
    /// `network`.
    pub network: Vec<NetworkStat>,
}

/// `PSIData`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct PsiData {
    /// `avg10`.
    pub avg10: f64,
    /// `avg60`.
    pub avg60: f64,
    /// `avg300`.
    pub avg300: f64,
    /// `total`.
    pub total: u64,
}

/// `PSIStats`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct PsiStats {
    /// `some`.
    pub some: Option<PsiData>,
    /// `full`.
    pub full: Option<PsiData>,
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
    /// `usage_usec`.
    pub usage_usec: u64,
    /// `user_usec`.
    pub user_usec: u64,
    /// `system_usec`.
    pub system_usec: u64,
    /// `nr_periods`.
    pub nr_periods: u64,
    /// `nr_throttled`.
    pub nr_throttled: u64,
    /// `throttled_usec`.
    pub throttled_usec: u64,
    /// `psi`.
    pub psi: Option<PsiStats>,
    /// `nr_bursts`.
    pub nr_bursts: u64,
    /// `burst_usec`.
    pub burst_usec: u64,
}

/// `MemoryStat`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct MemoryStat {
    /// `anon`.
    pub anon: u64,
    /// `file`.
    pub file: u64,
    /// `kernel_stack`.
    pub kernel_stack: u64,
    /// `slab`.
    pub slab: u64,
    /// `sock`.
    pub sock: u64,
    /// `shmem`.
    pub shmem: u64,
    /// `file_mapped`.
    pub file_mapped: u64,
    /// `file_dirty`.
    pub file_dirty: u64,
    /// `file_writeback`.
    pub file_writeback: u64,
    /// `anon_thp`.
    pub anon_thp: u64,
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
    /// `slab_reclaimable`.
    pub slab_reclaimable: u64,
    /// `slab_unreclaimable`.
    pub slab_unreclaimable: u64,
    /// `pgfault`.
    pub pgfault: u64,
    /// `pgmajfault`.
    pub pgmajfault: u64,
    /// `workingset_refault`.
    pub workingset_refault: u64,
    /// `workingset_activate`.
    pub workingset_activate: u64,
    /// `workingset_nodereclaim`.
    pub workingset_nodereclaim: u64,
    /// `pgrefill`.
    pub pgrefill: u64,
    /// `pgscan`.
    pub pgscan: u64,
    /// `pgsteal`.
    pub pgsteal: u64,
    /// `pgactivate`.
    pub pgactivate: u64,
    /// `pgdeactivate`.
    pub pgdeactivate: u64,
    /// `pglazyfree`.
    pub pglazyfree: u64,
    /// `pglazyfreed`.
    pub pglazyfreed: u64,
    /// `thp_fault_alloc`.
    pub thp_fault_alloc: u64,
    /// `thp_collapse_alloc`.
    pub thp_collapse_alloc: u64,
    /// `usage`.
    pub usage: u64,
    /// `usage_limit`.
    pub usage_limit: u64,
    /// `swap_usage`.
    pub swap_usage: u64,
    /// `swap_limit`.
    pub swap_limit: u64,
    /// `max_usage`.
    pub max_usage: u64,
    /// `swap_max_usage`.
    pub swap_max_usage: u64,
    /// `psi`.
    pub psi: Option<PsiStats>,
}

/// `MemoryEvents`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct MemoryEvents {
    /// `low`.
    pub low: u64,
    /// `high`.
    pub high: u64,
    /// `max`.
    pub max: u64,
    /// `oom`.
    pub oom: u64,
    /// `oom_kill`.
    pub oom_kill: u64,
    /// `oom_group_kill`.
    pub oom_group_kill: u64,
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

/// `IOStat`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct IoStat {
    /// `usage`.
    pub usage: Vec<IoEntry>,
    /// `psi`.
    pub psi: Option<PsiStats>,
}

/// `IOEntry`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct IoEntry {
    /// `major`.
    pub major: u64,
    /// `minor`.
    pub minor: u64,
    /// `rbytes`.
    pub rbytes: u64,
    /// `wbytes`.
    pub wbytes: u64,
    /// `rios`.
    pub rios: u64,
    /// `wios`.
    pub wios: u64,
}

/// `HugeTlbStat`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct HugetlbStat {
    /// `current`.
    pub current: u64,
    /// `max`.
    pub max: u64,
    /// `pagesize`.
    pub pagesize: String,
    /// `failcnt`.
    pub failcnt: u64,
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
