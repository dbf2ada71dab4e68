//! What keeps a process in: capabilities, filters, profiles, labels, paths that it does not see.

use std::path::Path;

use berth_container::apparmor;
use berth_oci::runtime::{Spec, default};
use berth_proto::runtime::v1 as proto;
use berth_types::{Error, Result};
use proto::security_profile::ProfileType;

use super::{Inputs, capabilities, seccomp};

/// A file that is there where SELinux is enabled.
const SELINUX: &str = "/sys/fs/selinux/enforce";

pub(super) fn apply(spec: &mut Spec, inputs: &Inputs<'_>) -> Result<()> {
    let security = inputs.security();
    let (Some(process), Some(linux)) = (&mut spec.process, &mut spec.linux) else { return Ok(()) };
    let sets = if security.privileged {
        capabilities::all()
    } else {
        capabilities::of(&security.capabilities.clone().unwrap_or_default())?
    };
    linux.seccomp = seccomp::of(&security, inputs.pods.unset_seccomp.as_deref(), &sets)?;
    process.capabilities = Some(sets);
    process.apparmor_profile = apparmor(&security, inputs)?;
    let label = security
        .selinux_options
        .clone()
        .or_else(|| inputs.pod.linux().security_context.and_then(|context| context.selinux_options));
    if inputs.pods.enable_selinux
        && let Some(label) = label.filter(|label| *label != proto::SeLinuxOption::default())
    {
        process.selinux_label = selinux(&label)?;
    }
    if security.privileged {
        linux.masked_paths.clear();
        linux.readonly_paths.clear();
        return Ok(());
    }
    linux.masked_paths = security.masked_paths;
    linux.readonly_paths = security.readonly_paths;
    // Kubernetes' list is older than what is known of these: they tell what else runs on the machine.
    if !linux.masked_paths.is_empty() {
        let more = default::MASKED_PATHS.iter().map(|path| (*path).to_owned());
        let cpus = std::thread::available_parallelism().map_or(1, usize::from);
        let has_thermal = Path::new("/sys/devices/system/cpu/cpu0/thermal_throttle").exists();
        let thermal = default::thermal_paths(if has_thermal { cpus } else { 0 });
        for path in more.chain(thermal) {
            if !linux.masked_paths.contains(&path) {
                linux.masked_paths.push(path);
            }
        }
    }
    Ok(())
}

/// The AppArmor profile: the one asked for by name, else that of every container where there is AppArmor. One that was
/// asked for by name and cannot be had is an error.
fn apparmor(security: &proto::LinuxContainerSecurityContext, inputs: &Inputs<'_>) -> Result<String> {
    #[expect(deprecated, reason = "older kubelets say it so")]
    let old = security.apparmor_profile.as_str();
    let (kind, name) = match &security.apparmor {
        Some(profile) => (profile.profile_type(), profile.localhost_ref.as_str()),
        None if old == "unconfined" => (ProfileType::Unconfined, ""),
        None if old.starts_with("localhost/") => (ProfileType::Localhost, old),
        None => (ProfileType::RuntimeDefault, ""),
    };
    let name = match kind {
        _ if security.privileged => return Ok(String::new()),
        ProfileType::Unconfined => return Ok(String::new()),
        ProfileType::RuntimeDefault if inputs.pods.disable_apparmor || !apparmor::has_default() => {
            return Ok(String::new());
        }
        ProfileType::RuntimeDefault => apparmor::DEFAULT,
        ProfileType::Localhost => name.strip_prefix("localhost/").unwrap_or(name),
    };
    if inputs.pods.disable_apparmor {
        return Err(Error::failed_precondition(format!(
            "the AppArmor profile {name} was asked for, and disable_apparmor is set in the configuration"
        )));
    }
    apparmor::provide(name).map_err(|error| Error::failed_precondition(error.chain()))?;
    Ok(name.to_owned())
}

fn selinux(label: &proto::SeLinuxOption) -> Result<String> {
    let text = format!("{}:{}:{}:{}", label.user, label.role, label.r#type, label.level);
    if !Path::new(SELINUX).exists() {
        return Err(Error::failed_precondition(format!(
            "the SELinux label {text} was asked for, and SELinux is not enabled on this host"
        )));
    }
    Ok(text)
}
