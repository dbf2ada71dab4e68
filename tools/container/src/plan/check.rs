//! What a configuration must and must not say.

use berth_oci::runtime::{Linux, NamespaceKind, Spec};

use super::program::{selinux, without_selinux};
use crate::error::{Error, Result};

fn invalid<T>(what: impl Into<String>) -> Result<T> {
    Err(Error::Config { what: what.into() })
}

/// Refuses what cannot be meant or would act on the host.
pub(crate) fn spec(spec: &Spec) -> Result<()> {
    let Some(root) = &spec.root else { return invalid("root is missing") };
    if root.path.is_empty() {
        return invalid("root.path is empty");
    }
    let Some(linux) = &spec.linux else { return invalid("linux is missing: this runtime runs on Linux") };
    namespaces(linux)?;
    let has = |kind: &NamespaceKind| linux.namespace(kind).is_some();
    if !has(&NamespaceKind::Mount) {
        return invalid("a container needs a mount namespace: add {\"type\":\"mount\"} to linux.namespaces");
    }
    if linux.namespace(&NamespaceKind::Mount).is_some_and(|n| !n.path.is_empty()) {
        return invalid(
            "linux.namespaces: a mount namespace cannot be joined, since the root is mounted in it",
        );
    }
    if !spec.hostname.is_empty() && !has(&NamespaceKind::Uts) {
        return invalid("unable to set hostname without a private UTS namespace");
    }
    if !spec.domainname.is_empty() && !has(&NamespaceKind::Uts) {
        return invalid("unable to set domainname without a private UTS namespace");
    }
    if !linux.uid_mappings.is_empty() && !has(&NamespaceKind::User) {
        return invalid("user namespace mappings specified, but user namespace isn't enabled in the config");
    }
    if !linux.time_offsets.is_empty() && !has(&NamespaceKind::Time) {
        return invalid("time namespace offsets specified, but time namespace isn't enabled in the config");
    }
    for path in linux.masked_paths.iter().chain(&linux.readonly_paths) {
        if !path.starts_with('/') {
            return invalid(format!("path {path:?} to mask or make read-only must be absolute"));
        }
    }
    if !linux.mount_label.is_empty() && !selinux() {
        return Err(Error::Unsupported { what: without_selinux("linux.mountLabel", &linux.mount_label) });
    }
    for key in linux.sysctl.keys() {
        sysctl(key, linux)?;
    }
    Ok(())
}

fn namespaces(linux: &Linux) -> Result<()> {
    for (n, namespace) in linux.namespaces.iter().enumerate() {
        if let NamespaceKind::Other(name) = &namespace.kind {
            return invalid(format!("namespace {name:?} does not exist"));
        }
        if linux.namespaces[..n].iter().any(|earlier| earlier.kind == namespace.kind) {
            return invalid(format!("namespace {:?} is given twice", namespace.kind));
        }
    }
    let new_user = linux.namespace(&NamespaceKind::User).is_some_and(|n| n.path.is_empty());
    if new_user && (linux.uid_mappings.is_empty() || linux.gid_mappings.is_empty()) {
        return invalid("a new user namespace needs uidMappings and gidMappings");
    }
    Ok(())
}

/// Parameters of the IPC namespace that are not below `fs.mqueue`.
const IPC: [&str; 8] = [
    "kernel.msgmax",
    "kernel.msgmnb",
    "kernel.msgmni",
    "kernel.sem",
    "kernel.shmall",
    "kernel.shmmax",
    "kernel.shmmni",
    "kernel.shm_rmid_forced",
];

/// Only parameters of namespaces that the container does not share with the host.
fn sysctl(key: &str, linux: &Linux) -> Result<()> {
    let name = normalize(key);
    let own = |kind: NamespaceKind| linux.namespace(&kind).is_some();
    let fine = if IPC.contains(&name.as_str()) || name.starts_with("fs.mqueue.") {
        own(NamespaceKind::Ipc)
    } else if name.starts_with("net.") {
        own(NamespaceKind::Network)
    } else if name == "kernel.domainname" || name == "kernel.hostname" {
        own(NamespaceKind::Uts)
    } else if name.starts_with("user.") {
        own(NamespaceKind::User)
    } else {
        false
    };
    if fine && !name.split('.').any(|part| part.chars().all(|c| c == '/')) {
        return Ok(());
    }
    invalid(format!("sysctl {key:?} is not in a separate kernel namespace"))
}

/// With dots between the parts, as sysctl(8) has it; with slashes they are swapped.
fn normalize(key: &str) -> String {
    match key.find(['.', '/']) {
        Some(at) if key.as_bytes()[at] == b'/' => key
            .chars()
            .map(|c| match c {
                '/' => '.',
                '.' => '/',
                c => c,
            })
            .collect(),
        _ => key.to_owned(),
    }
}

/// The file of a parameter below /proc/sys.
pub(super) fn sysctl_path(key: &str) -> String {
    normalize(key)
        .chars()
        .map(|c| match c {
            '.' => '/',
            '/' => '.',
            c => c,
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use berth_oci::runtime::Namespace;

    use super::*;

    #[test]
    fn sysctls_of_shared_namespaces_are_refused() {
        let kinds = [NamespaceKind::Network, NamespaceKind::Ipc];
        let namespaces = kinds.map(|kind| Namespace { kind, path: String::new() }).into();
        let linux = Linux { namespaces, ..Default::default() };
        for fine in
            ["net.ipv4.ip_forward", "net/ipv4/conf/eth0.1/rp_filter", "kernel.shmmax", "fs.mqueue.msg_max"]
        {
            assert!(sysctl(fine, &linux).is_ok(), "{fine}");
        }
        for bad in ["vm.swappiness", "kernel.hostname", "kernel.panic", "net", "user.max_user_namespaces"] {
            assert!(sysctl(bad, &linux).is_err(), "{bad}");
        }
        assert_eq!(sysctl_path("net/ipv4/conf/eth0.1/rp_filter"), "net/ipv4/conf/eth0.1/rp_filter");
        assert_eq!(sysctl_path("net.ipv4.ip_forward"), "net/ipv4/ip_forward");
    }
}
