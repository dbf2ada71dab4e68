//! Which namespaces a container joins, and which it has of its own.

use std::path::PathBuf;

use berth_oci::runtime::{Linux, Namespace, NamespaceKind, Spec};
use berth_types::Result;

use super::{Inputs, Processes, to_spec};

pub(super) fn apply(spec: &mut Spec, inputs: &Inputs<'_>) -> Result<()> {
    let pod = inputs.pod;
    let Some(linux) = &mut spec.linux else { return Ok(()) };
    join(linux, NamespaceKind::Network, pod.facts().network);
    join(linux, NamespaceKind::Ipc, pod.ipc());
    join(linux, NamespaceKind::Uts, pod.uts());
    if let Some(users) = pod.users() {
        join(linux, NamespaceKind::User, pod.user_namespace());
        linux.uid_mappings = to_spec(&users.uids);
        linux.gid_mappings = to_spec(&users.gids);
    }
    match &inputs.processes {
        Processes::Own => {}
        Processes::Host => join(linux, NamespaceKind::Pid, None),
        Processes::Of(path) => join(linux, NamespaceKind::Pid, Some(path.clone())),
    }
    if !inputs.security().privileged {
        linux.namespaces.push(Namespace { kind: NamespaceKind::Cgroup, path: String::new() });
    }
    // The names are those of the namespace.
    spec.hostname.clear();
    spec.domainname.clear();
    Ok(())
}

/// Takes a namespace that is there instead of a new one: the host's for none.
fn join(linux: &mut Linux, kind: NamespaceKind, path: Option<PathBuf>) {
    linux.namespaces.retain(|namespace| namespace.kind != kind);
    if let Some(path) = path {
        linux.namespaces.push(Namespace { kind, path: path.display().to_string() });
    }
}
