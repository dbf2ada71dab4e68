//! The files of a bundle that the shim reads and writes, under containerd's names.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use berth_types::{Error, Result};
use serde::Deserialize;

/// The annotations that name the group of containers which share a shim; the first one that is there counts.
const GROUPS: [&str; 2] = ["io.containerd.runc.v2.group", "io.kubernetes.cri.sandbox-id"];

/// The part of `config.json` that concerns the shim; the rest is the runtime's.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Spec {
    annotations: BTreeMap<String, String>,
    linux: Linux,
    process: Process,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Process {
    apparmor_profile: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Linux {
    namespaces: Vec<LinuxNamespace>,
}

#[derive(Debug, Deserialize)]
struct LinuxNamespace {
    #[serde(rename = "type")]
    kind: String,
    #[serde(default)]
    path: String,
}

impl Spec {
    /// Reads the bundle's `config.json`.
    pub(crate) fn read(bundle: &Path) -> Result<Self> {
        let path = bundle.join("config.json");
        let text = std::fs::read(&path)
            .map_err(|e| Error::io(format!("cannot read the container's spec {}", path.display()), e))?;
        serde_json::from_slice(&text).map_err(|e| {
            Error::invalid_argument(format!("{} is no runtime spec", path.display())).caused_by(e)
        })
    }

    /// The group of containers that it belongs to.
    pub(crate) fn group(&self) -> Option<&str> {
        GROUPS.iter().find_map(|name| self.annotations.get(*name)).map(String::as_str)
    }

    /// Whether it asks for berth's own profile of AppArmor, which other low-level runtimes do not load.
    pub(crate) fn asks_for_own_profile(&self) -> bool {
        self.process.apparmor_profile == berth_container::apparmor::DEFAULT
    }

    /// Whether the container has processes of its own only: then the kernel ends them with the first one.
    pub(crate) fn has_own_pids(&self) -> bool {
        self.linux.namespaces.iter().any(|one| one.kind == "pid" && one.path.is_empty())
    }
}

/// Writes a file that only its owner reads.
pub(crate) fn write_private(path: &Path, bytes: &[u8]) -> Result<()> {
    let failed = |e| Error::io(format!("cannot write {}", path.display()), e);
    let mut options = std::fs::OpenOptions::new();
    let mut file = options.write(true).create(true).truncate(true).mode(0o600).open(path).map_err(failed)?;
    file.write_all(bytes).map_err(failed)
}

/// Writes a file whose readers see it whole or not at all.
pub(crate) fn write_whole(path: &Path, bytes: &[u8]) -> Result<()> {
    let fresh = path.with_extension("fresh");
    std::fs::write(&fresh, bytes)
        .and_then(|()| std::fs::rename(&fresh, path))
        .map_err(|e| Error::io(format!("cannot write {}", path.display()), e))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_shims_own_group_comes_before_the_pods() {
        let parse = |text: &str| serde_json::from_str::<Spec>(text).unwrap();
        let both =
            r#"{"annotations":{"io.kubernetes.cri.sandbox-id":"pod","io.containerd.runc.v2.group":"g"}}"#;
        assert_eq!(parse(both).group(), Some("g"));
        assert_eq!(parse(r#"{"annotations":{"io.kubernetes.cri.sandbox-id":"pod"}}"#).group(), Some("pod"));
        assert_eq!(parse("{}").group(), None);
    }

    #[test]
    fn a_joined_pid_namespace_is_not_its_own() {
        let parse = |text: &str| serde_json::from_str::<Spec>(text).unwrap().has_own_pids();
        assert!(parse(r#"{"linux":{"namespaces":[{"type":"pid"}]}}"#));
        assert!(!parse(r#"{"linux":{"namespaces":[{"type":"pid","path":"/proc/1/ns/pid"}]}}"#));
        assert!(!parse("{}"));
    }
}
