//! Resources, of a container that is being made and of one that is updated.

use crate::owners::{Claim, Conflict, Owners};
use crate::proto::{Field, LinuxCpu, LinuxMemory, LinuxResources};

/// Sets what the plugin asks for in each of `into`, the first of which decides nothing that the others do not.
pub(super) fn merge(
    owners: &mut Owners,
    by: Claim<'_>,
    asked: &LinuxResources,
    into: &mut [&mut LinuxResources],
) -> Result<(), Conflict> {
    let LinuxResources {
        memory: asked_memory,
        cpu: asked_cpu,
        hugepage_limits,
        blockio_class,
        rdt_class,
        unified,
        devices,
        pids,
    } = asked;
    if let Some(asked) = asked_memory {
        memory(owners, by, asked, into)?;
    }
    if let Some(asked) = asked_cpu {
        cpu(owners, by, asked, into)?;
    }
    for limit in hugepage_limits {
        owners.claim_entry(by, Field::HugepageLimits, &limit.page_size)?;
        for into in &mut *into {
            into.hugepage_limits.retain(|other| other.page_size != limit.page_size);
            into.hugepage_limits.push(limit.clone());
        }
    }
    for (file, value) in unified {
        owners.claim_entry(by, Field::CgroupsUnified, file)?;
        for into in &mut *into {
            into.unified.insert(file.clone(), value.clone());
        }
    }
    for into in &mut *into {
        into.devices.extend(devices.iter().cloned());
    }
    if let Some(class) = blockio_class {
        owners.claim(by, Field::BlockioClass)?;
        into.iter_mut().for_each(|into| into.blockio_class = Some(class.clone()));
    }
    if let Some(class) = rdt_class {
        owners.claim(by, Field::RdtClass)?;
        into.iter_mut().for_each(|into| into.rdt_class = Some(class.clone()));
    }
    if let Some(limit) = pids {
        owners.claim(by, Field::PidsLimit)?;
        into.iter_mut().for_each(|into| into.pids = Some(*limit));
    }
    Ok(())
}

/// For each field that is asked for: claims it, and sets it.
macro_rules! fields {
    ($owners:ident, $by:ident, $asked:ident, $into:ident, $part:ident, { $($field:ident => $claim:ident),* $(,)? }) => {$(
        if let Some(value) = &$asked.$field {
            $owners.claim($by, Field::$claim)?;
            for into in &mut *$into {
                into.$part.get_or_insert_default().$field = Some(*value);
            }
        }
    )*};
}

fn memory(
    owners: &mut Owners,
    by: Claim<'_>,
    asked: &LinuxMemory,
    into: &mut [&mut LinuxResources],
) -> Result<(), Conflict> {
    fields!(owners, by, asked, into, memory, {
        limit => MemLimit,
        reservation => MemReservation,
        swap => MemSwapLimit,
        kernel => MemKernelLimit,
        kernel_tcp => MemTcpLimit,
        swappiness => MemSwappiness,
        disable_oom_killer => MemDisableOomKiller,
        use_hierarchy => MemUseHierarchy,
    });
    Ok(())
}

fn cpu(
    owners: &mut Owners,
    by: Claim<'_>,
    asked: &LinuxCpu,
    into: &mut [&mut LinuxResources],
) -> Result<(), Conflict> {
    fields!(owners, by, asked, into, cpu, {
        shares => CpuShares,
        quota => CpuQuota,
        period => CpuPeriod,
        realtime_runtime => CpuRealtimeRuntime,
        realtime_period => CpuRealtimePeriod,
    });
    if !asked.cpus.is_empty() {
        owners.claim(by, Field::CpuSetCpUs)?;
        for into in &mut *into {
            into.cpu.get_or_insert_default().cpus.clone_from(&asked.cpus);
        }
    }
    if !asked.mems.is_empty() {
        owners.claim(by, Field::CpuSetMems)?;
        for into in &mut *into {
            into.cpu.get_or_insert_default().mems.clone_from(&asked.mems);
        }
    }
    Ok(())
}
