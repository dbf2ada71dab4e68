//! Limits of a container's cgroup.

use berth_oci::runtime::{BlockIo, Cpu, Memory, Pids, Resources, ThrottleDevice, WeightDevice};
use berth_types::{Error, Result};

use super::devices::block_numbers;
use crate::HostConfig;
use crate::parse::Throttle;

/// Microseconds of a period when only processors are given.
const PERIOD: u64 = 100_000;
const MIN_MEMORY: i64 = 6 << 20;

/// The limits that were asked for, as the runtime takes them; also for `update`.
pub fn resources(host: &HostConfig) -> Result<Resources> {
    check(host)?;
    Ok(Resources {
        memory: memory(host),
        cpu: cpu(host),
        pids: host.pids_limit.filter(|limit| *limit != 0).map(|limit| Pids { limit: Some(limit) }),
        block_io: block_io(host)?,
        unified: host.cgroup_conf.clone(),
        ..Resources::default()
    })
}

fn check(host: &HostConfig) -> Result<()> {
    let wrong = |text: &str| Err(Error::invalid_argument(text));
    if host.memory > 0 && host.memory < MIN_MEMORY {
        return wrong("Minimum memory limit allowed is 6MB");
    }
    if host.memory_swap > 0 && host.memory <= 0 {
        return wrong("You should always set the Memory limit when using Memoryswap limit, see usage");
    }
    if host.memory_swap > 0 && host.memory_swap < host.memory {
        return wrong("Minimum memoryswap limit should be larger than memory limit, see usage");
    }
    if host.memory > 0 && host.memory_reservation > host.memory {
        return wrong("Minimum memory limit can not be less than memory reservation limit, see usage");
    }
    if host.memory_swappiness.is_some_and(|swappiness| swappiness > 100) {
        return wrong("Invalid value for memory swappiness: valid range is 0-100");
    }
    if host.nano_cpus > 0 && (host.cpu_quota != 0 || host.cpu_period != 0) {
        return wrong("Conflicting options: CPUs and CPU period or quota cannot both be set");
    }
    let cpus = std::thread::available_parallelism().map_or(1, usize::from) as i64;
    if host.nano_cpus > cpus * 1_000_000_000 {
        return wrong(&format!(
            "range of CPUs is from 0.01 to {cpus}.00, as there are only {cpus} CPUs available"
        ));
    }
    if host.nano_cpus != 0 && host.nano_cpus < 10_000_000 {
        return wrong("range of CPUs is from 0.01 on");
    }
    if host.blkio_weight != 0 && !(10..=1000).contains(&host.blkio_weight) {
        return wrong("Range of blkio weight is from 10 to 1000");
    }
    Ok(())
}

fn memory(host: &HostConfig) -> Option<Memory> {
    let given = |value: i64| Some(value).filter(|value| *value != 0);
    let memory = Memory {
        limit: given(host.memory),
        reservation: given(host.memory_reservation),
        // Without a word on swap a container gets as much of it as of memory, as with Docker.
        swap: given(host.memory_swap)
            .or_else(|| given(host.memory).filter(|limit| *limit > 0).map(|limit| limit.saturating_mul(2))),
        swappiness: host.memory_swappiness,
        disable_oom_killer: host.oom_kill_disable.then_some(true),
        ..Memory::default()
    };
    (memory != Memory::default()).then_some(memory)
}

fn cpu(host: &HostConfig) -> Option<Cpu> {
    let mut cpu = Cpu {
        shares: Some(host.cpu_shares).filter(|shares| *shares != 0),
        quota: Some(host.cpu_quota).filter(|quota| *quota != 0),
        period: Some(host.cpu_period).filter(|period| *period != 0),
        realtime_runtime: Some(host.cpu_realtime_runtime).filter(|runtime| *runtime != 0),
        realtime_period: Some(host.cpu_realtime_period).filter(|period| *period != 0),
        cpus: host.cpuset_cpus.clone(),
        mems: host.cpuset_mems.clone(),
        ..Cpu::default()
    };
    if host.nano_cpus > 0 {
        cpu.period = Some(PERIOD);
        cpu.quota = Some(host.nano_cpus / (1_000_000_000 / PERIOD as i64));
    }
    (cpu != Cpu::default()).then_some(cpu)
}

fn block_io(host: &HostConfig) -> Result<Option<BlockIo>> {
    let rates = |list: &[Throttle]| -> Result<Vec<ThrottleDevice>> {
        let one = |throttle: &Throttle| {
            let (major, minor) = block_numbers(&throttle.path)?;
            Ok(ThrottleDevice { major, minor, rate: throttle.rate })
        };
        list.iter().map(one).collect()
    };
    let mut weights = Vec::new();
    for weight in &host.blkio_weight_device {
        let (major, minor) = block_numbers(&weight.path)?;
        weights.push(WeightDevice { major, minor, weight: Some(weight.weight), leaf_weight: None });
    }
    let block = BlockIo {
        weight: Some(host.blkio_weight).filter(|weight| *weight != 0),
        weight_device: weights,
        throttle_read_bps_device: rates(&host.blkio_device_read_bps)?,
        throttle_write_bps_device: rates(&host.blkio_device_write_bps)?,
        throttle_read_iops_device: rates(&host.blkio_device_read_iops)?,
        throttle_write_iops_device: rates(&host.blkio_device_write_iops)?,
        ..BlockIo::default()
    };
    Ok((block != BlockIo::default()).then_some(block))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_memory_limit_brings_as_much_swap() {
        let limits = |host: &HostConfig| resources(host).unwrap().memory.unwrap();
        let host = HostConfig { memory: 64 << 20, ..HostConfig::default() };
        assert_eq!((limits(&host).limit, limits(&host).swap), (Some(64 << 20), Some(128 << 20)));
        let none = HostConfig { memory_swap: -1, ..host };
        assert_eq!(limits(&none).swap, Some(-1));
    }

    #[test]
    fn processors_become_quota_and_period() {
        let host = HostConfig { nano_cpus: 500_000_000, ..HostConfig::default() };
        let cpu = resources(&host).unwrap().cpu.unwrap();
        assert_eq!((cpu.quota, cpu.period), (Some(50_000), Some(100_000)));
    }

    #[test]
    fn limits_that_cannot_hold_are_refused() {
        for host in [
            HostConfig { memory: 1 << 20, ..HostConfig::default() },
            HostConfig { memory_swap: 64 << 20, ..HostConfig::default() },
            HostConfig { memory: 64 << 20, memory_swap: 32 << 20, ..HostConfig::default() },
            HostConfig { nano_cpus: 1_000_000_000_000_000, ..HostConfig::default() },
            HostConfig { nano_cpus: 1, ..HostConfig::default() },
            HostConfig { nano_cpus: 100_000_000, cpu_quota: 5, ..HostConfig::default() },
            HostConfig { blkio_weight: 5, ..HostConfig::default() },
        ] {
            assert!(resources(&host).is_err(), "{host:?}");
        }
        assert_eq!(resources(&HostConfig::default()).unwrap(), Resources::default());
    }
}
