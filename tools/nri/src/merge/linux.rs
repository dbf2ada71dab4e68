//! The part of an adjustment that only Linux has.

use super::{MergeError, entries, removal, resources};
use crate::owners::{Claim, Owners};
use crate::proto::{
    Container, ContainerAdjustment, Field, LinuxContainer, LinuxContainerAdjustment, LinuxNamespace, LinuxRdt,
};

pub(super) fn merge(
    owners: &mut Owners,
    by: Claim<'_>,
    asked: LinuxContainerAdjustment,
    adjustment: &mut ContainerAdjustment,
    seen: &mut Container,
) -> Result<(), MergeError> {
    let LinuxContainerAdjustment {
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
    let (into, seen) = (adjustment.linux.get_or_insert_default(), seen.linux.get_or_insert_default());

    let wishes = entries::list(owners, by, Field::Devices, devices, &mut into.devices)?;
    seen.devices.retain(|device| !wishes.names.contains(&device.path));
    seen.devices.extend(wishes.set);
    if let Some(asked) = asked_resources {
        let (to, shown) = (into.resources.get_or_insert_default(), seen.resources.get_or_insert_default());
        resources::merge(owners, by, &asked, &mut [to, shown])?;
    }
    if !cgroups_path.is_empty() {
        owners.claim(by, Field::CgroupsPath)?;
        seen.cgroups_path.clone_from(&cgroups_path);
        into.cgroups_path = cgroups_path;
    }
    if let Some(score) = oom_score_adj {
        owners.claim(by, Field::OomScoreAdj)?;
        (into.oom_score_adj, seen.oom_score_adj) = (Some(score), Some(score));
    }
    if let Some(priority) = io_priority {
        owners.claim(by, Field::IoPriority)?;
        (into.io_priority, seen.io_priority) = (Some(priority), Some(priority));
    }
    if let Some(policy) = seccomp_policy {
        owners.claim(by, Field::SeccompPolicy)?;
        seen.seccomp_policy = Some(policy.clone());
        into.seccomp_policy = Some(policy);
    }
    merge_namespaces(owners, by, namespaces, into, seen)?;
    entries::map(owners, by, Field::Sysctl, sysctl, &mut into.sysctl, &mut seen.sysctl)?;
    let field = Field::LinuxNetDevices;
    entries::map(owners, by, field, net_devices, &mut into.net_devices, &mut seen.net_devices)?;
    if let Some(scheduler) = scheduler {
        owners.claim(by, Field::LinuxSched)?;
        seen.scheduler = Some(scheduler.clone());
        into.scheduler = Some(scheduler);
    }
    if let Some(rdt) = rdt {
        merge_rdt(owners, by, rdt, into, seen)?;
    }
    if let Some(policy) = memory_policy {
        owners.claim(by, Field::MemoryPolicy)?;
        into.memory_policy = Some(policy);
    }
    Ok(())
}

/// A namespace belongs to the plugin that sets or removes it: there is no taking over.
fn merge_namespaces(
    owners: &mut Owners,
    by: Claim<'_>,
    asked: Vec<LinuxNamespace>,
    into: &mut LinuxContainerAdjustment,
    seen: &mut LinuxContainer,
) -> Result<(), MergeError> {
    for namespace in asked {
        let removed = removal(&namespace.r#type);
        let kind = removed.unwrap_or(&namespace.r#type).to_owned();
        owners.claim_entry(by, Field::Namespace, &kind)?;
        seen.namespaces.retain(|other| other.r#type != kind);
        if removed.is_none() {
            seen.namespaces.push(namespace.clone());
        }
        into.namespaces.push(namespace);
    }
    Ok(())
}

fn merge_rdt(
    owners: &mut Owners,
    by: Claim<'_>,
    asked: LinuxRdt,
    into: &mut LinuxContainerAdjustment,
    seen: &mut LinuxContainer,
) -> Result<(), MergeError> {
    let LinuxRdt { clos_id, schemata, enable_monitoring, remove } = asked;
    if remove {
        for field in [Field::RdtClosId, Field::RdtSchemata, Field::RdtEnableMonitoring] {
            owners.clear(by, field);
        }
        (into.rdt, seen.rdt) = (Some(LinuxRdt { remove: true, ..LinuxRdt::default() }), None);
    }
    if let Some(id) = clos_id {
        owners.claim(by, Field::RdtClosId)?;
        seen.rdt.get_or_insert_default().clos_id = Some(id.clone());
        into.rdt.get_or_insert_default().clos_id = Some(id);
    }
    if let Some(lines) = schemata {
        owners.claim(by, Field::RdtSchemata)?;
        seen.rdt.get_or_insert_default().schemata = Some(lines.clone());
        into.rdt.get_or_insert_default().schemata = Some(lines);
    }
    if let Some(monitoring) = enable_monitoring {
        owners.claim(by, Field::RdtEnableMonitoring)?;
        seen.rdt.get_or_insert_default().enable_monitoring = Some(monitoring);
        into.rdt.get_or_insert_default().enable_monitoring = Some(monitoring);
    }
    Ok(())
}
