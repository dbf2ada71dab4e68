//! What keeps a process in: security options, masked paths, filters.

use std::path::Path;

use berth_container::apparmor;
use berth_oci::runtime::{Spec, default, default_seccomp};
use berth_types::{Error, Result};

use super::seccomp;
use crate::HostConfig;

/// `--security-opt` in its parts.
#[derive(Debug, Default, PartialEq, Eq)]
struct Options {
    seccomp: Option<String>,
    apparmor: Option<String>,
    no_new_privileges: bool,
    unmasked: bool,
    writable_cgroups: bool,
    label: Option<String>,
}

pub(super) fn apply(spec: &mut Spec, host: &HostConfig) -> Result<()> {
    let options = Options::parse(&host.security_opt)?;
    let (Some(process), Some(linux)) = (&mut spec.process, &mut spec.linux) else { return Ok(()) };
    process.no_new_privileges = options.no_new_privileges;
    if let Some(profile) = profile(&options, host) {
        apparmor::provide(&profile).map_err(|error| Error::failed_precondition(error.chain()))?;
        process.apparmor_profile = profile;
    }
    if let Some(label) = options.label.filter(|label| label != "disable") {
        if !Path::new("/sys/fs/selinux/enforce").exists() {
            return Err(Error::failed_precondition(format!(
                "SELinux label {label:?} is asked for, but SELinux is not enabled on this machine: use \
                 --security-opt label=disable, or boot with SELinux"
            )));
        }
        process.selinux_label = label;
    }
    linux.seccomp = match options.seccomp.as_deref() {
        None if host.privileged => None,
        None | Some("builtin") => Some(default_seccomp(process.capabilities.as_ref())),
        Some("unconfined") => None,
        Some(file) => Some(seccomp::read(Path::new(file), process.capabilities.as_ref())?),
    };
    if host.privileged || options.unmasked {
        linux.masked_paths.clear();
        linux.readonly_paths.clear();
    } else if Path::new("/sys/devices/system/cpu/cpu0/thermal_throttle").exists() {
        let cpus = std::thread::available_parallelism().map_or(1, usize::from);
        linux.masked_paths.extend(default::thermal_paths(cpus));
    }
    if host.privileged || options.writable_cgroups {
        for mount in spec.mounts.iter_mut().filter(|mount| mount.destination == "/sys/fs/cgroup") {
            mount.options.retain(|option| option != "ro");
        }
    }
    if host.privileged {
        for mount in spec.mounts.iter_mut().filter(|mount| mount.destination == "/sys") {
            mount.options.retain(|option| option != "ro");
        }
    }
    Ok(())
}

/// The AppArmor profile: the one asked for, else berth's own where there is AppArmor and something to confine.
fn profile(options: &Options, host: &HostConfig) -> Option<String> {
    match options.apparmor.as_deref() {
        Some("unconfined") => None,
        Some(name) => Some(name.to_owned()),
        None if host.privileged || !apparmor::has_default() => None,
        None => Some(apparmor::DEFAULT.to_owned()),
    }
}

impl Options {
    fn parse(list: &[String]) -> Result<Self> {
        let mut options = Self::default();
        for text in list {
            let wrong =
                |why: &str| Error::invalid_argument(format!("invalid --security-opt {text:?}: {why}"));
            let (key, value) = match text.split_once('=').or_else(|| text.split_once(':')) {
                Some((key, value)) => (key, value),
                None => (text.as_str(), ""),
            };
            match (key, value) {
                ("no-new-privileges", "" | "true") => options.no_new_privileges = true,
                ("no-new-privileges", "false") => options.no_new_privileges = false,
                ("seccomp", "") => return Err(wrong("name a file, 'builtin' or 'unconfined'")),
                ("seccomp", profile) => options.seccomp = Some(profile.to_owned()),
                ("apparmor", profile) if !profile.is_empty() => options.apparmor = Some(profile.to_owned()),
                ("systempaths", "unconfined") => options.unmasked = true,
                ("writable-cgroups", "" | "true") => options.writable_cgroups = true,
                ("writable-cgroups", "false") => options.writable_cgroups = false,
                ("label", label) if !label.is_empty() => options.label = Some(label.to_owned()),
                _ => {
                    return Err(wrong(
                        "use seccomp=, apparmor=, label=, no-new-privileges, systempaths=unconfined or writable-cgroups",
                    ));
                }
            }
        }
        Ok(options)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(list: &[&str]) -> Result<Options> {
        Options::parse(&list.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>())
    }

    #[test]
    fn options_have_two_spellings() {
        let options = parse(&["no-new-privileges", "seccomp:unconfined", "apparmor=p"]).unwrap();
        assert!(options.no_new_privileges);
        assert_eq!(options.seccomp.as_deref(), Some("unconfined"));
        assert_eq!(options.apparmor.as_deref(), Some("p"));
        for bad in ["seccomp=", "nope", "systempaths=x", "no-new-privileges=maybe"] {
            assert!(parse(&[bad]).is_err(), "{bad}");
        }
    }

    fn applied(option: &str) -> std::result::Result<Spec, String> {
        let host = HostConfig { security_opt: vec![option.into()], ..HostConfig::default() };
        let mut spec = default::spec("n", "i");
        apply(&mut spec, &host).map(|()| spec).map_err(|error| error.message().to_owned())
    }

    #[test]
    fn what_was_asked_for_and_is_absent_is_an_error_that_names_it_and_a_way_out() {
        // Loaded nowhere, whether there is AppArmor or not.
        let text = applied("apparmor=berth-test-absent").unwrap_err();
        assert!(text.contains("berth-test-absent"), "{text}");
        if !apparmor::is_enabled() {
            assert!(text.contains("apparmor=unconfined"), "{text}");
        }
        if !Path::new("/sys/fs/selinux/enforce").exists() {
            let text = applied("label=type:container_t").unwrap_err();
            assert!(text.contains("type:container_t") && text.contains("label=disable"), "{text}");
        }
    }

    #[test]
    fn the_default_profile_is_for_machines_that_have_apparmor() {
        let process = |option| applied(option).unwrap().process.unwrap_or_default().apparmor_profile;
        assert_eq!(process("apparmor=unconfined"), "");
        if !apparmor::is_enabled() {
            assert_eq!(process("no-new-privileges"), "");
        }
    }
}
