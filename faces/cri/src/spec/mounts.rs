//! What is mounted in a container.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use berth_oci::runtime::{Linux, Mount, Spec, default};
use berth_proto::runtime::v1 as proto;
use berth_sys::mount::info::{self, MountInfo};
use berth_types::{Error, Result};
use proto::MountPropagation;

use super::{Inputs, Volume, to_spec};
use crate::pod::{Users, maps};

pub(super) fn apply(spec: &mut Spec, inputs: &Inputs<'_>) -> Result<()> {
    let security = inputs.security();
    let Some(linux) = &mut spec.linux else { return Ok(()) };
    let is_writable = security.privileged || inputs.pod.handler.cgroup_writable;
    spec.mounts.push(cgroup(is_writable));
    if security.privileged {
        for mount in spec.mounts.iter_mut().filter(|mount| mount.kind == "sysfs") {
            mount.options.retain(|option| option != "ro");
            mount.options.push("rw".to_owned());
        }
    }
    let mut more = Vec::new();
    for wanted in &inputs.config.mounts {
        if wanted.image.as_ref().is_some_and(|image| !image.image.is_empty()) {
            // Those come as volumes: whoever made the container has mounted the image.
            continue;
        }
        more.push(bind(wanted, linux)?);
    }
    for volume in inputs.volumes {
        more.push(of_volume(volume, inputs.pod.users().as_ref()));
    }
    for ours in of_pod(inputs, security.readonly_rootfs) {
        if more.iter().all(|mount| clean(&mount.destination) != ours.destination) {
            more.push(ours);
        }
    }
    // What lies deeper comes later, so that nothing is covered.
    more.sort_by_key(|mount| clean(&mount.destination).split('/').count());
    // A request may put something in the place of what is always there.
    let taken: Vec<String> = more.iter().map(|mount| clean(&mount.destination)).collect();
    spec.mounts.retain(|mount| !taken.contains(&clean(&mount.destination)));
    spec.mounts.extend(more);
    Ok(())
}

fn cgroup(is_writable: bool) -> Mount {
    let mut mount = default::cgroup_mount();
    if is_writable {
        mount.options.retain(|option| option != "ro");
        mount.options.push("rw".to_owned());
    }
    mount
}

/// What a pod's containers share: names, name service, shared memory.
fn of_pod(inputs: &Inputs<'_>, is_readonly: bool) -> Vec<Mount> {
    let pod = inputs.pod;
    let access = if is_readonly { "ro" } else { "rw" };
    let file = |target: &str, name: &str| plain(target, &pod.file(name), &["rbind", "rprivate", access]);
    vec![
        file("/etc/hostname", "hostname"),
        file("/etc/hosts", "hosts"),
        file("/etc/resolv.conf", "resolv.conf"),
        plain("/dev/shm", &pod.shared_memory(), &["rbind", "rprivate", "nosuid", "nodev", "noexec", "rw"]),
    ]
}

fn of_volume(volume: &Volume, users: Option<&Users>) -> Mount {
    let access = if volume.is_readonly { "ro" } else { "rw" };
    let mut mount = plain(&volume.target, &volume.source, &["rbind", "rprivate", access]);
    // A snapshot for a user namespace belongs to it already.
    if let Some(users) = users.filter(|_| !volume.is_readonly) {
        mount.uid_mappings = to_spec(&users.uids);
        mount.gid_mappings = to_spec(&users.gids);
    }
    mount
}

fn plain(target: &str, source: &Path, options: &[&str]) -> Mount {
    Mount {
        destination: target.to_owned(),
        kind: "bind".to_owned(),
        source: source.display().to_string(),
        options: options.iter().map(|option| (*option).to_owned()).collect(),
        ..Mount::default()
    }
}

/// A mount of the request, whose source is a path of the host: made as a folder if it is not there, as in containerd.
fn bind(wanted: &proto::Mount, linux: &mut Linux) -> Result<Mount> {
    let (host, target) = (Path::new(&wanted.host_path), &wanted.container_path);
    let failed =
        |why: String| Error::invalid_argument(format!("cannot mount {} at {target}: {why}", host.display()));
    if !target.starts_with('/') && target.is_empty() {
        return Err(failed("the path in the container is empty".to_owned()));
    }
    let source =
        source(host).map_err(|error| Error::io(format!("cannot mount {}", host.display()), error))?;
    let propagation = match wanted.propagation() {
        MountPropagation::PropagationPrivate => "rprivate",
        MountPropagation::PropagationHostToContainer => {
            spread(&source, |mount| mount.is_shared() || mount.is_slave()).map_err(failed)?;
            if linux.rootfs_propagation != "rshared" {
                linux.rootfs_propagation = "rslave".to_owned();
            }
            "rslave"
        }
        MountPropagation::PropagationBidirectional => {
            spread(&source, MountInfo::is_shared).map_err(failed)?;
            linux.rootfs_propagation = "rshared".to_owned();
            "rshared"
        }
    };
    let access = match (wanted.readonly, wanted.recursive_read_only) {
        (false, true) => {
            return Err(failed("recursive_read_only needs readonly".to_owned()));
        }
        (true, true) if propagation != "rprivate" => {
            return Err(failed("recursive_read_only needs private propagation".to_owned()));
        }
        (true, true) => "rro",
        (true, false) => "ro",
        (false, false) => "rw",
    };
    let mut mount = plain(target, &source, &["rbind", propagation, access]);
    mount.uid_mappings = to_spec(&maps(&wanted.uid_mappings));
    mount.gid_mappings = to_spec(&maps(&wanted.gid_mappings));
    Ok(mount)
}

/// Where the path really is. Kubernetes takes the host's links as they are.
fn source(host: &Path) -> io::Result<PathBuf> {
    #[expect(clippy::disallowed_methods, reason = "a path of the host, named by its administrator")]
    match fs::canonicalize(host) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            fs::create_dir_all(host)?;
            fs::canonicalize(host)
        }
        found => found,
    }
}

/// Checks that the mount which a source lies on can pass mounts on.
fn spread(source: &Path, can: impl Fn(&MountInfo) -> bool) -> Result<(), String> {
    let found = info::of(source).map_err(|error| format!("its mount cannot be found: {error}"))?;
    if can(&found) {
        return Ok(());
    }
    let point = found.point.display();
    Err(format!(
        "it lies on {point}, whose mounts are not shared: mount --make-rshared {point} would share them"
    ))
}

/// A path without slashes that mean nothing.
fn clean(path: &str) -> String {
    let parts: Vec<&str> = path.split('/').filter(|part| !part.is_empty() && *part != ".").collect();
    format!("/{}", parts.join("/"))
}
