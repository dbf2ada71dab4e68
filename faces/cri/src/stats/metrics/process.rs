//! What a container's processes hold open, and what its document allows.

use std::fs;

use berth_oci::runtime::Spec;
use berth_proto::runtime::v1::MetricType::Gauge;

use super::Figures;

/// Descriptors of all processes, and how many of them are sockets. Those of a process that has ended are none. Blocking.
pub(super) fn descriptors(pids: &[u32]) -> (u64, u64) {
    let (mut all, mut sockets) = (0, 0);
    for pid in pids {
        let Ok(entries) = fs::read_dir(format!("/proc/{pid}/fd")) else { continue };
        for entry in entries.flatten() {
            all += 1;
            let target = fs::read_link(entry.path());
            sockets += u64::from(target.is_ok_and(|target| target.to_string_lossy().starts_with("socket:")));
        }
    }
    (all, sockets)
}

/// The limits of a document.
pub(super) fn add_limits(figures: &mut Figures, spec: &Spec) {
    for limit in spec.process.iter().flat_map(|process| &process.rlimits) {
        figures.add(Gauge, "container_ulimits_soft", &[&limit.kind], limit.soft);
    }
    let Some(resources) = spec.linux.as_ref().and_then(|linux| linux.resources.as_ref()) else { return };
    let cpu = resources.cpu.clone().unwrap_or_default();
    let memory = resources.memory.clone().unwrap_or_default();
    // Without a limit it is -1, which others write so too.
    let bytes = |value: Option<i64>| value.map(|value| value as u64);
    for (name, value) in [
        ("container_spec_cpu_period", cpu.period),
        ("container_spec_cpu_shares", cpu.shares),
        ("container_spec_memory_limit_bytes", bytes(memory.limit)),
        ("container_spec_memory_reservation_limit_bytes", bytes(memory.reservation)),
        ("container_spec_memory_swap_limit_bytes", bytes(memory.swap)),
    ] {
        if let Some(value) = value {
            figures.gauge(name, value);
        }
    }
}
