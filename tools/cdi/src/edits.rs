//! What a container gets, written into its document.

use std::io;
use std::path::Path;

use berth_oci::runtime::{Device, DeviceRule, Hook, IntelRdt, Linux, Mount, NetDevice, Process, Spec};
use rustix::fs::{AtFlags, CWD, FileType, major, minor};

use crate::document::{self, DeviceNode, Edits};

/// A device of the host that is not as its description wants it.
#[derive(Debug, thiserror::Error)]
pub(crate) enum EditError {
    #[error("the host's device {path}: {reason}")]
    Host { path: String, reason: io::Error },
    #[error("the host's {path} is no device")]
    NoDevice { path: String },
    #[error("the host's device {path} is of type {is}, and its description says {said}")]
    Kind { path: String, is: &'static str, said: String },
}

pub(crate) fn apply(spec: &mut Spec, edits: &Edits) -> Result<(), EditError> {
    let Edits { env, device_nodes, net_devices, hooks, mounts, intel_rdt, additional_gids } = edits;
    let process = spec.process.get_or_insert_default();
    env.iter().for_each(|line| set(&mut process.env, line));
    for group in additional_gids.iter().filter(|group| **group != 0) {
        if !process.user.additional_gids.contains(group) {
            process.user.additional_gids.push(*group);
        }
    }
    let linux = spec.linux.get_or_insert_default();
    for node in device_nodes {
        add_device(linux, process, node)?;
    }
    for document::NetDevice { host_interface_name, name } in net_devices {
        linux.net_devices.insert(host_interface_name.clone(), NetDevice { name: name.clone() });
    }
    if let Some(rdt) = intel_rdt {
        linux.intel_rdt = Some(IntelRdt {
            clos_id: rdt.clos_id.clone(),
            schemata: rdt.schemata.clone(),
            l3_cache_schema: rdt.l3_cache_schema.clone(),
            mem_bw_schema: rdt.mem_bw_schema.clone(),
            enable_monitoring: rdt.enable_monitoring,
        });
    }
    add_mounts(spec, mounts);
    hooks.iter().for_each(|hook| add_hook(spec, hook));
    Ok(())
}

/// Sets `NAME=VALUE`, over a value that was there.
fn set(env: &mut Vec<String>, line: &str) {
    let name = |line: &str| line.split('=').next().unwrap_or_default().to_owned();
    match env.iter_mut().find(|known| name(known) == name(line)) {
        Some(known) => line.clone_into(known),
        None => env.push(line.to_owned()),
    }
}

/// A device that is added may be used too. It belongs to the container's user unless its description says otherwise.
fn add_device(linux: &mut Linux, process: &Process, node: &DeviceNode) -> Result<(), EditError> {
    let mut device = completed(node)?;
    device.uid = device.uid.or(Some(process.user.uid).filter(|id| *id != 0));
    device.gid = device.gid.or(Some(process.user.gid).filter(|id| *id != 0));
    if matches!(device.kind.as_str(), "b" | "c") {
        let access = if node.permissions.is_empty() { "rwm" } else { &node.permissions };
        linux.resources.get_or_insert_default().devices.push(DeviceRule {
            allow: true,
            kind: device.kind.clone(),
            major: Some(device.major),
            minor: Some(device.minor),
            access: access.to_owned(),
        });
    }
    linux.devices.retain(|other| other.path != device.path);
    linux.devices.push(device);
    Ok(())
}

/// What a description leaves out is the host's. One that says type and number is whole without the host.
fn completed(node: &DeviceNode) -> Result<Device, EditError> {
    let host = if node.host_path.is_empty() { &node.path } else { &node.host_path };
    let mut device = Device {
        path: node.path.clone(),
        kind: node.kind.clone(),
        major: node.major,
        minor: node.minor,
        file_mode: node.file_mode,
        uid: node.uid,
        gid: node.gid,
    };
    let is_whole = !node.kind.is_empty() && (node.major != 0 || node.kind == "p");
    let stat = match rustix::fs::statat(CWD, Path::new(host), AtFlags::SYMLINK_NOFOLLOW) {
        Err(_) if is_whole => return Ok(device),
        Err(error) => return Err(EditError::Host { path: host.clone(), reason: error.into() }),
        Ok(stat) => stat,
    };
    let kind = match FileType::from_raw_mode(stat.st_mode) {
        FileType::BlockDevice => "b",
        FileType::CharacterDevice => "c",
        FileType::Fifo => "p",
        _ if is_whole => return Ok(device),
        _ => return Err(EditError::NoDevice { path: host.clone() }),
    };
    device.file_mode = device.file_mode.or(Some(stat.st_mode & 0o7777));
    if is_whole {
        return Ok(device);
    }
    if !device.kind.is_empty() && device.kind != kind {
        return Err(EditError::Kind { path: host.clone(), is: kind, said: device.kind });
    }
    kind.clone_into(&mut device.kind);
    if device.major == 0 && kind != "p" {
        device.major = i64::from(major(stat.st_rdev));
        device.minor = i64::from(minor(stat.st_rdev));
    }
    Ok(device)
}

/// What is mounted over comes first; otherwise the order stays.
fn add_mounts(spec: &mut Spec, mounts: &[document::Mount]) {
    if mounts.is_empty() {
        return;
    }
    for document::Mount { host_path, container_path, options, kind } in mounts {
        spec.mounts.retain(|mount| mount.destination != *container_path);
        spec.mounts.push(Mount {
            destination: container_path.clone(),
            kind: kind.clone(),
            source: host_path.clone(),
            options: options.clone(),
            ..Mount::default()
        });
    }
    let depth =
        |mount: &Mount| mount.destination.split('/').filter(|part| !matches!(*part, "" | ".")).count();
    spec.mounts.sort_by_key(depth);
}

fn add_hook(spec: &mut Spec, hook: &document::Hook) {
    let document::Hook { hook_name, path, args, env, timeout } = hook;
    let hooks = spec.hooks.get_or_insert_default();
    let list = match hook_name.as_str() {
        "prestart" => &mut hooks.prestart,
        "createRuntime" => &mut hooks.create_runtime,
        "createContainer" => &mut hooks.create_container,
        "startContainer" => &mut hooks.start_container,
        "poststart" => &mut hooks.poststart,
        // The others were refused when the file was read.
        _ => &mut hooks.poststop,
    };
    list.push(Hook { path: path.clone(), args: args.clone(), env: env.clone(), timeout: *timeout });
}
