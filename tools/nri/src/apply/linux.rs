//! What only Linux has.

use berth_oci::runtime::{
    Device, IntelRdt, IoPriority, Linux, MemoryPolicy, Namespace, NamespaceKind, NetDevice, Process,
    Scheduler, Seccomp, Spec, SyscallArg, SyscallRule,
};

use super::{ApplyError, change, resources};
use crate::merge::removal;
use crate::proto;

pub(super) fn apply(spec: &mut Spec, asked: &proto::LinuxContainerAdjustment) -> Result<(), ApplyError> {
    let proto::LinuxContainerAdjustment {
        devices,
        resources: asked_resources,
        cgroups_path,
        oom_score_adj,
        io_priority,
        seccomp_policy,
        namespaces,
        sysctl,
        net_devices,
        scheduler,
        rdt,
        memory_policy,
    } = asked;
    let linux = spec.linux.get_or_insert_default();
    apply_devices(linux, devices);
    if !cgroups_path.is_empty() {
        linux.cgroups_path.clone_from(cgroups_path);
    }
    if let Some(policy) = seccomp_policy {
        linux.seccomp = Some(seccomp(policy));
    }
    apply_namespaces(linux, namespaces)?;
    change(&mut linux.sysctl, sysctl, Clone::clone);
    change(&mut linux.net_devices, net_devices, |device| NetDevice { name: device.name.clone() });
    if let Some(policy) = memory_policy {
        linux.memory_policy = Some(self::memory_policy(policy)?);
    }
    if let Some(asked) = asked_resources {
        if let Some(class) = asked.blockio_class.as_ref().filter(|class| !class.value.is_empty()) {
            return Err(ApplyError::BlockIo(class.value.clone()));
        }
        resources::apply(linux.resources.get_or_insert_default(), asked);
        if let Some(class) = &asked.rdt_class {
            // A class of RDT is a class of service that the machine has already.
            let named = IntelRdt { clos_id: class.value.clone(), ..IntelRdt::default() };
            linux.intel_rdt = (!class.value.is_empty()).then_some(named);
        }
    }
    if let Some(rdt) = rdt {
        apply_rdt(linux, rdt);
    }
    apply_process(&mut spec.process, *oom_score_adj, *io_priority, scheduler.as_ref())
}

fn apply_process(
    process: &mut Option<Process>,
    oom_score_adj: Option<proto::OptionalInt>,
    io_priority: Option<proto::LinuxIoPriority>,
    scheduler: Option<&proto::LinuxScheduler>,
) -> Result<(), ApplyError> {
    if oom_score_adj.is_none() && io_priority.is_none() && scheduler.is_none() {
        return Ok(());
    }
    let process = process.get_or_insert_default();
    if let Some(score) = oom_score_adj {
        let score = score.value.clamp(i64::from(i32::MIN), i64::from(i32::MAX));
        process.oom_score_adj = Some(score as i32);
    }
    if let Some(proto::LinuxIoPriority { class, priority }) = io_priority {
        let class = known("the I/O priority class", class, proto::IoPrioClass::try_from(class))?;
        let set = class != proto::IoPrioClass::IoprioClassNone;
        process.io_priority = set.then(|| IoPriority { class: class.as_str_name().to_owned(), priority });
    }
    if let Some(asked) = scheduler {
        process.scheduler = self::scheduler(asked)?;
    }
    Ok(())
}

/// A number of an enumeration, if this version knows it.
fn known<T, E>(what: &'static str, number: i32, parsed: Result<T, E>) -> Result<T, ApplyError> {
    parsed.map_err(|_| ApplyError::Number { what, number })
}

fn scheduler(asked: &proto::LinuxScheduler) -> Result<Option<Scheduler>, ApplyError> {
    let proto::LinuxScheduler { policy, nice, priority, flags, runtime, deadline, period } = asked;
    let policy = known("the scheduling policy", *policy, proto::LinuxSchedulerPolicy::try_from(*policy))?;
    if policy == proto::LinuxSchedulerPolicy::SchedNone {
        return Ok(None);
    }
    let flag = |&number: &i32| {
        let flag = known("the scheduling flag", number, proto::LinuxSchedulerFlag::try_from(number))?;
        Ok(flag.as_str_name().to_owned())
    };
    Ok(Some(Scheduler {
        policy: policy.as_str_name().to_owned(),
        nice: *nice,
        priority: *priority,
        flags: flags.iter().map(flag).collect::<Result<_, _>>()?,
        runtime: *runtime,
        deadline: *deadline,
        period: *period,
    }))
}

fn memory_policy(asked: &proto::LinuxMemoryPolicy) -> Result<MemoryPolicy, ApplyError> {
    let proto::LinuxMemoryPolicy { mode, nodes, flags } = asked;
    let mode = known("the memory policy", *mode, proto::MpolMode::try_from(*mode))?;
    let flag = |&number: &i32| {
        let flag = known("the memory policy's flag", number, proto::MpolFlag::try_from(number))?;
        Ok(flag.as_str_name().to_owned())
    };
    let flags = flags.iter().map(flag).collect::<Result<_, _>>()?;
    Ok(MemoryPolicy { mode: mode.as_str_name().to_owned(), nodes: nodes.clone(), flags })
}

/// A device that is added may be used too.
fn apply_devices(linux: &mut Linux, asked: &[proto::LinuxDevice]) {
    for device in asked {
        let proto::LinuxDevice { path, r#type, major, minor, file_mode, uid, gid } = device;
        let target = removal(path).unwrap_or(path);
        linux.devices.retain(|other| other.path != target);
        if removal(path).is_some() {
            continue;
        }
        linux.devices.push(Device {
            path: path.clone(),
            kind: r#type.clone(),
            major: *major,
            minor: *minor,
            file_mode: file_mode.map(|mode| mode.value),
            uid: uid.map(|id| id.value),
            gid: gid.map(|id| id.value),
        });
        let access = if r#type == "b" { "rwm" } else { "rw" };
        let rules = &mut linux.resources.get_or_insert_default().devices;
        resources::rule(rules, true, r#type, Some(*major), Some(*minor), access);
    }
}

fn apply_namespaces(linux: &mut Linux, asked: &[proto::LinuxNamespace]) -> Result<(), ApplyError> {
    for proto::LinuxNamespace { r#type, path } in asked {
        let kind = namespace(removal(r#type).unwrap_or(r#type))?;
        linux.namespaces.retain(|other| other.kind != kind);
        if removal(r#type).is_none() {
            linux.namespaces.push(Namespace { kind, path: path.clone() });
        }
    }
    Ok(())
}

fn namespace(kind: &str) -> Result<NamespaceKind, ApplyError> {
    Ok(match kind {
        "pid" => NamespaceKind::Pid,
        "network" => NamespaceKind::Network,
        "mount" => NamespaceKind::Mount,
        "ipc" => NamespaceKind::Ipc,
        "uts" => NamespaceKind::Uts,
        "user" => NamespaceKind::User,
        "cgroup" => NamespaceKind::Cgroup,
        "time" => NamespaceKind::Time,
        other => return Err(ApplyError::Namespace(other.to_owned())),
    })
}

fn apply_rdt(linux: &mut Linux, asked: &proto::LinuxRdt) {
    let proto::LinuxRdt { clos_id, schemata, enable_monitoring, remove } = asked;
    if *remove {
        linux.intel_rdt = None;
    }
    if let Some(id) = clos_id {
        linux.intel_rdt.get_or_insert_default().clos_id.clone_from(&id.value);
    }
    if let Some(lines) = schemata {
        linux.intel_rdt.get_or_insert_default().schemata.clone_from(&lines.value);
    }
    if let Some(monitoring) = enable_monitoring {
        linux.intel_rdt.get_or_insert_default().enable_monitoring = monitoring.value;
    }
}

fn seccomp(policy: &proto::LinuxSeccomp) -> Seccomp {
    Seccomp {
        default_action: policy.default_action.clone(),
        default_errno_ret: policy.default_errno.map(|errno| errno.value),
        architectures: policy.architectures.clone(),
        flags: policy.flags.clone(),
        listener_path: policy.listener_path.clone(),
        listener_metadata: policy.listener_metadata.clone(),
        syscalls: policy.syscalls.iter().map(syscall).collect(),
    }
}

fn syscall(rule: &proto::LinuxSyscall) -> SyscallRule {
    let argument = |argument: &proto::LinuxSeccompArg| SyscallArg {
        index: argument.index,
        value: argument.value,
        value_two: argument.value_two,
        op: argument.op.clone(),
    };
    SyscallRule {
        names: rule.names.clone(),
        action: rule.action.clone(),
        errno_ret: rule.errno_ret.map(|errno| errno.value),
        args: rule.args.iter().map(argument).collect(),
    }
}
