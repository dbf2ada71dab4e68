//! The mounts of a container: the default ones, those that were asked for, and its own files.

use berth_oci::runtime::{Mount, Spec, default};
use berth_types::{Error, Result};

use super::{INIT, Inputs};
use crate::HostConfig;
use crate::definition::MountPoint;
use crate::parse::MountKind;

/// What Docker gives a tmpfs that says nothing else.
const TMPFS: [&str; 3] = ["noexec", "nosuid", "nodev"];

pub(super) fn apply(spec: &mut Spec, inputs: &Inputs<'_>) -> Result<()> {
    let host = &inputs.definition.host;
    let mut cgroup = default::cgroup_mount();
    if host.privileged || host.security_opt.iter().any(|option| option.starts_with("writable-cgroups")) {
        cgroup.options.retain(|option| option != "ro");
    }
    spec.mounts.push(cgroup);
    shared_memory(&mut spec.mounts, host)?;
    let mut wanted: Vec<Mount> = Vec::with_capacity(inputs.definition.mounts.len());
    for point in &inputs.definition.mounts {
        if wanted.iter().any(|mount| mount.destination == point.destination) {
            return Err(Error::invalid_argument(format!("Duplicate mount point: {}", point.destination)));
        }
        wanted.push(mount(point));
    }
    // Whoever mounts something of their own gets it instead of ours; /dev/shm beneath an own /dev stays theirs.
    spec.mounts.retain(|ours| {
        !wanted.iter().any(|own| {
            own.destination == ours.destination
                || (own.destination == "/dev" && ours.destination.starts_with("/dev/"))
                || (own.destination == "/sys" && ours.destination.starts_with("/sys/"))
        })
    });
    // The container's own files lie on top of whatever is mounted around them.
    let own = own_files(inputs);
    let own = own.into_iter().filter(|file| wanted.iter().all(|mount| mount.destination != file.destination));
    let mut wanted: Vec<Mount> = own.chain(wanted.iter().cloned()).collect();
    wanted.sort_by_key(|mount| mount.destination.matches('/').count());
    spec.mounts.extend(wanted);
    if host.init == Some(true) {
        spec.mounts.push(bind(&inputs.init.to_string_lossy(), INIT, &["rbind", "rprivate", "ro"]));
    }
    Ok(())
}

fn bind(source: &str, destination: &str, options: &[&str]) -> Mount {
    Mount {
        destination: destination.to_owned(),
        kind: "bind".to_owned(),
        source: source.to_owned(),
        options: options.iter().map(|option| (*option).to_owned()).collect(),
        ..Mount::default()
    }
}

fn mount(point: &MountPoint) -> Mount {
    if point.kind == MountKind::Tmpfs {
        let mut options: Vec<String> = TMPFS.iter().map(|option| (*option).to_owned()).collect();
        for option in &point.options {
            let opposite = option.strip_prefix("no").map_or_else(|| format!("no{option}"), str::to_owned);
            options.retain(|known| *known != opposite && known != option);
            options.push(option.clone());
        }
        return Mount {
            destination: point.destination.clone(),
            kind: "tmpfs".to_owned(),
            source: "tmpfs".to_owned(),
            options,
            ..Mount::default()
        };
    }
    Mount {
        destination: point.destination.clone(),
        kind: "bind".to_owned(),
        source: point.source.clone(),
        options: point.options.clone(),
        ..Mount::default()
    }
}

fn shared_memory(mounts: &mut Vec<Mount>, host: &HostConfig) -> Result<()> {
    match host.ipc_mode.as_str() {
        "host" => {
            mounts.retain(|mount| !matches!(mount.destination.as_str(), "/dev/shm" | "/dev/mqueue"));
            mounts.push(bind("/dev/shm", "/dev/shm", &["rbind", "rprivate", "nosuid", "noexec", "nodev"]));
            mounts.push(bind("/dev/mqueue", "/dev/mqueue", &["rbind", "nosuid", "noexec", "nodev"]));
        }
        "none" => mounts.retain(|mount| mount.destination != "/dev/shm"),
        _ if host.shm_size > 0 => {
            for mount in mounts.iter_mut().filter(|mount| mount.destination == "/dev/shm") {
                mount.options.retain(|option| !option.starts_with("size="));
                mount.options.push(format!("size={}", host.shm_size));
            }
        }
        _ => {}
    }
    Ok(())
}

fn own_files(inputs: &Inputs<'_>) -> [Mount; 3] {
    ["resolv.conf", "hostname", "hosts"].map(|name| {
        let source = inputs.folder.join(name);
        bind(&source.to_string_lossy(), &format!("/etc/{name}"), &["rbind", "rprivate"])
    })
}
