//! Directories and limits of cgroup v2.

use std::fs;
use std::io;
use std::path::Path;

use berth_oci::runtime::{BlockIo, Cpu, Memory, Resources};

use super::{devices, file, v1, values};
use crate::error::{Error, Result};

/// Makes the container's directory, with the controllers enabled on the way to it. `hybrid`: the
/// controllers are v1's, none can be enabled.
pub(super) fn make(own: &Path, hybrid: bool) -> io::Result<()> {
    match fs::create_dir(own) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => fs::create_dir_all(own)?,
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {}
        done => done?,
    }
    if hybrid { Ok(()) } else { enable(own) }
}

fn enable(own: &Path) -> io::Result<()> {
    let root = Path::new("/sys/fs/cgroup");
    let mut ancestors: Vec<&Path> = own.ancestors().skip(1).take_while(|a| a.starts_with(root)).collect();
    ancestors.reverse();
    for directory in ancestors {
        let available = fs::read_to_string(directory.join("cgroup.controllers"))?;
        let enabled = fs::read_to_string(directory.join("cgroup.subtree_control"))?;
        for controller in available.split_whitespace() {
            if !enabled.split_whitespace().any(|e| e == controller) {
                // One by one, and what is refused (cpu with real-time tasks, say) is only missed when a
                // limit needs it.
                let _ = file::attempt(directory, "cgroup.subtree_control", &format!("+{controller}"));
            }
        }
    }
    Ok(())
}

/// Sets what is given.
pub(super) fn apply(own: &Path, resources: &Resources, warnings: &mut Vec<String>) -> Result<()> {
    if let Some(limit) = resources.pids.as_ref().and_then(|p| p.limit).filter(|l| *l != 0) {
        file::write(own, "pids.max", &if limit > 0 { limit.to_string() } else { "max".into() })?;
    }
    if let Some(memory) = &resources.memory {
        set_memory(own, memory, warnings)?;
    }
    if let Some(io) = &resources.block_io {
        set_io(own, io, warnings)?;
    }
    if let Some(cpu) = &resources.cpu {
        set_cpu(own, cpu)?;
    }
    if !resources.devices.is_empty() {
        devices::attach(own, &resources.devices)?;
    }
    for huge in &resources.hugepage_limits {
        file::write(own, &format!("hugetlb.{}.max", huge.page_size), &huge.limit.to_string())?;
        let reserved = format!("hugetlb.{}.rsvd.max", huge.page_size);
        if own.join(&reserved).exists() {
            file::write(own, &reserved, &huge.limit.to_string())?;
        }
    }
    for (device, limits) in &resources.rdma {
        file::write(own, "rdma.max", &v1::rdma(device, limits.hca_handles, limits.hca_objects))?;
    }
    if resources.network.is_some() {
        warnings.push("network classes and priorities do not exist on cgroup v2: ignored".into());
    }
    for (name, value) in &resources.unified {
        if name.contains('/') || name == ".." || name == "." {
            let what = format!("unified resource {name:?} must be a file name (no slashes)");
            return Err(Error::Config { what });
        }
        for line in value.lines() {
            file::write(own, name, line)?;
        }
    }
    Ok(())
}

fn set_memory(own: &Path, memory: &Memory, warnings: &mut Vec<String>) -> Result<()> {
    let limit = memory.limit.filter(|l| *l != 0);
    if memory.check_before_update == Some(true)
        && let Some(limit) = limit.filter(|l| *l > 0)
    {
        let usage = file::number(own, "memory.current");
        if limit as u64 <= usage {
            let what =
                format!("rejecting memory limit {limit} since current usage {usage} is already higher");
            return Err(Error::Config { what });
        }
    }
    let swap = values::swap(memory.swap.unwrap_or(0), memory.limit).map_err(|what| Error::Config { what })?;
    // As on v1, unlimited memory takes its swap along.
    let swap = swap.or_else(|| (limit == Some(-1)).then(|| "max".to_owned()));
    if let Some(swap) = swap {
        match file::attempt(own, "memory.swap.max", &swap) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => {
                if swap != "0" && swap != "max" {
                    warnings.push("the kernel does not account swap: the swap limit is ignored".into());
                }
            }
            _ => file::write(own, "memory.swap.max", &swap)?,
        }
    }
    if let Some(limit) = limit {
        file::write(own, "memory.max", &values::limit(limit))?;
    }
    if let Some(reservation) = memory.reservation.filter(|r| *r != 0) {
        file::write(own, "memory.low", &values::limit(reservation))?;
    }
    if memory.disable_oom_killer == Some(true) || memory.swappiness.is_some() {
        warnings.push("swappiness and disableOOMKiller do not exist on cgroup v2: ignored".into());
    }
    Ok(())
}

fn set_cpu(own: &Path, cpu: &Cpu) -> Result<()> {
    if let Some(idle) = cpu.idle {
        file::write(own, "cpu.idle", &idle.to_string())?;
    }
    // An idle cgroup has no weight.
    let weight = cpu.shares.map_or(0, values::weight_of_shares);
    if weight != 0 && cpu.idle != Some(1) {
        file::write(own, "cpu.weight", &weight.to_string())?;
    }
    if let Some(max) = values::cpu_max(cpu.quota, cpu.period) {
        if cpu.burst.is_some() {
            // An earlier burst above the new quota would be refused.
            let _ = file::attempt(own, "cpu.max.burst", "0");
        }
        file::write(own, "cpu.max", &max)?;
    }
    if let Some(burst) = cpu.burst {
        file::write(own, "cpu.max.burst", &burst.to_string())?;
    }
    for (name, value) in [("cpuset.cpus", &cpu.cpus), ("cpuset.mems", &cpu.mems)] {
        if !value.is_empty() {
            file::write(own, name, value)?;
        }
    }
    Ok(())
}

fn set_io(own: &Path, io: &BlockIo, warnings: &mut Vec<String>) -> Result<()> {
    if let Some(weight) = io.weight.filter(|w| *w != 0) {
        if own.join("io.bfq.weight").exists() {
            file::write(own, "io.bfq.weight", &weight.to_string())?;
        } else if own.join("io.weight").exists() {
            file::write(own, "io.weight", &format!("default {}", values::io_weight(weight)))?;
        } else {
            warnings.push("no I/O scheduler here has weights: blockIO.weight is ignored".into());
        }
    }
    for device in &io.weight_device {
        if let Some(weight) = device.weight.filter(|w| *w != 0) {
            let line = format!("{}:{} {weight}", device.major, device.minor);
            if own.join("io.bfq.weight").exists() {
                file::write(own, "io.bfq.weight", &line)?;
            } else {
                warnings.push("no I/O scheduler here has weights by device: ignored".into());
            }
        }
    }
    let tables = [
        ("rbps", &io.throttle_read_bps_device),
        ("wbps", &io.throttle_write_bps_device),
        ("riops", &io.throttle_read_iops_device),
        ("wiops", &io.throttle_write_iops_device),
    ];
    for (key, devices) in tables {
        for device in devices {
            let rate = if device.rate == 0 { "max".to_owned() } else { device.rate.to_string() };
            file::write(own, "io.max", &format!("{}:{} {key}={rate}", device.major, device.minor))?;
        }
    }
    Ok(())
}
