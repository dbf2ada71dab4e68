//! Kernel parameters that belong to a namespace.

use super::NamespaceKind;

/// Those of System V IPC (namespaces(7), sysvipc(7)).
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

/// The kind of namespace that a parameter belongs to, by its name with dots or slashes. None for one that is the whole
/// host's, and for what is no name.
pub fn sysctl_home(name: &str) -> Option<NamespaceKind> {
    let dotted = name.replace('/', ".");
    let is_word = |word: &str| {
        !word.is_empty() && word.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_-@".contains(&byte))
    };
    if !dotted.split('.').all(is_word) {
        return None;
    }
    match dotted.as_str() {
        name if name.starts_with("net.") => Some(NamespaceKind::Network),
        name if IPC.contains(&name) || name.starts_with("fs.mqueue.") => Some(NamespaceKind::Ipc),
        "kernel.domainname" | "kernel.hostname" => Some(NamespaceKind::Uts),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_parameters_of_a_namespace_have_a_home() {
        assert_eq!(sysctl_home("net.core.somaxconn"), Some(NamespaceKind::Network));
        assert_eq!(sysctl_home("net/ipv4/conf/eth0/arp_notify"), Some(NamespaceKind::Network));
        assert_eq!(sysctl_home("kernel.shm_rmid_forced"), Some(NamespaceKind::Ipc));
        assert_eq!(sysctl_home("fs.mqueue.msg_max"), Some(NamespaceKind::Ipc));
        assert_eq!(sysctl_home("kernel.hostname"), Some(NamespaceKind::Uts));
        for name in
            ["kernel.panic", "vm.swappiness", "net/../kernel/panic", "net.a=b", "net.a b", "net.a+b", ""]
        {
            assert_eq!(sysctl_home(name), None, "{name}");
        }
    }
}
