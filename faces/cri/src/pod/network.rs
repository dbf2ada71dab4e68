//! Pods on networks, by the Container Network Interface.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;

use berth_cni::{Attachment, Cni, Settings};
use berth_proto::runtime::v1 as proto;
use berth_types::{Error, Result};
use serde_json::{Map, Value, json};

use super::Pod;
use crate::Cri;
use crate::blocking::blocking;
use crate::config::{Network, Pods};

/// The networks of every handler.
#[derive(Debug)]
pub(crate) struct Networks {
    default: Arc<Cni>,
    of_handlers: BTreeMap<String, Arc<Cni>>,
}

/// A pod on its networks.
pub(super) struct OnNetwork {
    /// Its addresses, the main one first.
    pub(super) addresses: Vec<IpAddr>,
    /// What the networks answered.
    pub(super) result: Value,
}

impl Networks {
    /// The networks that are configured. Nothing is read yet.
    pub(crate) fn new(pods: &Pods) -> Self {
        let of_handlers = pods.handlers.values().filter_map(|handler| {
            let network = handler.network.as_ref()?;
            Some((handler.name.clone(), Arc::new(cni(network))))
        });
        Self { default: Arc::new(cni(&pods.network)), of_handlers: of_handlers.collect() }
    }

    fn of(&self, handler: &str) -> Arc<Cni> {
        self.of_handlers.get(handler).unwrap_or(&self.default).clone()
    }

    /// Whether pods without a handler of their own can be put on a network; the error says what is missing. Asks
    /// plugins; blocking.
    pub(crate) async fn status(&self) -> Result<()> {
        let cni = self.default.clone();
        blocking(move || cni.status()).await
    }
}

fn cni(network: &Network) -> Cni {
    let Network { conf_dir, bin_dirs, max_conf_num, is_serial, in_process } = network.clone();
    Cni::new(Settings { conf_dir, bin_dirs, max_conf_num, is_serial, in_process, ..Settings::default() })
}

impl Networks {
    /// What putting a pod on its networks is called, for people.
    pub(super) fn told(&self, pod: &Pod) -> String {
        if pod.is_on_host_network() {
            return "the host's network".to_owned();
        }
        let loaded = self.of(&pod.handler.name).networks();
        let plugins = |network: &berth_cni::NetworkList| {
            let kinds: Vec<&str> = network.plugins.iter().map(|plugin| plugin.kind.as_str()).collect();
            format!("{}: {}", network.name, kinds.join(", "))
        };
        let networks: Vec<String> = loaded.networks.iter().map(plugins).collect();
        format!("networks (CNI ADD {})", networks.join("; "))
    }
}

impl Cri {
    /// Puts a pod on its networks; none for one on the host's.
    pub(super) async fn attach(&self, pod: &Arc<Pod>) -> Result<Option<OnNetwork>> {
        let Some(path) = pod.facts().network else { return Ok(None) };
        let cni = self.networks.of(&pod.handler.name);
        let attachment = attachment(pod, &path)?;
        let preference = self.config.pods.address_preference;
        blocking(move || {
            let attached = cni.add(&attachment)?;
            let addresses = preference.order(attached.addresses(&cni.main_device()));
            if addresses.is_empty() {
                return Err(Error::unknown(format!(
                    "the network gave the pod no address on {}: see the configuration in {}",
                    cni.main_device(),
                    cni.folder().path().display()
                )));
            }
            Ok(Some(OnNetwork { addresses, result: attached.to_value() }))
        })
        .await
    }

    /// Takes a pod off its networks. Idempotent, also when its namespace is gone.
    pub(super) async fn detach(&self, pod: &Arc<Pod>) -> Result<()> {
        let Some(path) = pod.facts().network else { return Ok(()) };
        let cni = self.networks.of(&pod.handler.name);
        let attachment = attachment(pod, &path)?;
        blocking(move || cni.del(&attachment)).await
    }
}

fn attachment(pod: &Pod, path: &Path) -> Result<Attachment> {
    let metadata = pod.metadata();
    let arguments = [
        ("IgnoreUnknown", "1".to_owned()),
        ("K8S_POD_NAMESPACE", metadata.namespace),
        ("K8S_POD_NAME", metadata.name),
        ("K8S_POD_INFRA_CONTAINER_ID", pod.id.to_string()),
        ("K8S_POD_UID", metadata.uid),
    ];
    Ok(Attachment {
        container: pod.id.to_string(),
        namespace: path.to_owned(),
        arguments: arguments.map(|(key, value)| (key.to_owned(), value)).into(),
        capabilities: capabilities(pod)?,
    })
}

/// What there is for plugins that ask for it (CNI, "Conventions").
fn capabilities(pod: &Pod) -> Result<Map<String, Value>> {
    let mut all = Map::new();
    let ports: Vec<Value> =
        pod.config.port_mappings.iter().filter(|port| port.host_port > 0).map(port).collect();
    if !ports.is_empty() {
        all.insert("portMappings".to_owned(), ports.into());
    }
    let rate = |direction: &str| bandwidth(pod, direction);
    let (ingress, egress) = (rate("ingress")?, rate("egress")?);
    if ingress.is_some() || egress.is_some() {
        let mut limits = Map::new();
        for (direction, rate) in [("ingress", ingress), ("egress", egress)] {
            if let Some(rate) = rate {
                limits.insert(format!("{direction}Rate"), rate.into());
                // As much as the kernel takes: the rate is what counts.
                limits.insert(format!("{direction}Burst"), i64::from(i32::MAX).into());
            }
        }
        all.insert("bandwidth".to_owned(), limits.into());
    }
    if let Some(dns) = &pod.config.dns_config {
        let dns = json!({"servers": dns.servers, "searches": dns.searches, "options": dns.options});
        all.insert("dns".to_owned(), dns);
    }
    let parent = pod.linux().cgroup_parent;
    if !parent.is_empty() {
        all.insert("cgroupPath".to_owned(), parent.into());
    }
    all.insert("io.kubernetes.cri.pod-annotations".to_owned(), json!(pod.config.annotations));
    Ok(all)
}

fn port(port: &proto::PortMapping) -> Value {
    json!({
        "hostPort": port.host_port,
        "containerPort": port.container_port,
        "protocol": port.protocol().as_str_name().to_lowercase(),
        "hostIP": port.host_ip,
    })
}

/// A limit that a pod's annotation sets, in bits a second.
fn bandwidth(pod: &Pod, direction: &str) -> Result<Option<i64>> {
    let key = format!("kubernetes.io/{direction}-bandwidth");
    let Some(text) = pod.config.annotations.get(&key) else { return Ok(None) };
    quantity(text).map(Some).ok_or_else(|| {
        Error::invalid_argument(format!("annotation {key} must be bits a second such as 10M, not {text:?}"))
    })
}

/// A number as Kubernetes writes quantities, in the forms that rates have.
fn quantity(text: &str) -> Option<i64> {
    let digits = text.find(|character: char| !character.is_ascii_digit()).unwrap_or(text.len());
    let factor = match &text[digits..] {
        "" => 1,
        "k" => 1_000,
        "M" => 1_000_000,
        "G" => 1_000_000_000,
        "Ki" => 1 << 10,
        "Mi" => 1 << 20,
        "Gi" => 1 << 30,
        _ => return None,
    };
    text[..digits].parse::<i64>().ok()?.checked_mul(factor)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_are_written_as_kubernetes_writes_quantities() {
        assert_eq!(quantity("10M"), Some(10_000_000));
        assert_eq!(quantity("1Ki"), Some(1024));
        assert_eq!(quantity("512"), Some(512));
        for wrong in ["", "M", "1.5M", "-1", "10m", "99999999999G"] {
            assert_eq!(quantity(wrong), None, "{wrong}");
        }
    }
}
