//! Limits, from the words of the CRI to those of plugins and back.

use berth_nri::{apply_resources, proto};
use berth_oci::runtime::Resources;
use berth_proto::runtime::v1 as cri;

use crate::config::Pods;

/// Limits that a kubelet asks for, as plugins know them. Zero is "as it is" to a kubelet, and left out.
pub(super) fn described(limits: &cri::LinuxContainerResources) -> proto::LinuxResources {
    let signed = |value: i64| (value != 0).then_some(proto::OptionalInt64 { value });
    let unsigned = |value: i64| {
        u64::try_from(value).ok().filter(|value| *value != 0).map(|value| proto::OptionalUInt64 { value })
    };
    let page = |page: &cri::HugepageLimit| proto::HugepageLimit {
        page_size: page.page_size.clone(),
        limit: page.limit,
    };
    proto::LinuxResources {
        memory: Some(proto::LinuxMemory {
            limit: signed(limits.memory_limit_in_bytes),
            swap: signed(limits.memory_swap_limit_in_bytes),
            ..Default::default()
        }),
        cpu: Some(proto::LinuxCpu {
            shares: unsigned(limits.cpu_shares),
            quota: signed(limits.cpu_quota),
            period: unsigned(limits.cpu_period),
            cpus: limits.cpuset_cpus.clone(),
            mems: limits.cpuset_mems.clone(),
            ..Default::default()
        }),
        hugepage_limits: limits.hugepage_limits.iter().map(page).collect(),
        unified: limits.unified.clone().into_iter().collect(),
        ..Default::default()
    }
}

/// Limits that a plugin asks for, as a kubelet is shown them.
pub(super) fn shown(asked: &proto::LinuxResources) -> cri::LinuxContainerResources {
    let memory = asked.memory.unwrap_or_default();
    let cpu = asked.cpu.clone().unwrap_or_default();
    let signed = |value: Option<proto::OptionalInt64>| value.unwrap_or_default().value;
    let unsigned = |value: Option<proto::OptionalUInt64>| {
        i64::try_from(value.unwrap_or_default().value).unwrap_or(i64::MAX)
    };
    let page = |page: &proto::HugepageLimit| cri::HugepageLimit {
        page_size: page.page_size.clone(),
        limit: page.limit,
    };
    cri::LinuxContainerResources {
        cpu_period: unsigned(cpu.period),
        cpu_quota: signed(cpu.quota),
        cpu_shares: unsigned(cpu.shares),
        memory_limit_in_bytes: signed(memory.limit),
        memory_swap_limit_in_bytes: signed(memory.swap),
        cpuset_cpus: cpu.cpus,
        cpuset_mems: cpu.mems,
        hugepage_limits: asked.hugepage_limits.iter().map(page).collect(),
        unified: asked.unified.clone().into_iter().collect(),
        ..Default::default()
    }
}

/// Limits that a plugin asks for, as a runtime takes them. Zero is "as it is" here too, as in containerd.
pub(super) fn wanted(asked: &proto::LinuxResources, pods: &Pods) -> Resources {
    let mut resources = Resources::default();
    apply_resources(&mut resources, asked);
    if let Some(cpu) = &mut resources.cpu {
        cpu.shares = cpu.shares.filter(|value| *value != 0);
        cpu.quota = cpu.quota.filter(|value| *value != 0);
        cpu.period = cpu.period.filter(|value| *value != 0);
    }
    if let Some(memory) = &mut resources.memory {
        memory.limit = memory.limit.filter(|value| *value != 0);
        memory.swap = memory.swap.filter(|value| *value != 0);
    }
    if pods.disable_hugetlb {
        resources.hugepage_limits.clear();
    }
    resources
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_are_the_same_on_the_way_to_plugins_and_back() {
        let limits = cri::LinuxContainerResources {
            cpu_period: 100_000,
            cpu_quota: -1,
            cpu_shares: 512,
            memory_limit_in_bytes: 1 << 30,
            memory_swap_limit_in_bytes: 2 << 30,
            cpuset_cpus: "0-1".to_owned(),
            cpuset_mems: "0".to_owned(),
            hugepage_limits: vec![cri::HugepageLimit { page_size: "2MB".to_owned(), limit: 4 << 20 }],
            unified: [("memory.high".to_owned(), "5".to_owned())].into(),
            ..Default::default()
        };
        assert_eq!(shown(&described(&limits)), limits);
        let nothing = described(&cri::LinuxContainerResources::default());
        assert_eq!(shown(&nothing), cri::LinuxContainerResources::default());
        assert_eq!(nothing.cpu.unwrap().shares, None);
    }
}
