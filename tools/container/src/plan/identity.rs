//! Capabilities and resource limits by name.

use berth_oci::runtime;
use berth_sys::child::CapabilityMasks;

use super::Capabilities;
use crate::error::{Error, Result};

/// Names of getrlimit(2) by number, as the generic architectures have them.
pub(crate) const LIMITS: [&str; 16] = [
    "RLIMIT_CPU",
    "RLIMIT_FSIZE",
    "RLIMIT_DATA",
    "RLIMIT_STACK",
    "RLIMIT_CORE",
    "RLIMIT_RSS",
    "RLIMIT_NPROC",
    "RLIMIT_NOFILE",
    "RLIMIT_MEMLOCK",
    "RLIMIT_AS",
    "RLIMIT_LOCKS",
    "RLIMIT_SIGPENDING",
    "RLIMIT_MSGQUEUE",
    "RLIMIT_NICE",
    "RLIMIT_RTPRIO",
    "RLIMIT_RTTIME",
];

/// The sets as masks. Capabilities that this kernel does not know are left out, with a warning.
pub(super) fn capabilities(
    wanted: Option<&runtime::Capabilities>,
    warnings: &mut Vec<String>,
) -> Capabilities {
    let last = std::fs::read_to_string("/proc/sys/kernel/cap_last_cap");
    let last = last.ok().and_then(|text| text.trim().parse().ok()).unwrap_or(40).min(63);
    let none = runtime::Capabilities::default();
    let wanted = wanted.unwrap_or(&none);
    let mut mask = |names: &[String]| -> u64 {
        let mut mask = 0;
        for name in names {
            match runtime::Capabilities::NAMES.iter().position(|known| known == name) {
                Some(number) if number as u32 <= last => mask |= 1 << number,
                _ => {
                    let warning = format!("capability {name} is unknown or not available here; left out");
                    if !warnings.contains(&warning) {
                        warnings.push(warning);
                    }
                }
            }
        }
        mask
    };
    Capabilities {
        masks: CapabilityMasks {
            effective: mask(&wanted.effective),
            permitted: mask(&wanted.permitted),
            inheritable: mask(&wanted.inheritable),
        },
        bounding: mask(&wanted.bounding),
        ambient: mask(&wanted.ambient),
        last,
    }
}

/// Resource limits by number.
pub(super) fn limits(wanted: &[runtime::Rlimit]) -> Result<Vec<(u32, u64, u64)>> {
    let one = |limit: &runtime::Rlimit| {
        let number = LIMITS.iter().position(|name| *name == limit.kind).ok_or_else(|| Error::Config {
            what: format!("rlimit {:?} is none of getrlimit(2)", limit.kind),
        })?;
        if wanted.iter().filter(|other| other.kind == limit.kind).count() > 1 {
            return Err(Error::Config { what: format!("rlimit {:?} is given twice", limit.kind) });
        }
        Ok((number as u32, limit.soft, limit.hard))
    };
    wanted.iter().map(one).collect()
}
