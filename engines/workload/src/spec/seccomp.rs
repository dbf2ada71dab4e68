//! Filters from a file in Docker's form, which differs from the runtime's: rules depend on architecture,
//! kernel and capabilities.

use std::path::Path;

use berth_oci::runtime::{Capabilities, Seccomp, SyscallArg, SyscallRule};
use berth_types::{Error, Result};
use serde::Deserialize;

const MAX_SIZE: u64 = 4 << 20;

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[derive(Default)]
struct Profile {
    default_action: String,
    default_errno_ret: Option<u32>,
    architectures: Vec<String>,
    arch_map: Vec<ArchMap>,
    flags: Vec<String>,
    listener_path: String,
    listener_metadata: String,
    syscalls: Vec<Rule>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ArchMap {
    architecture: String,
    #[serde(default)]
    sub_architectures: Vec<String>,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct Rule {
    name: String,
    names: Vec<String>,
    action: String,
    errno_ret: Option<u32>,
    args: Option<Vec<SyscallArg>>,
    includes: Condition,
    excludes: Condition,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct Condition {
    caps: Vec<String>,
    arches: Vec<String>,
    min_kernel: Option<String>,
}

/// Reads a profile and keeps the rules that hold for these capabilities on this machine.
pub(super) fn read(file: &Path, capabilities: Option<&Capabilities>) -> Result<Seccomp> {
    let at = file.display();
    let failed = |error| Error::io(format!("cannot read the seccomp profile {at}"), error);
    let size = std::fs::metadata(file).map_err(failed)?.len();
    if size > MAX_SIZE {
        return Err(Error::resource_exhausted(format!("the seccomp profile {at} has {size} bytes")));
    }
    let text = std::fs::read(file).map_err(failed)?;
    let profile: Profile = serde_json::from_slice(&text).map_err(|source| {
        Error::invalid_argument(format!("the seccomp profile {at} is not valid")).caused_by(source)
    })?;
    if profile.default_action.is_empty() {
        return Err(Error::invalid_argument(format!("the seccomp profile {at} has no defaultAction")));
    }
    let caps = capabilities.map(|sets| sets.bounding.as_slice()).unwrap_or_default();
    Ok(convert(profile, caps, std::env::consts::ARCH, kernel()))
}

fn convert(profile: Profile, caps: &[String], arch: &str, kernel: (u64, u64)) -> Seccomp {
    let (go, scmp) = match arch {
        "x86_64" => ("amd64", "SCMP_ARCH_X86_64"),
        "aarch64" => ("arm64", "SCMP_ARCH_AARCH64"),
        other => (other, ""),
    };
    let mut architectures = profile.architectures;
    for map in profile.arch_map.into_iter().filter(|map| map.architecture == scmp) {
        architectures.push(map.architecture);
        architectures.extend(map.sub_architectures);
    }
    let holds = |rule: &Rule| {
        let (yes, no) = (&rule.includes, &rule.excludes);
        let arch = |list: &[String]| list.iter().any(|name| name == go);
        let cap = |name: &String| caps.contains(name);
        let reached = |text: &Option<String>| text.as_deref().map(|text| kernel >= version(text));
        (yes.arches.is_empty() || arch(&yes.arches))
            && yes.caps.iter().all(cap)
            && reached(&yes.min_kernel).unwrap_or(true)
            && !arch(&no.arches)
            && !no.caps.iter().any(cap)
            && !reached(&no.min_kernel).unwrap_or(false)
    };
    let syscalls = profile
        .syscalls
        .into_iter()
        .filter(holds)
        .map(|mut rule| {
            if !rule.name.is_empty() {
                rule.names.push(rule.name);
            }
            SyscallRule {
                names: rule.names,
                action: rule.action,
                errno_ret: rule.errno_ret,
                args: rule.args.unwrap_or_default(),
            }
        })
        .collect();
    Seccomp {
        default_action: profile.default_action,
        default_errno_ret: profile.default_errno_ret,
        architectures,
        flags: profile.flags,
        listener_path: profile.listener_path,
        listener_metadata: profile.listener_metadata,
        syscalls,
    }
}

fn version(text: &str) -> (u64, u64) {
    let mut numbers = text.split(|c: char| !c.is_ascii_digit()).filter_map(|part| part.parse().ok());
    (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0))
}

fn kernel() -> (u64, u64) {
    version(&rustix::system::uname().release().to_string_lossy())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_hold_for_architecture_kernel_and_capabilities() {
        let text = r#"{"defaultAction":"SCMP_ACT_ERRNO","defaultErrnoRet":1,
            "archMap":[{"architecture":"SCMP_ARCH_X86_64","subArchitectures":["SCMP_ARCH_X86"]},
                       {"architecture":"SCMP_ARCH_AARCH64","subArchitectures":["SCMP_ARCH_ARM"]}],
            "syscalls":[{"names":["read"],"action":"SCMP_ACT_ALLOW","args":null},
                {"names":["ptrace"],"action":"SCMP_ACT_ALLOW","includes":{"minKernel":"4.8"}},
                {"names":["arm"],"action":"SCMP_ACT_ALLOW","includes":{"arches":["arm64"]}},
                {"names":["bpf"],"action":"SCMP_ACT_ALLOW","includes":{"caps":["CAP_BPF"]}},
                {"names":["clone"],"action":"SCMP_ACT_ALLOW","excludes":{"caps":["CAP_SYS_ADMIN"]}}]}"#;
        let names = |caps: &[&str], kernel| {
            let caps: Vec<String> = caps.iter().map(|cap| (*cap).to_owned()).collect();
            let filter = convert(serde_json::from_str(text).unwrap(), &caps, "x86_64", kernel);
            assert_eq!(filter.architectures, ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86"]);
            filter.syscalls.into_iter().flat_map(|rule| rule.names).collect::<Vec<_>>()
        };
        assert_eq!(names(&[], (6, 1)), ["read", "ptrace", "clone"]);
        assert_eq!(names(&["CAP_BPF", "CAP_SYS_ADMIN"], (4, 4)), ["read", "bpf"]);
    }
}
