//! Namespaces, kernel parameters and the place of the cgroup.

use berth_oci::runtime::{Linux, Namespace, NamespaceKind, Spec, sysctl_home};
use berth_types::{Error, Result};

use super::Inputs;
use crate::{HostConfig, Network};

pub(super) fn apply(spec: &mut Spec, inputs: &Inputs<'_>) -> Result<()> {
    let host = &inputs.definition.host;
    let Some(linux) = &mut spec.linux else { return Ok(()) };
    if !host.cgroup_parent.is_empty() {
        linux.cgroups_path = cgroup(&host.cgroup_parent, inputs.id.as_str())?;
    }
    match (host.network()?, inputs.network) {
        (Network::Host, _) => share(linux, NamespaceKind::Network, String::new()),
        (Network::None, _) => {}
        (Network::Named | Network::Container, Some(path)) => {
            share(linux, NamespaceKind::Network, path.to_string_lossy().into_owned());
        }
        (Network::Named | Network::Container, None) => {
            return Err(Error::not_found(format!("network {} not found", host.network_mode)));
        }
    }
    joined(linux, NamespaceKind::Pid, "--pid", &host.pid_mode, inputs)?;
    match host.ipc_mode.as_str() {
        "" | "private" | "shareable" | "none" => {}
        mode => joined(linux, NamespaceKind::Ipc, "--ipc", mode, inputs)?,
    }
    match host.uts_mode.as_str() {
        "" | "private" => {}
        mode => joined(linux, NamespaceKind::Uts, "--uts", mode, inputs)?,
    }
    if host.uts_mode == "host" {
        spec.hostname.clear();
        spec.domainname.clear();
    }
    match host.cgroupns_mode.as_str() {
        "" | "private" => {
            linux.namespaces.push(Namespace { kind: NamespaceKind::Cgroup, path: String::new() });
        }
        "host" => {}
        other => return Err(Error::invalid_argument(format!("invalid --cgroupns mode: {other}"))),
    }
    linux.sysctl = sysctls(host)?;
    Ok(())
}

fn joined(linux: &mut Linux, kind: NamespaceKind, flag: &str, mode: &str, inputs: &Inputs<'_>) -> Result<()> {
    let file = match kind {
        NamespaceKind::Pid => "pid",
        NamespaceKind::Ipc => "ipc",
        _ => "uts",
    };
    match mode {
        "" | "private" => {}
        "host" => share(linux, kind, String::new()),
        _ => {
            let Some(peer) = mode.strip_prefix("container:") else {
                return Err(Error::invalid_argument(format!("{flag}: invalid mode: {mode}")));
            };
            let pid = (inputs.peer)(peer)?;
            share(linux, kind, format!("/proc/{pid}/ns/{file}"));
        }
    }
    Ok(())
}

/// Takes another namespace instead of a new one: the host's for an empty path.
fn share(linux: &mut Linux, kind: NamespaceKind, path: String) {
    linux.namespaces.retain(|namespace| namespace.kind != kind);
    if !path.is_empty() {
        linux.namespaces.push(Namespace { kind, path });
    }
}

fn cgroup(parent: &str, id: &str) -> Result<String> {
    if parent.split('/').any(|part| part == "..") || parent.contains('\n') {
        return Err(Error::invalid_argument(format!("invalid cgroup parent {parent:?}")));
    }
    // systemd's form is slice:prefix:name.
    if std::path::Path::new(parent).extension().is_some_and(|kind| kind == "slice") && !parent.contains('/') {
        return Ok(format!("{parent}:berth:{id}"));
    }
    Ok(format!("/{}/{id}", parent.trim_matches('/')))
}

/// Kernel parameters. Only those of the container's own namespaces may be set, or they would be the host's.
fn sysctls(host: &HostConfig) -> Result<std::collections::BTreeMap<String, String>> {
    let network = host.network()?;
    let mut set = std::collections::BTreeMap::new();
    if network != Network::Host && !host.privileged {
        set.insert("net.ipv4.ip_unprivileged_port_start".to_owned(), "0".to_owned());
        set.insert("net.ipv4.ping_group_range".to_owned(), "0 2147483647".to_owned());
    }
    for (name, value) in &host.sysctls {
        let wrong = |why: &str| Err(Error::invalid_argument(format!("sysctl '{name}={value}': {why}")));
        if value.contains(['\n', '\0']) {
            return wrong("the value must be on one line");
        }
        match sysctl_home(name) {
            Some(NamespaceKind::Network) if network == Network::Host => {
                return wrong("not allowed as the container shares the host's network");
            }
            Some(NamespaceKind::Ipc) if host.ipc_mode == "host" => {
                return wrong("not allowed as the container shares the host's IPC namespace");
            }
            Some(NamespaceKind::Uts) if host.uts_mode == "host" => {
                return wrong("not allowed as the container shares the host's UTS namespace");
            }
            Some(_) => {}
            None => {
                return wrong(
                    "it would change the host: only net., IPC and UTS parameters are a container's own",
                );
            }
        }
        set.insert(name.replace('/', "."), value.clone());
    }
    Ok(set)
}
