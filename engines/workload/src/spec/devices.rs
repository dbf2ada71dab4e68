//! Devices of the host in a container.

use std::path::{Path, PathBuf};

use berth_cdi::DeviceName;
use berth_oci::runtime::{DeviceRule, Resources, Spec};
use berth_rootfs::{devices_at, devices_below};
use berth_types::{Error, Result};
use rustix::fs::{FileType, major, minor};

use crate::HostConfig;
use crate::parse::device_rule;

pub(super) fn apply(spec: &mut Spec, host: &HostConfig) -> Result<()> {
    let Some(linux) = &mut spec.linux else { return Ok(()) };
    let resources = linux.resources.get_or_insert_with(Resources::default);
    if host.privileged {
        resources.devices = vec![DeviceRule { allow: true, access: "rwm".into(), ..DeviceRule::default() }];
        linux.devices.extend(devices_below(Path::new("/dev"), "/dev")?);
        return Ok(());
    }
    for request in &host.devices {
        let found = devices_at(Path::new(&request.host), &request.container).map_err(|error| {
            error.context(format!(
                "error gathering device information while adding custom device \"{}\"",
                request.host
            ))
        })?;
        if found.is_empty() {
            return Err(Error::not_found(format!(
                "error gathering device information while adding custom device \"{}\": not a device node",
                request.host
            )));
        }
        for device in found {
            resources.devices.push(DeviceRule {
                allow: true,
                kind: device.kind.clone(),
                major: Some(device.major),
                minor: Some(device.minor),
                access: request.permissions.clone(),
            });
            linux.devices.push(device);
        }
    }
    for text in &host.device_cgroup_rules {
        let rule = device_rule(text)?;
        resources.devices.push(DeviceRule {
            allow: true,
            kind: rule.kind.to_string(),
            major: rule.major,
            minor: rule.minor,
            access: rule.access,
        });
    }
    Ok(())
}

/// What vendors describe comes last: it may replace mounts and environment of the container.
pub(super) fn apply_described(spec: &mut Spec, host: &HostConfig) -> Result<()> {
    let names = host.device_requests.iter().flat_map(|request| &request.names);
    let parsed = |name: &String| {
        name.parse().map_err(|error: berth_cdi::NameError| Error::invalid_argument(error.to_string()))
    };
    let names: Vec<DeviceName> = names.map(parsed).collect::<Result<_>>()?;
    berth_cdi::inject(spec, &berth_cdi::FOLDERS.map(PathBuf::from), &names)
}

/// The numbers of a block device, for limits.
pub(super) fn block_numbers(path: &str) -> Result<(i64, i64)> {
    let stat = rustix::fs::stat(path)
        .map_err(|error| Error::io(format!("cannot find the device {path}"), error.into()))?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::BlockDevice {
        return Err(Error::invalid_argument(format!("{path} is no block device")));
    }
    Ok((i64::from(major(stat.st_rdev)), i64::from(minor(stat.st_rdev))))
}
