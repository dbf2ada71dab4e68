//! Directories and limits of cgroup v1.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use berth_oci::runtime::{BlockIo, Cpu, Memory, Resources};

use super::{Hierarchy, devices, file};
use crate::error::{Doing as _, Error, Result};

/// Makes the container's directory in every v1 hierarchy.
pub(super) fn make(all: &[Hierarchy]) -> Result<()> {
    for hierarchy in all.iter().filter(|h| !h.unified) {
        let cpuset = hierarchy.controllers.iter().any(|c| c == "cpuset");
        let made = if cpuset { make_cpuset(&hierarchy.own) } else { make_directory(&hierarchy.own) };
        made.doing(|| format!("cannot make cgroup {}", hierarchy.own.display()))?;
    }
    Ok(())
}

fn make_directory(path: &Path) -> io::Result<()> {
    match fs::create_dir(path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => fs::create_dir_all(path),
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        done => done,
    }
}

/// A cpuset can only be joined once it has processors and memory nodes: those of its parent.
fn make_cpuset(path: &Path) -> io::Result<()> {
    let Some(parent) = path.parent() else { return Ok(()) };
    if !parent.exists() {
        make_cpuset(parent)?;
    }
    make_directory(path)?;
    for name in ["cpuset.cpus", "cpuset.mems"] {
        if file::read(path, name).trim().is_empty() {
            let inherited = file::read(parent, name);
            if inherited.trim().is_empty() && parent.join(name).exists() && parent.parent().is_some() {
                make_cpuset(parent)?;
            }
            file::attempt(path, name, file::read(parent, name).trim())?;
        }
    }
    Ok(())
}

struct Places<'a>(&'a [Hierarchy]);

impl Places<'_> {
    /// The directory of a controller that something is to be set in.
    fn of(&self, controller: &str, what: &str) -> Result<&Path> {
        let found = self.0.iter().find(|h| h.controllers.iter().any(|c| c == controller));
        found.map(|h| h.own.as_path()).ok_or_else(|| Error::Unsupported {
            what: format!("{what} is to be set, but the cgroup controller {controller} is not mounted"),
        })
    }
}

/// Sets what is given.
pub(super) fn apply(all: &[Hierarchy], resources: &Resources, warnings: &mut Vec<String>) -> Result<()> {
    let places = Places(all);
    if !resources.devices.is_empty() {
        device_rules(places.of("devices", "a device rule")?, resources)?;
    }
    if let Some(memory) = &resources.memory {
        set_memory(&places, memory, warnings)?;
    }
    if let Some(cpu) = &resources.cpu {
        set_cpu(&places, cpu)?;
    }
    if let Some(limit) = resources.pids.as_ref().and_then(|p| p.limit).filter(|l| *l != 0) {
        let value = if limit > 0 { limit.to_string() } else { "max".into() };
        file::write(places.of("pids", "pids.limit")?, "pids.max", &value)?;
    }
    if let Some(block_io) = &resources.block_io {
        set_block_io(&places, block_io, warnings)?;
    }
    for huge in &resources.hugepage_limits {
        let name = format!("hugetlb.{}.limit_in_bytes", huge.page_size);
        let directory = places.of("hugetlb", "a huge page limit")?;
        file::write(directory, &name, &huge.limit.to_string())?;
        let reserved = format!("hugetlb.{}.rsvd.limit_in_bytes", huge.page_size);
        if directory.join(&reserved).exists() {
            file::write(directory, &reserved, &huge.limit.to_string())?;
        }
    }
    set_network(&places, resources)?;
    for (device, limits) in &resources.rdma {
        let value = rdma(device, limits.hca_handles, limits.hca_objects);
        file::write(places.of("rdma", "an RDMA limit")?, "rdma.max", &value)?;
    }
    if !resources.unified.is_empty() {
        return Err(Error::Config { what: "invalid configuration: cannot use unified on cgroup v1".into() });
    }
    Ok(())
}

/// A line for `rdma.max`.
pub(super) fn rdma(device: &str, handles: Option<u32>, objects: Option<u32>) -> String {
    let part = |name: &str, value: Option<u32>| value.map(|v| format!(" {name}={v}")).unwrap_or_default();
    format!("{device}{}{}", part("hca_handle", handles), part("hca_object", objects))
}

fn device_rules(directory: &Path, resources: &Resources) -> Result<()> {
    use std::io::Write as _;
    let open = |name: &str| {
        let path = directory.join(name);
        let opened = File::options().write(true).open(&path);
        opened.doing(|| format!("cannot open {}", path.display())).map(|file| (file, path))
    };
    let (mut allow, mut deny) = (open("devices.allow")?, open("devices.deny")?);
    for rule in &resources.devices {
        let text = devices::line(rule)?;
        let (file, path): &mut (File, PathBuf) = if rule.allow { &mut allow } else { &mut deny };
        file.write_all(text.as_bytes())
            .doing(|| format!("failed to write {text:?} to {}", path.display()))?;
    }
    Ok(())
}

fn set_memory(places: &Places<'_>, memory: &Memory, warnings: &mut Vec<String>) -> Result<()> {
    let wanted = memory.limit.or(memory.swap).or(memory.reservation).or(memory.kernel_tcp);
    let more = memory.swappiness.is_some() || memory.disable_oom_killer.is_some();
    if memory.kernel.is_some() {
        warnings.push("kernel memory limits are ignored: kernels no longer have them".into());
    }
    if wanted.is_none() && !more {
        return Ok(());
    }
    let directory = places.of("memory", "a memory limit")?;
    if memory.check_before_update == Some(true)
        && let Some(limit) = memory.limit.filter(|l| *l > 0)
    {
        let usage = file::number(directory, "memory.usage_in_bytes");
        if limit as u64 <= usage {
            let what =
                format!("rejecting memory limit {limit} since current usage {usage} is already higher");
            return Err(Error::Config { what });
        }
    }
    memory_and_swap(directory, memory, warnings)?;
    if let Some(reservation) = memory.reservation.filter(|r| *r != 0) {
        file::write(directory, "memory.soft_limit_in_bytes", &reservation.to_string())?;
    }
    if let Some(tcp) = memory.kernel_tcp.filter(|t| *t != 0) {
        let set = file::attempt(directory, "memory.kmem.tcp.limit_in_bytes", &tcp.to_string());
        if set.is_err() {
            warnings.push("kernel TCP memory limit is not supported here".into());
        }
    }
    if memory.disable_oom_killer == Some(true) {
        file::write(directory, "memory.oom_control", "1")?;
    }
    match memory.swappiness {
        Some(s) if s <= 100 => {
            file::write(directory, "memory.swappiness", &s.to_string()).or_else(|e| {
                // Kernels give this up step by step.
                warnings.push(e.chain());
                Ok(())
            })
        }
        Some(s) => Err(Error::Config {
            what: format!("invalid memory swappiness value: {s} (valid range is 0-100)"),
        }),
        None => Ok(()),
    }
}

/// The limit of both can never be below that of memory, so the one that grows is written first.
fn memory_and_swap(directory: &Path, memory: &Memory, warnings: &mut Vec<String>) -> Result<()> {
    const MEMORY: &str = "memory.limit_in_bytes";
    const BOTH: &str = "memory.memsw.limit_in_bytes";
    let limit = memory.limit.filter(|l| *l != 0);
    let mut both = memory.swap.filter(|s| *s != 0);
    // Unlimited memory below limited swap cannot be; swap follows.
    if limit == Some(-1) && both.is_none() && directory.join(BOTH).exists() {
        both = Some(-1);
    }
    if both.is_some() && !directory.join(BOTH).exists() {
        warnings.push("the kernel does not account swap: the swap limit is ignored".into());
        both = None;
    }
    match (limit, both) {
        (None, None) => Ok(()),
        (Some(limit), None) => write_limit(directory, MEMORY, limit),
        (None, Some(both)) => write_limit(directory, BOTH, both),
        (Some(limit), Some(both)) => {
            let current = file::number(directory, MEMORY);
            if both == -1 || current < both as u64 {
                write_limit(directory, BOTH, both)?;
                write_limit(directory, MEMORY, limit)
            } else {
                write_limit(directory, MEMORY, limit)?;
                write_limit(directory, BOTH, both)
            }
        }
    }
}

fn write_limit(directory: &Path, name: &str, value: i64) -> Result<()> {
    let Err(refused) = file::attempt(directory, name, &value.to_string()) else { return Ok(()) };
    if refused.raw_os_error() == Some(libc::EBUSY) {
        let (usage, peak) = (
            file::number(directory, "memory.usage_in_bytes"),
            file::number(directory, "memory.max_usage_in_bytes"),
        );
        let what =
            format!("unable to set memory limit to {value} (current usage: {usage}, peak usage: {peak})");
        return Err(Error::Step { what, source: refused });
    }
    Err(refused).doing(|| format!("failed to write \"{value}\" to {}", directory.join(name).display()))
}

fn set_cpu(places: &Places<'_>, cpu: &Cpu) -> Result<()> {
    if let Some(shares) = cpu.shares.filter(|s| *s != 0) {
        let directory = places.of("cpu", "cpu.shares")?;
        file::write(directory, "cpu.shares", &shares.to_string())?;
        let set = file::number(directory, "cpu.shares");
        // The kernel clamps without a word.
        if shares > set {
            return Err(Error::Config { what: format!("the maximum allowed cpu-shares is {set}") });
        }
        if shares < set {
            return Err(Error::Config { what: format!("the minimum allowed cpu-shares is {set}") });
        }
    }
    if let Some(idle) = cpu.idle {
        file::write(places.of("cpu", "cpu.idle")?, "cpu.idle", &idle.to_string())?;
    }
    let directory = || places.of("cpu", "a CPU quota");
    set_quota(cpu, directory)?;
    if let Some(period) = cpu.realtime_period.filter(|p| *p != 0) {
        file::write(directory()?, "cpu.rt_period_us", &period.to_string())?;
    }
    if let Some(runtime) = cpu.realtime_runtime.filter(|r| *r != 0) {
        file::write(directory()?, "cpu.rt_runtime_us", &runtime.to_string())?;
    }
    for (name, value) in [("cpuset.cpus", &cpu.cpus), ("cpuset.mems", &cpu.mems)] {
        if !value.is_empty() {
            file::write(places.of("cpuset", name)?, name, value)?;
        }
    }
    Ok(())
}

fn set_quota<'d>(cpu: &Cpu, directory: impl Fn() -> Result<&'d Path>) -> Result<()> {
    let period = cpu.period.filter(|p| *p != 0);
    let quota = cpu.quota.filter(|q| *q != 0);
    let mut later = None;
    if let Some(period) = period {
        let text = period.to_string();
        match file::attempt(directory()?, "cpu.cfs_period_us", &text) {
            // With the old quota it would be too much for the parent: the new quota goes first.
            Err(e) if e.raw_os_error() == Some(libc::EINVAL) && quota.is_some() => later = Some(text),
            done => done.doing(|| format!("failed to write {text:?} to cpu.cfs_period_us"))?,
        }
    }
    if let Some(quota) = quota {
        if cpu.burst.is_some_and(|b| b != 0) {
            // An earlier burst above the new quota would be refused.
            let _ = file::attempt(directory()?, "cpu.cfs_burst_us", "0");
        }
        file::write(directory()?, "cpu.cfs_quota_us", &quota.to_string())?;
    }
    if let Some(text) = later {
        file::write(directory()?, "cpu.cfs_period_us", &text)?;
    }
    match cpu.burst {
        Some(burst) => file::write(directory()?, "cpu.cfs_burst_us", &burst.to_string()),
        None => Ok(()),
    }
}

fn set_block_io(places: &Places<'_>, io: &BlockIo, warnings: &mut Vec<String>) -> Result<()> {
    let directory = || places.of("blkio", "a block I/O limit");
    if let Some(weight) = io.weight.filter(|w| *w != 0) {
        weighted(directory()?, "weight", &weight.to_string(), warnings)?;
    }
    if let Some(weight) = io.leaf_weight.filter(|w| *w != 0) {
        weighted(directory()?, "leaf_weight", &weight.to_string(), warnings)?;
    }
    for device in &io.weight_device {
        let at = format!("{}:{}", device.major, device.minor);
        if let Some(weight) = device.weight.filter(|w| *w != 0) {
            weighted(directory()?, "weight_device", &format!("{at} {weight}"), warnings)?;
        }
        if let Some(weight) = device.leaf_weight.filter(|w| *w != 0) {
            weighted(directory()?, "leaf_weight_device", &format!("{at} {weight}"), warnings)?;
        }
    }
    let tables = [
        ("blkio.throttle.read_bps_device", &io.throttle_read_bps_device),
        ("blkio.throttle.write_bps_device", &io.throttle_write_bps_device),
        ("blkio.throttle.read_iops_device", &io.throttle_read_iops_device),
        ("blkio.throttle.write_iops_device", &io.throttle_write_iops_device),
    ];
    for (name, devices) in tables {
        for device in devices {
            let line = format!("{}:{} {}", device.major, device.minor, device.rate);
            file::write(directory()?, name, &line)?;
        }
    }
    Ok(())
}

/// Weights depend on the I/O scheduler: CFQ's file, else BFQ's, else the machine has none.
fn weighted(directory: &Path, name: &str, value: &str, warnings: &mut Vec<String>) -> Result<()> {
    for scheduler in ["blkio", "blkio.bfq"] {
        let name = format!("{scheduler}.{name}");
        if directory.join(&name).exists() {
            return file::write(directory, &name, value);
        }
    }
    warnings.push(format!("no I/O scheduler here has weights: blkio.{name} is ignored"));
    Ok(())
}

fn set_network(places: &Places<'_>, resources: &Resources) -> Result<()> {
    let Some(network) = &resources.network else { return Ok(()) };
    if let Some(class) = network.class_id.filter(|c| *c != 0) {
        file::write(places.of("net_cls", "network.classID")?, "net_cls.classid", &class.to_string())?;
    }
    for priority in &network.priorities {
        let line = format!("{} {}", priority.name, priority.priority);
        file::write(places.of("net_prio", "network.priorities")?, "net_prio.ifpriomap", &line)?;
    }
    Ok(())
}
