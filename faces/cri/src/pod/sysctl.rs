//! Kernel parameters of a pod's namespaces.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io;
use std::os::fd::AsFd as _;
use std::path::PathBuf;
use std::sync::Arc;

use berth_oci::runtime::{NamespaceKind, sysctl_home};
use berth_sys::held;
use berth_types::{Error, Result};

use super::Pod;
use crate::Cri;
use crate::blocking::blocking;

impl Cri {
    /// Sets what was asked for and what is configured, once the pod is on its networks: some name its devices.
    pub(super) async fn set_kernel_parameters(&self, pod: &Arc<Pod>) -> Result<()> {
        let parameters = self.parameters(pod)?;
        if parameters.is_empty() {
            return Ok(());
        }
        let files: Vec<PathBuf> = pod.ipc().into_iter().chain(pod.facts().network).collect();
        blocking(move || set(&files, &parameters)).await
    }

    fn parameters(&self, pod: &Pod) -> Result<Vec<(String, String)>> {
        let mut all = BTreeMap::new();
        if !pod.is_on_host_network() {
            if self.config.pods.unprivileged_ports {
                all.insert("net.ipv4.ip_unprivileged_port_start".to_owned(), "0".to_owned());
            }
            // Groups of a user namespace are its own.
            if self.config.pods.unprivileged_icmp && pod.users().is_none() {
                all.insert("net.ipv4.ping_group_range".to_owned(), "0 2147483647".to_owned());
            }
        }
        for (name, value) in pod.linux().sysctls {
            let hosts = match sysctl_home(&name) {
                Some(NamespaceKind::Network) => pod.is_on_host_network().then_some("network"),
                Some(NamespaceKind::Ipc) => pod.has_host_ipc().then_some("IPC"),
                _ => {
                    return Err(Error::invalid_argument(format!(
                        "sysctl {name:?} is not in a separate kernel namespace: setting it in a pod would set it \
                         for the host"
                    )));
                }
            };
            if let Some(kind) = hosts {
                return Err(Error::invalid_argument(format!(
                    "sysctl {name} cannot be set: the pod has the host's {kind} namespace"
                )));
            }
            if value.contains('\n') || value.contains('\0') {
                return Err(Error::invalid_argument(format!(
                    "sysctl {name} cannot have the value {value:?}"
                )));
            }
            all.insert(name.replace('/', "."), value);
        }
        Ok(all.into_iter().collect())
    }
}

fn set(files: &[PathBuf], parameters: &[(String, String)]) -> Result<()> {
    let enter = || -> io::Result<Vec<File>> { files.iter().map(File::open).collect() };
    let files = enter().map_err(|error| Error::io("cannot open the pod's namespaces", error))?;
    let namespaces: Vec<_> = files.iter().map(|file| file.as_fd()).collect();
    let done = held::inside(&namespaces, || {
        Ok(parameters.iter().try_for_each(|(name, value)| {
            let path = PathBuf::from("/proc/sys").join(name.replace('.', "/"));
            fs::write(&path, value)
                .map_err(|error| Error::io(format!("cannot set sysctl {name} to {value:?}"), error))
        }))
    });
    done.map_err(|error| Error::io("cannot enter the pod's namespaces", error))?
}
