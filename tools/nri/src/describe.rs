//! The other way round: what plugins are shown of a runtime's document.

use berth_oci::runtime::{Hook, Hooks, Linux, NamespaceKind, Process, Resources, Seccomp, Spec};

use crate::proto;

/// What a container's document says of it. The caller adds what no document has: ids, name, labels, the pod's
/// annotations, state and times, the CDI devices asked for and the seccomp profile by name.
pub fn describe(spec: &Spec) -> proto::Container {
    let none = Process::default();
    let process = spec.process.as_ref().unwrap_or(&none);
    let mount = |mount: &berth_oci::runtime::Mount| proto::Mount {
        destination: mount.destination.clone(),
        r#type: mount.kind.clone(),
        source: mount.source.clone(),
        options: mount.options.clone(),
    };
    let limit = |limit: &berth_oci::runtime::Rlimit| proto::PosixRlimit {
        r#type: limit.kind.clone(),
        hard: limit.hard,
        soft: limit.soft,
    };
    proto::Container {
        annotations: spec.annotations.clone(),
        args: process.args.clone(),
        env: process.env.clone(),
        mounts: spec.mounts.iter().map(mount).collect(),
        hooks: spec.hooks.as_ref().map(hooks),
        linux: spec.linux.as_ref().map(|part| linux(part, process)),
        rlimits: process.rlimits.iter().map(limit).collect(),
        user: Some(proto::User {
            uid: process.user.uid,
            gid: process.user.gid,
            additional_gids: process.user.additional_gids.clone(),
        }),
        ..proto::Container::default()
    }
}

fn hooks(hooks: &Hooks) -> proto::Hooks {
    let Hooks { prestart, create_runtime, create_container, start_container, poststart, poststop } = hooks;
    let all = |hooks: &[Hook]| hooks.iter().map(hook).collect();
    proto::Hooks {
        prestart: all(prestart),
        create_runtime: all(create_runtime),
        create_container: all(create_container),
        start_container: all(start_container),
        poststart: all(poststart),
        poststop: all(poststop),
    }
}

fn hook(hook: &Hook) -> proto::Hook {
    let Hook { path, args, env, timeout } = hook.clone();
    proto::Hook { path, args, env, timeout: timeout.map(|value| proto::OptionalInt { value }) }
}

fn linux(linux: &Linux, process: &Process) -> proto::LinuxContainer {
    let device = |device: &berth_oci::runtime::Device| proto::LinuxDevice {
        path: device.path.clone(),
        r#type: device.kind.clone(),
        major: device.major,
        minor: device.minor,
        file_mode: device.file_mode.map(|value| proto::OptionalFileMode { value }),
        uid: device.uid.map(|value| proto::OptionalUInt32 { value }),
        gid: device.gid.map(|value| proto::OptionalUInt32 { value }),
    };
    let net_devices = linux.net_devices.iter();
    proto::LinuxContainer {
        namespaces: describe_namespaces(linux),
        devices: linux.devices.iter().map(device).collect(),
        resources: linux.resources.as_ref().map(describe_resources),
        oom_score_adj: process.oom_score_adj.map(|value| proto::OptionalInt { value: value.into() }),
        cgroups_path: linux.cgroups_path.clone(),
        io_priority: process.io_priority.as_ref().map(|priority| proto::LinuxIoPriority {
            class: proto::IoPrioClass::from_str_name(&priority.class).unwrap_or_default().into(),
            priority: priority.priority,
        }),
        seccomp_profile: None,
        seccomp_policy: linux.seccomp.as_ref().map(seccomp),
        sysctl: linux.sysctl.clone(),
        net_devices: net_devices
            .map(|(host, device)| (host.clone(), proto::LinuxNetDevice { name: device.name.clone() }))
            .collect(),
        scheduler: process.scheduler.as_ref().map(scheduler),
        rdt: linux.intel_rdt.as_ref().map(|rdt| proto::LinuxRdt {
            clos_id: Some(proto::OptionalString { value: rdt.clos_id.clone() }),
            schemata: Some(proto::OptionalRepeatedString { value: rdt.schemata.clone() }),
            enable_monitoring: Some(proto::OptionalBool { value: rdt.enable_monitoring }),
            remove: false,
        }),
    }
}

/// The namespaces of a container's or a pod's document.
pub fn describe_namespaces(linux: &Linux) -> Vec<proto::LinuxNamespace> {
    let one = |namespace: &berth_oci::runtime::Namespace| proto::LinuxNamespace {
        r#type: kind(&namespace.kind).to_owned(),
        path: namespace.path.clone(),
    };
    linux.namespaces.iter().map(one).collect()
}

fn kind(kind: &NamespaceKind) -> &str {
    match kind {
        NamespaceKind::Pid => "pid",
        NamespaceKind::Network => "network",
        NamespaceKind::Mount => "mount",
        NamespaceKind::Ipc => "ipc",
        NamespaceKind::Uts => "uts",
        NamespaceKind::User => "user",
        NamespaceKind::Cgroup => "cgroup",
        NamespaceKind::Time => "time",
        NamespaceKind::Other(other) => other,
    }
}

/// Resources, as plugins know them.
pub fn describe_resources(resources: &Resources) -> proto::LinuxResources {
    let int = |value: Option<i64>| value.map(|value| proto::OptionalInt64 { value });
    let count = |value: Option<u64>| value.map(|value| proto::OptionalUInt64 { value });
    let flag = |value: Option<bool>| value.map(|value| proto::OptionalBool { value });
    let page = |limit: &berth_oci::runtime::HugepageLimit| proto::HugepageLimit {
        page_size: limit.page_size.clone(),
        limit: limit.limit,
    };
    let rule = |rule: &berth_oci::runtime::DeviceRule| proto::LinuxDeviceCgroup {
        allow: rule.allow,
        r#type: rule.kind.clone(),
        major: int(rule.major),
        minor: int(rule.minor),
        access: rule.access.clone(),
    };
    proto::LinuxResources {
        memory: resources.memory.as_ref().map(|memory| proto::LinuxMemory {
            limit: int(memory.limit),
            reservation: int(memory.reservation),
            swap: int(memory.swap),
            kernel: int(memory.kernel),
            kernel_tcp: int(memory.kernel_tcp),
            swappiness: count(memory.swappiness),
            disable_oom_killer: flag(memory.disable_oom_killer),
            use_hierarchy: flag(memory.use_hierarchy),
        }),
        cpu: resources.cpu.as_ref().map(|cpu| proto::LinuxCpu {
            shares: count(cpu.shares),
            quota: int(cpu.quota),
            period: count(cpu.period),
            realtime_runtime: int(cpu.realtime_runtime),
            realtime_period: count(cpu.realtime_period),
            cpus: cpu.cpus.clone(),
            mems: cpu.mems.clone(),
        }),
        hugepage_limits: resources.hugepage_limits.iter().map(page).collect(),
        blockio_class: None,
        rdt_class: None,
        unified: resources.unified.clone(),
        devices: resources.devices.iter().map(rule).collect(),
        pids: resources.pids.as_ref().map(|pids| proto::LinuxPids { limit: pids.limit.unwrap_or_default() }),
    }
}

fn scheduler(scheduler: &berth_oci::runtime::Scheduler) -> proto::LinuxScheduler {
    let flag = |name: &String| proto::LinuxSchedulerFlag::from_str_name(name).map(i32::from);
    proto::LinuxScheduler {
        policy: proto::LinuxSchedulerPolicy::from_str_name(&scheduler.policy).unwrap_or_default().into(),
        nice: scheduler.nice,
        priority: scheduler.priority,
        flags: scheduler.flags.iter().filter_map(flag).collect(),
        runtime: scheduler.runtime,
        deadline: scheduler.deadline,
        period: scheduler.period,
    }
}

fn seccomp(seccomp: &Seccomp) -> proto::LinuxSeccomp {
    let argument = |argument: &berth_oci::runtime::SyscallArg| proto::LinuxSeccompArg {
        index: argument.index,
        value: argument.value,
        value_two: argument.value_two,
        op: argument.op.clone(),
    };
    let rule = |rule: &berth_oci::runtime::SyscallRule| proto::LinuxSyscall {
        names: rule.names.clone(),
        action: rule.action.clone(),
        errno_ret: rule.errno_ret.map(|value| proto::OptionalUInt32 { value }),
        args: rule.args.iter().map(argument).collect(),
    };
    proto::LinuxSeccomp {
        default_action: seccomp.default_action.clone(),
        default_errno: seccomp.default_errno_ret.map(|value| proto::OptionalUInt32 { value }),
        architectures: seccomp.architectures.clone(),
        flags: seccomp.flags.clone(),
        listener_path: seccomp.listener_path.clone(),
        listener_metadata: seccomp.listener_metadata.clone(),
        syscalls: seccomp.syscalls.iter().map(rule).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::apply;

    /// What a document is described as, asked for as an adjustment of an empty one, makes the document again.
    #[test]
    fn a_description_has_all_that_an_adjustment_can_set() {
        let text = r#"{
            "ociVersion": "", "annotations": {"a": "b"},
            "process": {"user": {"uid": 0, "gid": 0}, "cwd": "", "args": ["sh"], "env": ["A=1"], "oomScoreAdj": -3,
                "rlimits": [{"type": "RLIMIT_NOFILE", "hard": 2, "soft": 1}],
                "scheduler": {"policy": "SCHED_BATCH", "nice": 4, "flags": ["SCHED_FLAG_RECLAIM"]},
                "ioPriority": {"class": "IOPRIO_CLASS_IDLE", "priority": 2}},
            "mounts": [{"destination": "/data", "type": "bind", "source": "/x", "options": ["ro"]}],
            "hooks": {"poststop": [{"path": "/h", "args": ["h"], "env": ["B=2"], "timeout": 3}]},
            "linux": {"sysctl": {"kernel.x": "1"}, "cgroupsPath": "/c",
                "resources": {
                    "devices": [{"allow": true, "type": "b", "major": 8, "minor": 1, "access": "rwm"}],
                    "memory": {"limit": 9, "reservation": 8, "swap": 10, "swappiness": 1, "disableOOMKiller": true},
                    "cpu": {"shares": 2, "quota": 3, "period": 4, "cpus": "0", "mems": "1"},
                    "pids": {"limit": 5}, "hugepageLimits": [{"pageSize": "2MB", "limit": 6}],
                    "unified": {"memory.high": "7"}},
                "namespaces": [{"type": "network", "path": "/run/n"}, {"type": "time"}],
                "devices": [{"path": "/dev/x", "type": "b", "major": 8, "minor": 1, "fileMode": 384, "uid": 1}],
                "netDevices": {"eth9": {"name": "eth0"}},
                "intelRdt": {"closID": "gold", "schemata": ["L3:0=f"], "enableMonitoring": true},
                "seccomp": {"defaultAction": "SCMP_ACT_ERRNO", "defaultErrnoRet": 1,
                    "architectures": ["SCMP_ARCH_X86_64"],
                    "syscalls": [{"names": ["read"], "action": "SCMP_ACT_ALLOW",
                        "args": [{"index": 1, "value": 2, "op": "SCMP_CMP_EQ"}]}]}}}"#;
        let document = Spec::from_slice(text.as_bytes()).unwrap();
        let proto::Container { annotations, args, env, mounts, hooks, linux, rlimits, .. } =
            describe(&document);
        let linux = linux.unwrap();
        let variable = |line: &String| {
            let (key, value) = line.split_once('=').unwrap();
            proto::KeyValue { key: key.to_owned(), value: value.to_owned() }
        };
        let adjustment = proto::ContainerAdjustment {
            annotations,
            mounts,
            env: env.iter().map(variable).collect(),
            hooks,
            linux: Some(proto::LinuxContainerAdjustment {
                devices: linux.devices,
                resources: linux.resources,
                cgroups_path: linux.cgroups_path,
                oom_score_adj: linux.oom_score_adj,
                io_priority: linux.io_priority,
                seccomp_policy: linux.seccomp_policy,
                namespaces: linux.namespaces,
                sysctl: linux.sysctl,
                net_devices: linux.net_devices,
                scheduler: linux.scheduler,
                rdt: linux.rdt,
                memory_policy: None,
            }),
            rlimits,
            cdi_devices: Vec::new(),
            args,
        };
        let mut made = Spec::default();
        apply(&mut made, &adjustment).unwrap();
        assert_eq!(made, document);
    }
}
