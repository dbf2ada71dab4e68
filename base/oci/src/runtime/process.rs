//! The process of a container, also what `exec` is given.

use serde::{Deserialize, Serialize};

use super::{is_default, nullable};

/// A process to run in a container.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Process {
    /// Whether its standard streams are a terminal.
    #[serde(deserialize_with = "nullable", skip_serializing_if = "is_default")]
    pub terminal: bool,
    /// Size of that terminal.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub console_size: Option<ConsoleSize>,
    /// Who it runs as.
    #[serde(deserialize_with = "nullable")]
    pub user: User,
    /// Program and arguments.
    #[serde(deserialize_with = "nullable", skip_serializing_if = "is_default")]
    pub args: Vec<String>,
    /// `NAME=VALUE`.
    #[serde(deserialize_with = "nullable", skip_serializing_if = "is_default")]
    pub env: Vec<String>,
    /// Working directory: absolute, inside the container.
    #[serde(deserialize_with = "nullable")]
    pub cwd: String,
    /// Its capabilities; none given leaves none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub capabilities: Option<Capabilities>,
    /// Resource limits.
    #[serde(deserialize_with = "nullable", skip_serializing_if = "is_default")]
    pub rlimits: Vec<Rlimit>,
    /// Whether set-user-id programs and file capabilities have no effect.
    #[serde(deserialize_with = "nullable", skip_serializing_if = "is_default")]
    pub no_new_privileges: bool,
    /// AppArmor profile.
    #[serde(deserialize_with = "nullable", skip_serializing_if = "is_default")]
    pub apparmor_profile: String,
    /// How readily the kernel kills it for memory.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub oom_score_adj: Option<i32>,
    /// Scheduling policy.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub scheduler: Option<Scheduler>,
    /// SELinux label of the process.
    #[serde(deserialize_with = "nullable", skip_serializing_if = "is_default")]
    pub selinux_label: String,
    /// I/O scheduling priority.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub io_priority: Option<IoPriority>,
    /// Processors on which an exec runs.
    #[serde(rename = "execCPUAffinity", skip_serializing_if = "Option::is_none")]
    pub exec_cpu_affinity: Option<CpuAffinity>,
}

/// Size of a terminal in characters.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct ConsoleSize {
    /// Rows.
    #[serde(deserialize_with = "nullable")]
    pub height: u32,
    /// Columns.
    #[serde(deserialize_with = "nullable")]
    pub width: u32,
}

/// User and groups, by number.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct User {
    /// User id inside the container.
    #[serde(deserialize_with = "nullable")]
    pub uid: u32,
    /// Group id inside the container.
    #[serde(deserialize_with = "nullable")]
    pub gid: u32,
    /// File mode creation mask; left alone when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub umask: Option<u32>,
    /// Supplementary groups.
    #[serde(deserialize_with = "nullable", skip_serializing_if = "is_default")]
    pub additional_gids: Vec<u32>,
    /// For Windows; carried along.
    #[serde(deserialize_with = "nullable", skip_serializing_if = "is_default")]
    pub username: String,
}

/// The five sets of capabilities(7), by name (`CAP_…`).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Capabilities {
    /// What can ever be gained.
    #[serde(deserialize_with = "nullable", skip_serializing_if = "is_default")]
    pub bounding: Vec<String>,
    /// What is checked.
    #[serde(deserialize_with = "nullable", skip_serializing_if = "is_default")]
    pub effective: Vec<String>,
    /// What survives an exec of a file that inherits it.
    #[serde(deserialize_with = "nullable", skip_serializing_if = "is_default")]
    pub inheritable: Vec<String>,
    /// What can be made effective.
    #[serde(deserialize_with = "nullable", skip_serializing_if = "is_default")]
    pub permitted: Vec<String>,
    /// What survives any exec.
    #[serde(deserialize_with = "nullable", skip_serializing_if = "is_default")]
    pub ambient: Vec<String>,
}

impl Capabilities {
    /// Every capability that Linux has; its place is its number (`<linux/capability.h>`).
    pub const NAMES: [&'static str; 41] = [
        "CAP_CHOWN",
        "CAP_DAC_OVERRIDE",
        "CAP_DAC_READ_SEARCH",
        "CAP_FOWNER",
        "CAP_FSETID",
        "CAP_KILL",
        "CAP_SETGID",
        "CAP_SETUID",
        "CAP_SETPCAP",
        "CAP_LINUX_IMMUTABLE",
        "CAP_NET_BIND_SERVICE",
        "CAP_NET_BROADCAST",
        "CAP_NET_ADMIN",
        "CAP_NET_RAW",
        "CAP_IPC_LOCK",
        "CAP_IPC_OWNER",
        "CAP_SYS_MODULE",
        "CAP_SYS_RAWIO",
        "CAP_SYS_CHROOT",
        "CAP_SYS_PTRACE",
        "CAP_SYS_PACCT",
        "CAP_SYS_ADMIN",
        "CAP_SYS_BOOT",
        "CAP_SYS_NICE",
        "CAP_SYS_RESOURCE",
        "CAP_SYS_TIME",
        "CAP_SYS_TTY_CONFIG",
        "CAP_MKNOD",
        "CAP_LEASE",
        "CAP_AUDIT_WRITE",
        "CAP_AUDIT_CONTROL",
        "CAP_SETFCAP",
        "CAP_MAC_OVERRIDE",
        "CAP_MAC_ADMIN",
        "CAP_SYSLOG",
        "CAP_WAKE_ALARM",
        "CAP_BLOCK_SUSPEND",
        "CAP_AUDIT_READ",
        "CAP_PERFMON",
        "CAP_BPF",
        "CAP_CHECKPOINT_RESTORE",
    ];

    /// The names of those whose bit is set.
    pub fn names_of(bits: u64) -> Vec<String> {
        let set = Self::NAMES.iter().enumerate().filter(|(number, _)| bits & (1 << number) != 0);
        set.map(|(_, name)| (*name).to_owned()).collect()
    }
}

/// A resource limit of setrlimit(2).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Rlimit {
    /// `RLIMIT_…`.
    #[serde(rename = "type", deserialize_with = "nullable")]
    pub kind: String,
    /// The ceiling.
    #[serde(deserialize_with = "nullable")]
    pub hard: u64,
    /// What is enforced.
    #[serde(deserialize_with = "nullable")]
    pub soft: u64,
}

/// Scheduling attributes of sched_setattr(2).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Scheduler {
    /// `SCHED_…`.
    #[serde(deserialize_with = "nullable")]
    pub policy: String,
    /// Nice value for `SCHED_OTHER` and `SCHED_BATCH`.
    #[serde(deserialize_with = "nullable", skip_serializing_if = "is_default")]
    pub nice: i32,
    /// Static priority for `SCHED_FIFO` and `SCHED_RR`.
    #[serde(deserialize_with = "nullable", skip_serializing_if = "is_default")]
    pub priority: i32,
    /// `SCHED_FLAG_…`.
    #[serde(deserialize_with = "nullable", skip_serializing_if = "is_default")]
    pub flags: Vec<String>,
    /// Nanoseconds, for `SCHED_DEADLINE`.
    #[serde(deserialize_with = "nullable", skip_serializing_if = "is_default")]
    pub runtime: u64,
    /// Nanoseconds, for `SCHED_DEADLINE`.
    #[serde(deserialize_with = "nullable", skip_serializing_if = "is_default")]
    pub deadline: u64,
    /// Nanoseconds, for `SCHED_DEADLINE`.
    #[serde(deserialize_with = "nullable", skip_serializing_if = "is_default")]
    pub period: u64,
}

/// I/O priority of ioprio_set(2).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct IoPriority {
    /// `IOPRIO_CLASS_RT`, `IOPRIO_CLASS_BE` or `IOPRIO_CLASS_IDLE`.
    #[serde(deserialize_with = "nullable")]
    pub class: String,
    /// 0 (first) to 7.
    #[serde(deserialize_with = "nullable")]
    pub priority: i32,
}

/// Processors for the processes that exec makes, as cpuset lists such as `0-3,7`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct CpuAffinity {
    /// While the runtime joins the container.
    #[serde(deserialize_with = "nullable", skip_serializing_if = "is_default")]
    pub initial: String,
    /// Once it is in the container's cgroup.
    #[serde(rename = "final", deserialize_with = "nullable", skip_serializing_if = "is_default")]
    pub final_set: String,
}
