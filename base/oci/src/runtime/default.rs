//! The configuration that containerd starts from (`oci.GenerateSpec`), to be changed by options.

use super::{
    Capabilities, DeviceRule, Linux, Mount, Namespace, NamespaceKind, OCI_VERSION, Process, Resources,
    Rlimit, Root, Spec,
};

/// `PATH` when the image says nothing.
pub const PATH_ENV: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// The capabilities of a container that asked for none in particular.
pub const CAPABILITIES: [&str; 14] = [
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_FSETID",
    "CAP_FOWNER",
    "CAP_MKNOD",
    "CAP_NET_RAW",
    "CAP_SETGID",
    "CAP_SETUID",
    "CAP_SETFCAP",
    "CAP_SETPCAP",
    "CAP_NET_BIND_SERVICE",
    "CAP_SYS_CHROOT",
    "CAP_KILL",
    "CAP_AUDIT_WRITE",
];

/// Paths that a container cannot read: containerd's, and /proc/interrupts, which tells about others' work.
pub const MASKED_PATHS: [&str; 12] = [
    "/proc/acpi",
    "/proc/asound",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/sys/firmware",
    "/sys/devices/virtual/powercap",
];

/// Paths that a container cannot write.
pub const READONLY_PATHS: [&str; 5] =
    ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];

/// The default configuration of container `id` in containerd's namespace `namespace`.
///
/// It has no arguments and no environment: image and command line give those.
pub fn spec(namespace: &str, id: &str) -> Spec {
    Spec {
        oci_version: OCI_VERSION.into(),
        root: Some(Root { path: "rootfs".into(), readonly: false }),
        process: Some(process()),
        mounts: mounts(),
        linux: Some(Linux {
            masked_paths: owned(&MASKED_PATHS),
            readonly_paths: owned(&READONLY_PATHS),
            cgroups_path: format!("/{namespace}/{id}"),
            resources: Some(Resources {
                devices: vec![DeviceRule { access: "rwm".into(), ..Default::default() }],
                ..Default::default()
            }),
            namespaces: namespaces(),
            ..Default::default()
        }),
        ..Default::default()
    }
}

/// The files that tell how hot each of `cpus` processors is, and so what else runs on the machine.
/// Mask them too where they exist (this module looks at no machine).
pub fn thermal_paths(cpus: usize) -> impl Iterator<Item = String> {
    (0..cpus).map(|n| format!("/sys/devices/system/cpu/cpu{n}/thermal_throttle"))
}

/// The capability sets of a container that asked for none in particular.
pub fn capabilities() -> Capabilities {
    let all = owned(&CAPABILITIES);
    Capabilities { bounding: all.clone(), permitted: all.clone(), effective: all, ..Default::default() }
}

/// The default mounts: /proc, /dev and what lies below it, /sys, /run.
pub fn mounts() -> Vec<Mount> {
    vec![
        mount("/proc", "proc", "proc", &["nosuid", "noexec", "nodev"]),
        mount("/dev", "tmpfs", "tmpfs", &["nosuid", "strictatime", "mode=755", "size=65536k"]),
        mount(
            "/dev/pts",
            "devpts",
            "devpts",
            &["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"],
        ),
        mount("/dev/shm", "tmpfs", "shm", &["nosuid", "noexec", "nodev", "mode=1777", "size=65536k"]),
        mount("/dev/mqueue", "mqueue", "mqueue", &["nosuid", "noexec", "nodev"]),
        mount("/sys", "sysfs", "sysfs", &["nosuid", "noexec", "nodev", "ro"]),
        mount("/run", "tmpfs", "tmpfs", &["nosuid", "strictatime", "mode=755", "size=65536k"]),
    ]
}

/// A mount of the cgroup tree as the container sees it, read-only; not among containerd's defaults,
/// but what Docker and CRI add.
pub fn cgroup_mount() -> Mount {
    mount("/sys/fs/cgroup", "cgroup", "cgroup", &["ro", "nosuid", "noexec", "nodev"])
}

/// The default namespaces.
pub fn namespaces() -> Vec<Namespace> {
    [NamespaceKind::Pid, NamespaceKind::Ipc, NamespaceKind::Uts, NamespaceKind::Mount, NamespaceKind::Network]
        .map(|kind| Namespace { kind, path: String::new() })
        .into()
}

fn process() -> Process {
    Process {
        cwd: "/".into(),
        no_new_privileges: true,
        capabilities: Some(capabilities()),
        rlimits: vec![Rlimit { kind: "RLIMIT_NOFILE".into(), hard: 1024, soft: 1024 }],
        ..Default::default()
    }
}

fn mount(destination: &str, kind: &str, source: &str, options: &[&str]) -> Mount {
    Mount {
        destination: destination.into(),
        kind: kind.into(),
        source: source.into(),
        options: owned(options),
        ..Default::default()
    }
}

fn owned(names: &[&str]) -> Vec<String> {
    names.iter().map(|n| (*n).to_owned()).collect()
}
