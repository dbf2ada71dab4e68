//! spec: a configuration to start from.

use std::path::Path;

use berth_oci::runtime::{Namespace, NamespaceKind, Spec, default, default_seccomp};

use super::{Failure, Outcome, args};

pub(super) fn spec(wanted: &args::Spec) -> Outcome {
    if wanted.rootless {
        return Err(Failure::new("this runtime needs root: there is no configuration for running without"));
    }
    let path = wanted.bundle.as_deref().unwrap_or(Path::new(".")).join("config.json");
    if path.exists() {
        return Err(Failure::new(format!("File {} exists. Remove it first", path.display())));
    }
    let text = serde_json::to_string_pretty(&template()).unwrap_or_default();
    std::fs::write(&path, text).map_err(|e| Failure::new(format!("cannot write {}: {e}", path.display())))?;
    Ok(0)
}

/// A shell on a terminal in everything of its own.
fn template() -> Spec {
    let mut spec = default::spec("default", "container");
    spec.hostname = "berth".into();
    let root = spec.root.get_or_insert_default();
    root.readonly = true;
    let process = spec.process.get_or_insert_default();
    process.terminal = true;
    process.args = vec!["sh".into()];
    process.env = vec![default::PATH_ENV.into(), "TERM=xterm".into()];
    let seccomp = default_seccomp(process.capabilities.as_ref());
    spec.mounts.push(default::cgroup_mount());
    let linux = spec.linux.get_or_insert_default();
    linux.cgroups_path.clear();
    linux.seccomp = Some(seccomp);
    linux.namespaces.push(Namespace { kind: NamespaceKind::Cgroup, path: String::new() });
    spec
}
