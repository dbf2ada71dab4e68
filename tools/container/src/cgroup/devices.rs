//! Which devices a container may use: lines for v1, an eBPF program for v2.
//!
//! Source: Documentation/admin-guide/cgroup-v1/devices.rst, `BPF_PROG_TYPE_CGROUP_DEVICE` in bpf(2)
//! and `<linux/bpf.h>`.

mod attach;
mod program;

use berth_oci::runtime::DeviceRule;

use crate::error::{Error, Result};

pub(super) use self::attach::attach;

/// Type, major, minor, access of what every container may use: all device files may be made, few
/// opened.
const DEFAULTS: [(&str, Option<i64>, Option<i64>, &str); 10] = [
    ("c", None, None, "m"),
    ("b", None, None, "m"),
    ("c", Some(1), Some(3), "rwm"),
    ("c", Some(1), Some(8), "rwm"),
    ("c", Some(1), Some(7), "rwm"),
    ("c", Some(5), Some(0), "rwm"),
    ("c", Some(1), Some(5), "rwm"),
    ("c", Some(1), Some(9), "rwm"),
    ("c", Some(136), None, "rwm"),
    ("c", Some(5), Some(2), "rwm"),
];

/// Adds the default rules after those of the configuration. A container without rules is told nothing
/// about devices and keeps what its parent cgroup has.
pub(super) fn add_defaults(rules: &mut Vec<DeviceRule>) {
    let open = rules.last().is_some_and(|r| r.allow && is_all(r));
    if rules.is_empty() || open {
        return;
    }
    rules.extend(DEFAULTS.map(|(kind, major, minor, access)| DeviceRule {
        allow: true,
        kind: kind.into(),
        major,
        minor,
        access: access.into(),
    }));
}

fn is_all(rule: &DeviceRule) -> bool {
    matches!(rule.kind.as_str(), "" | "a")
        && rule.major.is_none_or(|m| m < 0)
        && rule.minor.is_none_or(|m| m < 0)
}

/// The rule as `devices.allow` and `devices.deny` take it.
pub(super) fn line(rule: &DeviceRule) -> Result<String> {
    check(rule)?;
    if is_all(rule) {
        return Ok("a".into());
    }
    let number = |n: Option<i64>| n.filter(|n| *n >= 0).map_or("*".into(), |n| n.to_string());
    let kind = if rule.kind.is_empty() { "a" } else { &rule.kind };
    let access = if rule.access.is_empty() { "rwm" } else { &rule.access };
    Ok(format!("{kind} {}:{} {access}", number(rule.major), number(rule.minor)))
}

fn check(rule: &DeviceRule) -> Result<()> {
    let kind = matches!(rule.kind.as_str(), "" | "a" | "b" | "c");
    let access = rule.access.chars().all(|c| "rwm".contains(c));
    if kind && access {
        return Ok(());
    }
    let what = format!(
        "device rule of type {:?}, access {:?}: types are a, b, c, access r, w, m",
        rule.kind, rule.access
    );
    Err(Error::Config { what })
}

#[cfg(test)]
mod tests;
