//! Limits of a container's cgroup, and how readily the kernel kills it.

use std::collections::BTreeMap;
use std::path::Path;

use berth_oci::runtime::{Cpu, HugepageLimit, Memory, Resources, Spec};
use berth_proto::runtime::v1 as proto;
use berth_types::{Error, Result};

use super::Inputs;
use crate::config::Pods;

pub(super) fn apply(spec: &mut Spec, inputs: &Inputs<'_>) -> Result<()> {
    let wanted = inputs.linux().resources.unwrap_or_default();
    let limits = resources(&wanted, inputs.pods)?;
    if let Some(linux) = &mut spec.linux {
        let devices = linux.resources.take().map(|resources| resources.devices).unwrap_or_default();
        linux.resources = Some(Resources { devices, ..limits });
    }
    if let Some(process) = &mut spec.process {
        let score = i32::try_from(wanted.oom_score_adj).ok().filter(|score| (-1000..=1000).contains(score));
        let score = score.ok_or_else(|| {
            Error::invalid_argument(format!(
                "oom_score_adj {} is not within -1000 to 1000",
                wanted.oom_score_adj
            ))
        })?;
        process.oom_score_adj =
            Some(if inputs.pods.restrict_oom_score { score.max(own_oom_score()) } else { score });
    }
    Ok(())
}

/// The limits that were asked for, as the runtime takes them; also for an update. Zero is "as it is".
pub(crate) fn resources(wanted: &proto::LinuxContainerResources, pods: &Pods) -> Result<Resources> {
    let set = |value: i64| Some(value).filter(|value| *value != 0);
    let positive = |what: &str, value: i64| match u64::try_from(value) {
        Ok(value) => Ok(Some(value).filter(|value| *value != 0)),
        Err(_) => Err(Error::invalid_argument(format!("{what} cannot be {value}"))),
    };
    let cpu = Cpu {
        shares: positive("cpu_shares", wanted.cpu_shares)?,
        quota: set(wanted.cpu_quota),
        period: positive("cpu_period", wanted.cpu_period)?,
        cpus: wanted.cpuset_cpus.clone(),
        mems: wanted.cpuset_mems.clone(),
        ..Cpu::default()
    };
    // What has a limit and no word about swap does not swap, as in containerd.
    let swap = set(wanted.memory_swap_limit_in_bytes).or(set(wanted.memory_limit_in_bytes));
    let memory = Memory {
        limit: set(wanted.memory_limit_in_bytes),
        swap: swap.filter(|_| is_swap_accounted()),
        ..Memory::default()
    };
    let pages = if pods.disable_hugetlb { &[][..] } else { &wanted.hugepage_limits };
    let unified: BTreeMap<_, _> =
        wanted.unified.iter().map(|(key, value)| (key.clone(), value.clone())).collect();
    if let Some(bad) = unified.keys().find(|key| key.contains('/') || key.starts_with('.')) {
        return Err(Error::invalid_argument(format!("{bad:?} is no file of a cgroup")));
    }
    Ok(Resources {
        cpu: Some(cpu).filter(|cpu| *cpu != Cpu::default()),
        memory: Some(memory).filter(|memory| *memory != Memory::default()),
        hugepage_limits: pages
            .iter()
            .map(|page| HugepageLimit { page_size: page.page_size.clone(), limit: page.limit })
            .collect(),
        unified,
        ..Resources::default()
    })
}

/// Whether this kernel can limit swap. With version 2 of cgroups the topmost has no such file, our own one has.
fn is_swap_accounted() -> bool {
    if Path::new("/sys/fs/cgroup/memory/memory.memsw.limit_in_bytes").exists() {
        return true;
    }
    let table = std::fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let own = table.lines().find_map(|line| line.strip_prefix("0::/")).unwrap_or_default();
    Path::new("/sys/fs/cgroup").join(own).join("memory.swap.max").exists()
}

fn own_oom_score() -> i32 {
    let text = std::fs::read_to_string("/proc/self/oom_score_adj").unwrap_or_default();
    text.trim().parse().unwrap_or_default()
}
