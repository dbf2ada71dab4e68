//! Devices of the host in a container.

use std::fs;
use std::path::Path;

use berth_oci::runtime::{Device, DeviceRule, Resources, Spec};
use berth_types::{Error, Result};
use rustix::fs::{AtFlags, CWD, FileType, major, minor};

use crate::HostConfig;
use crate::parse::{DeviceRequest, device_rule};

/// How deep folders of devices go.
const MAX_DEPTH: usize = 4;

pub(super) fn apply(spec: &mut Spec, host: &HostConfig) -> Result<()> {
    let Some(linux) = &mut spec.linux else { return Ok(()) };
    let resources = linux.resources.get_or_insert_with(Resources::default);
    if host.privileged {
        resources.devices = vec![DeviceRule { allow: true, access: "rwm".into(), ..DeviceRule::default() }];
        collect(Path::new("/dev"), "/dev", 0, &mut |_, device| linux.devices.push(device))?;
        return Ok(());
    }
    for request in &host.devices {
        let found = requested(request)?;
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

fn requested(request: &DeviceRequest) -> Result<Vec<Device>> {
    #[expect(clippy::disallowed_methods, reason = "a device of the host, named by its administrator")]
    let path = fs::canonicalize(&request.host).map_err(|error| {
        let text =
            format!("error gathering device information while adding custom device \"{}\"", request.host);
        Error::io(text, error)
    })?;
    if let Some(device) = device(&path, &request.container) {
        return Ok(vec![device]);
    }
    let mut found = Vec::new();
    if path.is_dir() {
        collect(&path, &request.container, 0, &mut |_, device| found.push(device))?;
    }
    Ok(found)
}

fn collect(folder: &Path, target: &str, depth: usize, found: &mut dyn FnMut(&Path, Device)) -> Result<()> {
    // What the runtime makes itself, or what would be the host's own terminals and memory.
    const LEFT_OUT: [&str; 7] = ["pts", "shm", "fd", "mqueue", ".lxc", ".lxd-mounts", "console"];
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(_) if depth > 0 => return Ok(()),
        Err(error) => return Err(Error::io(format!("cannot list {}", folder.display()), error)),
    };
    for entry in entries.flatten() {
        let name = entry.file_name();
        let name = name.to_string_lossy();
        if LEFT_OUT.contains(&name.as_ref()) {
            continue;
        }
        let target = format!("{target}/{name}");
        match entry.file_type() {
            Ok(kind) if kind.is_dir() && depth < MAX_DEPTH => {
                collect(&entry.path(), &target, depth + 1, found)?;
            }
            Ok(kind) if kind.is_symlink() => {}
            _ => {
                if let Some(device) = device(&entry.path(), &target) {
                    found(&entry.path(), device);
                }
            }
        }
    }
    Ok(())
}

/// The device at a path, none if something else is there.
fn device(path: &Path, target: &str) -> Option<Device> {
    let stat = rustix::fs::statat(CWD, path, AtFlags::SYMLINK_NOFOLLOW).ok()?;
    let kind = match FileType::from_raw_mode(stat.st_mode) {
        FileType::CharacterDevice => "c",
        FileType::BlockDevice => "b",
        _ => return None,
    };
    Some(Device {
        path: target.to_owned(),
        kind: kind.to_owned(),
        major: i64::from(major(stat.st_rdev)),
        minor: i64::from(minor(stat.st_rdev)),
        file_mode: Some(stat.st_mode & 0o7777),
        uid: Some(stat.st_uid),
        gid: Some(stat.st_gid),
    })
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
