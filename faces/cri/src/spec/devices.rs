//! Devices of the host in a container.

use std::path::Path;

use berth_oci::runtime::{DeviceRule, Resources, Spec};
use berth_rootfs::{devices_at, devices_below};
use berth_types::{Error, Result};

use super::Inputs;

pub(super) fn apply(spec: &mut Spec, inputs: &Inputs<'_>) -> Result<()> {
    let Some(linux) = &mut spec.linux else { return Ok(()) };
    let rules = &mut linux.resources.get_or_insert_with(Resources::default).devices;
    let everything = || DeviceRule { allow: true, access: "rwm".to_owned(), ..DeviceRule::default() };
    let (security, handler) = (inputs.security(), &inputs.pod.handler);
    if security.privileged && !handler.privileged_without_host_devices {
        *rules = vec![everything()];
        linux.devices.extend(devices_below(Path::new("/dev"), "/dev")?);
        return Ok(());
    }
    if security.privileged && handler.all_devices_allowed {
        *rules = vec![everything()];
    }
    for wanted in &inputs.config.devices {
        let failed = || format!("cannot give the container the device {}", wanted.host_path);
        let target =
            if wanted.container_path.is_empty() { &wanted.host_path } else { &wanted.container_path };
        let found =
            devices_at(Path::new(&wanted.host_path), target).map_err(|error| error.context(failed()))?;
        if found.is_empty() {
            return Err(Error::invalid_argument(format!("{}: it is no device", failed())));
        }
        if !wanted.permissions.bytes().all(|byte| b"rwm".contains(&byte)) {
            return Err(Error::invalid_argument(format!(
                "{}: permissions are letters of rwm, not {:?}",
                failed(),
                wanted.permissions
            )));
        }
        for mut device in found {
            if inputs.pods.device_ownership_from_user {
                device.uid = Some(inputs.user.uid);
                device.gid = Some(inputs.user.gid);
            }
            rules.push(DeviceRule {
                allow: true,
                kind: device.kind.clone(),
                major: Some(device.major),
                minor: Some(device.minor),
                access: wanted.permissions.clone(),
            });
            linux.devices.retain(|known| known.path != device.path);
            linux.devices.push(device);
        }
    }
    Ok(())
}
