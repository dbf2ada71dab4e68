//! Adjustments on a document.

use berth_oci::runtime::*;

use super::{ApplyError, apply};
use crate::proto;
use crate::proto::{ContainerAdjustment, LinuxContainerAdjustment};

fn spec() -> Spec {
    let mount = |destination: &str| Mount { destination: destination.into(), ..Mount::default() };
    let namespaces = vec![
        Namespace { kind: NamespaceKind::Pid, path: String::new() },
        Namespace { kind: NamespaceKind::Network, path: "/run/netns/pod".into() },
    ];
    Spec {
        process: Some(Process {
            args: vec!["sleep".into(), "1".into()],
            env: vec!["PATH=/bin".into(), "COLOUR=grey".into(), "ODD".into()],
            rlimits: vec![Rlimit { kind: "RLIMIT_NOFILE".into(), hard: 10, soft: 5 }],
            ..Process::default()
        }),
        mounts: vec![mount("/proc"), mount("/dev"), mount("/dev/shm")],
        annotations: [("a".to_owned(), "1".to_owned())].into(),
        linux: Some(Linux {
            namespaces,
            sysctl: [("kernel.x".to_owned(), "1".to_owned())].into(),
            ..Linux::default()
        }),
        ..Spec::default()
    }
}

fn adjusted(adjustment: ContainerAdjustment) -> Spec {
    let mut spec = spec();
    apply(&mut spec, &adjustment).unwrap();
    spec
}

fn linux(linux: LinuxContainerAdjustment) -> ContainerAdjustment {
    ContainerAdjustment { linux: Some(linux), ..Default::default() }
}

fn variable(key: &str, value: &str) -> proto::KeyValue {
    proto::KeyValue { key: key.into(), value: value.into() }
}

#[test]
fn an_empty_adjustment_changes_nothing() {
    assert_eq!(adjusted(ContainerAdjustment::default()), spec());
    assert_eq!(adjusted(linux(LinuxContainerAdjustment::default())), spec());
}

#[test]
fn variables_are_changed_in_place_removed_and_added() {
    let env =
        vec![variable("NEW", "1"), variable("PATH", "/sbin"), variable("-COLOUR", ""), variable("-NONE", "")];
    let spec = adjusted(ContainerAdjustment { env, ..Default::default() });
    assert_eq!(spec.process.unwrap().env, ["PATH=/sbin", "ODD", "NEW=1"]);
}

#[test]
fn arguments_and_limits_are_replaced() {
    let limit = proto::PosixRlimit { r#type: "RLIMIT_NOFILE".into(), hard: 9, soft: 8 };
    let args = vec!["true".to_owned()];
    let process =
        adjusted(ContainerAdjustment { args, rlimits: vec![limit], ..Default::default() }).process.unwrap();
    assert_eq!(process.args, ["true"]);
    assert_eq!(process.rlimits, [Rlimit { kind: "RLIMIT_NOFILE".into(), hard: 9, soft: 8 }]);
}

#[test]
fn annotations_and_sysctls_go_and_come() {
    let map = |pairs: &[(&str, &str)]| {
        pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
    };
    let spec = adjusted(ContainerAdjustment {
        annotations: map(&[("-a", ""), ("b", "2")]),
        linux: Some(LinuxContainerAdjustment {
            sysctl: map(&[("-kernel.x", ""), ("kernel.x", "3"), ("net.y", "4")]),
            ..Default::default()
        }),
        ..Default::default()
    });
    assert_eq!(spec.annotations, map(&[("b", "2")]));
    assert_eq!(spec.linux.unwrap().sysctl, map(&[("kernel.x", "3"), ("net.y", "4")]));
}

#[test]
fn mounts_are_ordered_so_that_none_hides_another() {
    let mount = |destination: &str, options: &[&str]| proto::Mount {
        destination: destination.into(),
        source: "/host".into(),
        r#type: "bind".into(),
        options: options.iter().map(|&option| option.to_owned()).collect(),
    };
    let mounts =
        vec![mount("/dev/shm/deep", &["rbind", "rslave"]), mount("/dev", &["rbind"]), mount("-/proc", &[])];
    let spec = adjusted(ContainerAdjustment { mounts, ..Default::default() });
    let order: Vec<_> = spec.mounts.iter().map(|mount| mount.destination.as_str()).collect();
    assert_eq!(order, ["/dev", "/dev/shm", "/dev/shm/deep"]);
    assert_eq!((spec.mounts[0].source.as_str(), spec.mounts[0].kind.as_str()), ("/host", "bind"));
    assert_eq!(spec.linux.unwrap().rootfs_propagation, "rslave");
}

#[test]
fn hooks_are_added_to_those_that_are_there() {
    let mut spec = spec();
    let there = Hook { path: "/first".into(), ..Hook::default() };
    spec.hooks = Some(Hooks { poststop: vec![there.clone()], ..Hooks::default() });
    let hook = proto::Hook {
        path: "/second".into(),
        args: vec!["second".into()],
        env: vec!["A=b".into()],
        timeout: Some(proto::OptionalInt { value: 5 }),
    };
    let hooks =
        Some(proto::Hooks { poststop: vec![hook.clone()], create_runtime: vec![hook], ..Default::default() });
    apply(&mut spec, &ContainerAdjustment { hooks, ..Default::default() }).unwrap();
    let added = Hook {
        path: "/second".into(),
        args: vec!["second".into()],
        env: vec!["A=b".into()],
        timeout: Some(5),
    };
    let hooks = spec.hooks.unwrap();
    assert_eq!((hooks.poststop, hooks.create_runtime), (vec![there, added.clone()], vec![added]));
}

#[test]
fn a_device_that_is_added_may_be_used() {
    let device = proto::LinuxDevice {
        path: "/dev/x".into(),
        r#type: "b".into(),
        major: 8,
        minor: 1,
        file_mode: Some(proto::OptionalFileMode { value: 0o600 }),
        uid: Some(proto::OptionalUInt32 { value: 7 }),
        gid: None,
    };
    let mut spec = adjusted(linux(LinuxContainerAdjustment { devices: vec![device], ..Default::default() }));
    let linux_part = spec.linux.as_ref().unwrap();
    let [device] = linux_part.devices.as_slice() else { panic!("{:?}", linux_part.devices) };
    assert_eq!((device.file_mode, device.uid, device.gid), (Some(0o600), Some(7), None));
    let rule =
        DeviceRule { allow: true, kind: "b".into(), major: Some(8), minor: Some(1), access: "rwm".into() };
    assert_eq!(linux_part.resources.as_ref().unwrap().devices, [rule]);

    let removal = proto::LinuxDevice { path: "-/dev/x".into(), ..Default::default() };
    apply(&mut spec, &linux(LinuxContainerAdjustment { devices: vec![removal], ..Default::default() }))
        .unwrap();
    assert!(spec.linux.unwrap().devices.is_empty());
}

#[test]
fn namespaces_are_replaced_removed_and_added() {
    let namespace = |kind: &str, path: &str| proto::LinuxNamespace { r#type: kind.into(), path: path.into() };
    let namespaces =
        vec![namespace("network", "/run/netns/mine"), namespace("-pid", ""), namespace("ipc", "")];
    let spec = adjusted(linux(LinuxContainerAdjustment { namespaces, ..Default::default() }));
    let expected = [
        Namespace { kind: NamespaceKind::Network, path: "/run/netns/mine".into() },
        Namespace { kind: NamespaceKind::Ipc, path: String::new() },
    ];
    assert_eq!(spec.linux.unwrap().namespaces, expected);
    let unknown =
        linux(LinuxContainerAdjustment { namespaces: vec![namespace("moon", "")], ..Default::default() });
    assert_eq!(apply(&mut self::spec(), &unknown), Err(ApplyError::Namespace("moon".into())));
}

#[test]
fn every_resource_reaches_the_document() {
    let int = |value| Some(proto::OptionalInt64 { value });
    let count = |value| Some(proto::OptionalUInt64 { value });
    let resources = proto::LinuxResources {
        memory: Some(proto::LinuxMemory {
            limit: int(100),
            reservation: int(50),
            swappiness: count(3),
            ..Default::default()
        }),
        cpu: Some(proto::LinuxCpu {
            shares: count(2),
            quota: int(3),
            period: count(4),
            cpus: "0-1".into(),
            mems: "0".into(),
            ..Default::default()
        }),
        hugepage_limits: vec![proto::HugepageLimit { page_size: "2MB".into(), limit: 9 }],
        unified: [("memory.high".to_owned(), "max".to_owned())].into(),
        pids: Some(proto::LinuxPids { limit: 12 }),
        rdt_class: Some(proto::OptionalString { value: "gold".into() }),
        ..Default::default()
    };
    let linux =
        adjusted(linux(LinuxContainerAdjustment { resources: Some(resources), ..Default::default() }))
            .linux
            .unwrap();
    let got = linux.resources.unwrap();
    let memory = Memory {
        limit: Some(100),
        swap: Some(100),
        reservation: Some(50),
        swappiness: Some(3),
        ..Memory::default()
    };
    assert_eq!(got.memory, Some(memory));
    let cpu = Cpu {
        shares: Some(2),
        quota: Some(3),
        period: Some(4),
        cpus: "0-1".into(),
        mems: "0".into(),
        ..Cpu::default()
    };
    assert_eq!(got.cpu, Some(cpu));
    assert_eq!(got.hugepage_limits, [HugepageLimit { page_size: "2MB".into(), limit: 9 }]);
    assert_eq!(got.unified["memory.high"], "max");
    assert_eq!(got.pids, Some(Pids { limit: Some(12) }));
    assert_eq!(linux.intel_rdt.unwrap().clos_id, "gold");
}

#[test]
fn the_process_gets_its_priorities_and_the_container_its_filter() {
    let rule = proto::LinuxSyscall {
        names: vec!["mount".into()],
        action: "SCMP_ACT_ERRNO".into(),
        errno_ret: Some(proto::OptionalUInt32 { value: 13 }),
        args: vec![proto::LinuxSeccompArg { index: 1, value: 2, value_two: 3, op: "SCMP_CMP_EQ".into() }],
    };
    let policy = proto::LinuxSeccomp {
        default_action: "SCMP_ACT_ALLOW".into(),
        architectures: vec!["SCMP_ARCH_X86_64".into()],
        syscalls: vec![rule],
        ..Default::default()
    };
    let spec = adjusted(linux(LinuxContainerAdjustment {
        cgroups_path: "/mine".into(),
        oom_score_adj: Some(proto::OptionalInt { value: -5 }),
        io_priority: Some(proto::LinuxIoPriority { class: 2, priority: 4 }),
        scheduler: Some(proto::LinuxScheduler { policy: 4, nice: 3, flags: vec![0], ..Default::default() }),
        memory_policy: Some(proto::LinuxMemoryPolicy { mode: 2, nodes: "0".into(), flags: vec![0] }),
        seccomp_policy: Some(policy),
        net_devices: [("eth9".to_owned(), proto::LinuxNetDevice { name: "eth0".into() })].into(),
        ..Default::default()
    }));
    let (process, linux) = (spec.process.unwrap(), spec.linux.unwrap());
    assert_eq!(process.oom_score_adj, Some(-5));
    assert_eq!(process.io_priority, Some(IoPriority { class: "IOPRIO_CLASS_BE".into(), priority: 4 }));
    let scheduler = process.scheduler.unwrap();
    assert_eq!((scheduler.policy.as_str(), scheduler.nice), ("SCHED_BATCH", 3));
    assert_eq!(scheduler.flags, ["SCHED_FLAG_RESET_ON_FORK"]);
    let memory = linux.memory_policy.unwrap();
    assert_eq!((memory.mode.as_str(), memory.flags), ("MPOL_BIND", vec!["MPOL_F_STATIC_NODES".to_owned()]));
    assert_eq!(linux.cgroups_path, "/mine");
    assert_eq!(linux.net_devices["eth9"].name, "eth0");
    let seccomp = linux.seccomp.unwrap();
    assert_eq!(seccomp.syscalls[0].errno_ret, Some(13));
    assert_eq!(seccomp.syscalls[0].args[0].value_two, 3);
}

#[test]
fn a_number_without_a_name_is_refused() {
    let priority = Some(proto::LinuxIoPriority { class: 77, priority: 0 });
    let asked = linux(LinuxContainerAdjustment { io_priority: priority, ..Default::default() });
    let refused = ApplyError::Number { what: "the I/O priority class", number: 77 };
    assert_eq!(apply(&mut spec(), &asked), Err(refused));
}

#[test]
fn rdt_is_removed_before_it_is_set() {
    let mut spec = spec();
    spec.linux.as_mut().unwrap().intel_rdt =
        Some(IntelRdt { mem_bw_schema: "MB:0=20".into(), ..IntelRdt::default() });
    let rdt = proto::LinuxRdt {
        remove: true,
        schemata: Some(proto::OptionalRepeatedString { value: vec!["L3:0=f".into()] }),
        enable_monitoring: Some(proto::OptionalBool { value: true }),
        ..Default::default()
    };
    apply(&mut spec, &linux(LinuxContainerAdjustment { rdt: Some(rdt), ..Default::default() })).unwrap();
    let expected =
        IntelRdt { schemata: vec!["L3:0=f".into()], enable_monitoring: true, ..IntelRdt::default() };
    assert_eq!(spec.linux.unwrap().intel_rdt, Some(expected));
}
