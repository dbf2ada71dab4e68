//! The filter that a container gets unless it asks for another: containerd's default profile.
//!
//! Everything that is not named is refused with EPERM. io_uring, `AF_VSOCK` and `AF_ALG` sockets are
//! refused; what a capability is needed for is allowed when the bounding set has that capability.

use super::seccomp_names::ALWAYS;
use super::{Capabilities, Seccomp, SyscallArg, SyscallRule};

/// `AF_ALG`: the kernel's crypto sockets, a long tail of kernel bugs.
const AF_ALG: u64 = 38;
/// `AF_VSOCK`: the way to a hypervisor, past every network namespace.
const AF_VSOCK: u64 = 40;
/// Execution domains that programs legitimately ask for: Linux, UNAME26, LINUX32 and both, "what is it".
const PERSONALITIES: [u64; 5] = [0, 0x8, 0x2_0000, 0x2_0008, 0xffff_ffff];
/// The namespace flags of clone(2), without `CLONE_NEWTIME`, which clone cannot take.
const CLONE_NEW: u64 = 0x7e02_0000;
const ENOSYS: u32 = 38;

/// What each capability opens.
const BY_CAPABILITY: &[(&str, &[&str])] = &[
    ("CAP_DAC_READ_SEARCH", &["open_by_handle_at"]),
    (
        "CAP_SYS_ADMIN",
        &[
            "bpf",
            "clone",
            "clone3",
            "fanotify_init",
            "fsconfig",
            "fsmount",
            "fsopen",
            "fspick",
            "lookup_dcookie",
            "mount",
            "mount_setattr",
            "move_mount",
            "open_tree",
            "perf_event_open",
            "quotactl",
            "quotactl_fd",
            "setdomainname",
            "sethostname",
            "setns",
            "syslog",
            "umount",
            "umount2",
            "unshare",
        ],
    ),
    ("CAP_SYS_BOOT", &["reboot"]),
    ("CAP_SYS_CHROOT", &["chroot"]),
    ("CAP_SYS_MODULE", &["delete_module", "init_module", "finit_module"]),
    ("CAP_SYS_PACCT", &["acct"]),
    (
        "CAP_SYS_PTRACE",
        &["kcmp", "pidfd_getfd", "process_madvise", "process_vm_readv", "process_vm_writev", "ptrace"],
    ),
    ("CAP_SYS_RAWIO", &["iopl", "ioperm"]),
    ("CAP_SYS_TIME", &["settimeofday", "stime", "clock_settime", "clock_settime64"]),
    ("CAP_SYS_TTY_CONFIG", &["vhangup"]),
    ("CAP_SYS_NICE", &["get_mempolicy", "mbind", "set_mempolicy", "set_mempolicy_home_node"]),
    ("CAP_SYSLOG", &["syslog"]),
    ("CAP_BPF", &["bpf"]),
    ("CAP_PERFMON", &["perf_event_open"]),
];

/// The default filter for a process with these capabilities, on the architecture this was built for.
pub fn default_seccomp(capabilities: Option<&Capabilities>) -> Seccomp {
    let bounding = capabilities.map(|c| c.bounding.as_slice()).unwrap_or_default();
    let has = |name: &str| bounding.iter().any(|c| c == name);
    let mut syscalls = vec![allow(ALWAYS, None)];
    // Alternatives, one rule each: below AF_ALG, the one between it and AF_VSOCK, above AF_VSOCK.
    for (value, op) in [(AF_ALG, "SCMP_CMP_LT"), (AF_ALG + 1, "SCMP_CMP_EQ"), (AF_VSOCK, "SCMP_CMP_GT")] {
        syscalls.push(allow(&["socket"], Some(arg(value, 0, op))));
    }
    for value in PERSONALITIES {
        syscalls.push(allow(&["personality"], Some(arg(value, 0, "SCMP_CMP_EQ"))));
    }
    if cfg!(target_arch = "x86_64") {
        syscalls.push(allow(&["arch_prctl", "modify_ldt"], None));
    } else if cfg!(target_arch = "aarch64") {
        syscalls.push(allow(&["sync_file_range2", "breakpoint", "cacheflush", "set_tls"], None));
    }
    for (capability, names) in BY_CAPABILITY {
        if has(capability) {
            syscalls.push(allow(names, None));
        }
    }
    if !has("CAP_SYS_ADMIN") {
        syscalls.push(allow(&["clone"], Some(arg(CLONE_NEW, 0, "SCMP_CMP_MASKED_EQ"))));
        // clone3's flags lie in memory, out of a filter's sight; ENOSYS makes libc fall back to clone.
        syscalls.push(SyscallRule {
            names: vec!["clone3".into()],
            action: "SCMP_ACT_ERRNO".into(),
            errno_ret: Some(ENOSYS),
            args: Vec::new(),
        });
    }
    let architectures: &[&str] = if cfg!(target_arch = "x86_64") {
        &["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"]
    } else if cfg!(target_arch = "aarch64") {
        &["SCMP_ARCH_ARM", "SCMP_ARCH_AARCH64"]
    } else {
        &[]
    };
    Seccomp {
        default_action: "SCMP_ACT_ERRNO".into(),
        architectures: architectures.iter().map(|a| (*a).to_owned()).collect(),
        syscalls,
        ..Default::default()
    }
}

fn allow(names: &[&str], condition: Option<SyscallArg>) -> SyscallRule {
    SyscallRule {
        names: names.iter().map(|n| (*n).to_owned()).collect(),
        action: "SCMP_ACT_ALLOW".into(),
        errno_ret: None,
        args: condition.into_iter().collect(),
    }
}

fn arg(value: u64, value_two: u64, op: &str) -> SyscallArg {
    SyscallArg { index: 0, value, value_two, op: op.into() }
}
