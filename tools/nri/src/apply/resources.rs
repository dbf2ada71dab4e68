//! What a cgroup allows.

use berth_oci::runtime::{Cpu, DeviceRule, HugepageLimit, Memory, Pids, Resources};

use crate::proto;

/// Sets what is asked for; what is not stays as it is. Also for the resources of an update.
pub fn apply(into: &mut Resources, asked: &proto::LinuxResources) {
    let proto::LinuxResources {
        memory,
        cpu,
        hugepage_limits,
        blockio_class: _,
        rdt_class: _,
        unified,
        devices,
        pids,
    } = asked;
    if let Some(asked) = memory {
        apply_memory(&mut into.memory, asked);
    }
    if let Some(asked) = cpu {
        apply_cpu(&mut into.cpu, asked);
    }
    for proto::HugepageLimit { page_size, limit } in hugepage_limits {
        into.hugepage_limits.retain(|other| other.page_size != *page_size);
        into.hugepage_limits.push(HugepageLimit { page_size: page_size.clone(), limit: *limit });
    }
    into.unified.extend(unified.clone());
    for proto::LinuxDeviceCgroup { allow, r#type, major, minor, access } in devices {
        let (major, minor) = (major.map(|number| number.value), minor.map(|number| number.value));
        rule(&mut into.devices, *allow, r#type, major, minor, access);
    }
    if let Some(pids) = pids {
        into.pids = Some(Pids { limit: Some(pids.limit) });
    }
}

/// Sets the rule for a device, in the place of one that it has.
pub(super) fn rule(
    rules: &mut Vec<DeviceRule>,
    allow: bool,
    kind: &str,
    major: Option<i64>,
    minor: Option<i64>,
    access: &str,
) {
    let rule = DeviceRule { allow, kind: kind.to_owned(), major, minor, access: access.to_owned() };
    let same = |other: &&mut DeviceRule| {
        major.is_some() && (&other.kind, other.major, other.minor) == (&rule.kind, major, minor)
    };
    match rules.iter_mut().find(same) {
        Some(other) => *other = rule,
        None => rules.push(rule),
    }
}

/// A limit of memory is one of memory and swap too, as containerd has it, unless that is asked for by itself.
fn apply_memory(into: &mut Option<Memory>, asked: &proto::LinuxMemory) {
    if *asked == proto::LinuxMemory::default() {
        return;
    }
    let into = into.get_or_insert_default();
    if let Some(limit) = asked.limit.filter(|limit| limit.value != 0) {
        (into.limit, into.swap) = (Some(limit.value), Some(limit.value));
    }
    set(&mut into.swap, asked.swap.map(|swap| swap.value));
    set(&mut into.reservation, asked.reservation.map(|limit| limit.value));
    set(&mut into.kernel, asked.kernel.map(|limit| limit.value));
    set(&mut into.kernel_tcp, asked.kernel_tcp.map(|limit| limit.value));
    set(&mut into.swappiness, asked.swappiness.map(|value| value.value));
    set(&mut into.disable_oom_killer, asked.disable_oom_killer.map(|value| value.value));
    set(&mut into.use_hierarchy, asked.use_hierarchy.map(|value| value.value));
}

fn apply_cpu(into: &mut Option<Cpu>, asked: &proto::LinuxCpu) {
    if *asked == proto::LinuxCpu::default() {
        return;
    }
    let into = into.get_or_insert_default();
    set(&mut into.shares, asked.shares.map(|value| value.value));
    set(&mut into.quota, asked.quota.map(|value| value.value));
    set(&mut into.period, asked.period.map(|value| value.value));
    set(&mut into.realtime_runtime, asked.realtime_runtime.map(|value| value.value));
    set(&mut into.realtime_period, asked.realtime_period.map(|value| value.value));
    if !asked.cpus.is_empty() {
        into.cpus.clone_from(&asked.cpus);
    }
    if !asked.mems.is_empty() {
        into.mems.clone_from(&asked.mems);
    }
}

fn set<T>(field: &mut Option<T>, asked: Option<T>) {
    if asked.is_some() {
        *field = asked;
    }
}
