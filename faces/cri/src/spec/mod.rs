//! The runtime specification of a container, from what a kubelet asked for, its image and its pod.
//!
//! Nothing here talks to a store. The host is looked at where the specification needs a fact of it: devices, where a
//! mount's source really is, processors that have a thermal file. The order is containerd's, so that what overrides
//! what is the same.

pub(crate) mod annotations;
mod capabilities;
mod classes;
mod devices;
mod mounts;
mod namespaces;
mod process;
mod resources;
mod seccomp;
mod security;

use std::path::PathBuf;

use berth_oci::runtime::{IdMapping, Linux, Spec, default};
use berth_proto::runtime::v1 as proto;
use berth_rootfs::Identity;
use berth_types::Result;

use crate::config::Pods;
use crate::image::Facts;
use crate::pod::Pod;

pub(crate) use resources::resources;

/// The type of a specification among a container's fields.
pub(crate) const SPEC_TYPE: &str = "types.containerd.io/opencontainers/runtime-spec/1/Spec";
/// The same of a process, and of limits.
pub(crate) const PROCESS_TYPE: &str = "types.containerd.io/opencontainers/runtime-spec/1/Process";
pub(crate) const RESOURCES_TYPE: &str = "types.containerd.io/opencontainers/runtime-spec/1/LinuxResources";

/// What a specification is built from.
pub(crate) struct Inputs<'a> {
    /// What is configured.
    pub(crate) pods: &'a Pods,
    /// The pod.
    pub(crate) pod: &'a Pod,
    /// The container's id.
    pub(crate) id: &'a str,
    /// What was asked for.
    pub(crate) config: &'a proto::ContainerConfig,
    /// The image.
    pub(crate) image: &'a Facts,
    /// Who it runs as.
    pub(crate) user: &'a Identity,
    /// Whose processes it sees.
    pub(crate) processes: Processes,
    /// What is mounted at paths that the image or the request names: our folders, by their place in the container.
    pub(crate) volumes: &'a [Volume],
}

/// Whose processes a container sees.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Processes {
    /// Its own.
    Own,
    /// The host's.
    Host,
    /// Those of a namespace.
    Of(PathBuf),
}

/// A folder of ours that is mounted in a container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Volume {
    /// Where it is.
    pub(crate) source: PathBuf,
    /// Where it is in the container.
    pub(crate) target: String,
    /// Whether nobody can write it.
    pub(crate) is_readonly: bool,
}

impl Inputs<'_> {
    /// What was asked for on Linux.
    fn linux(&self) -> proto::LinuxContainerConfig {
        self.config.linux.clone().unwrap_or_default()
    }

    /// What keeps it in.
    fn security(&self) -> proto::LinuxContainerSecurityContext {
        self.linux().security_context.unwrap_or_default()
    }
}

/// Builds the specification.
pub(crate) fn build(inputs: &Inputs<'_>) -> Result<Spec> {
    let mut spec = match &inputs.pod.handler.base_spec {
        Some(base) => Spec::clone(base),
        None => base(),
    };
    if spec.linux.is_none() {
        spec.linux = Some(Linux::default());
    }
    if let Some(root) = &mut spec.root {
        root.readonly = inputs.security().readonly_rootfs;
    }
    annotations::apply(&mut spec, inputs);
    process::apply(&mut spec, inputs)?;
    security::apply(&mut spec, inputs)?;
    namespaces::apply(&mut spec, inputs)?;
    devices::apply(&mut spec, inputs)?;
    mounts::apply(&mut spec, inputs)?;
    resources::apply(&mut spec, inputs)?;
    classes::apply(&mut spec, inputs)?;
    if let Some(linux) = &mut spec.linux {
        linux.cgroups_path = cgroup_path(inputs.pod, inputs.id);
    }
    Ok(spec)
}

/// What containerd starts a kubelet's containers from: its defaults without limits of processes, and without a mount
/// over `/run`, in which an image may have something.
fn base() -> Spec {
    let mut spec = default::spec("", "");
    spec.mounts.retain(|mount| mount.destination != "/run");
    if let Some(process) = &mut spec.process {
        process.rlimits.clear();
        process.no_new_privileges = false;
    }
    spec
}

/// Mappings of ids as a specification has them.
pub(crate) fn to_spec(maps: &[berth_sys::userns::IdMapping]) -> Vec<IdMapping> {
    let one = |map: &berth_sys::userns::IdMapping| IdMapping {
        container_id: map.inside,
        host_id: map.outside,
        size: map.length,
    };
    maps.iter().map(one).collect()
}

/// The cgroup of one of a pod's containers: below the one that the kubelet has made for the pod.
pub(crate) fn cgroup_path(pod: &Pod, id: &str) -> String {
    let parent = pod.linux().cgroup_parent;
    if pod.handler.systemd_cgroup {
        let slice = parent.rsplit('/').next().unwrap_or_default();
        return format!("{slice}:cri-containerd:{id}");
    }
    if parent.is_empty() { format!("/k8s.io/{id}") } else { format!("/{}/{id}", parent.trim_matches('/')) }
}
