//! The runtime specification of a container, from what was asked for.
//!
//! Nothing here talks to a daemon. The host is looked at where the specification needs a fact of it: the
//! numbers of a device, the pid behind `container:…`, the processors that have a thermal file.

mod capabilities;
mod devices;
mod isolation;
mod mounts;
mod process;
mod resources;
mod seccomp;
mod security;

use std::path::Path;

use berth_oci::runtime::{Spec, default};
use berth_types::{ContainerId, Namespace, Result};

pub use self::capabilities::known as known_capabilities;
pub(crate) use self::process::merge as environment_merge;
pub use self::process::{ExecOptions, environment, exec_process};
pub use self::resources::resources;

use crate::Definition;

/// Where an init of ours lies in a container that asked for one.
pub const INIT: &str = "/sbin/docker-init";

/// What a specification is built from, beside what was asked for.
pub struct Inputs<'a> {
    /// The container.
    pub id: &'a ContainerId,
    /// Its namespace.
    pub namespace: &'a Namespace,
    /// What was asked for, with what the image says already merged in.
    pub definition: &'a Definition,
    /// Our folder of the container.
    pub folder: &'a Path,
    /// The network namespace that it joins, if it does not get a new one.
    pub network: Option<&'a Path>,
    /// The program that is its first process with `--init`.
    pub init: &'a Path,
    /// The pid of the container that a namespace mode (`container:…`) names.
    pub peer: &'a dyn Fn(&str) -> Result<u32>,
}

/// Builds the specification.
pub fn build(inputs: &Inputs<'_>) -> Result<Spec> {
    let mut spec = default::spec(inputs.namespace.as_str(), inputs.id.as_str());
    // A program may keep something in /run of its image, so nothing is mounted over it as containerd does.
    spec.mounts.retain(|mount| mount.destination != "/run");
    let host = &inputs.definition.host;
    if let Some(root) = &mut spec.root {
        root.readonly = host.readonly_rootfs;
        if let Some(folder) = &inputs.definition.rootfs {
            root.path.clone_from(folder);
        }
    }
    spec.hostname.clone_from(&inputs.definition.config.hostname);
    spec.domainname.clone_from(&inputs.definition.config.domainname);
    spec.annotations.clone_from(&host.annotations);
    isolation::apply(&mut spec, inputs)?;
    process::apply(&mut spec, inputs)?;
    security::apply(&mut spec, host)?;
    devices::apply(&mut spec, host)?;
    mounts::apply(&mut spec, inputs)?;
    if let Some(linux) = &mut spec.linux {
        let devices = linux.resources.take().map(|resources| resources.devices).unwrap_or_default();
        linux.resources = Some(berth_oci::runtime::Resources { devices, ..resources(host)? });
    }
    devices::apply_described(&mut spec, host)?;
    Ok(spec)
}

#[cfg(test)]
mod tests;
