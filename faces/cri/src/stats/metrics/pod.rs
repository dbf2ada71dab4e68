//! The figures of pods: their networks, and their containers.

use std::sync::Arc;

use berth_proto::runtime::v1 as proto;
use berth_types::Result;
use futures::{StreamExt as _, stream};
use proto::MetricType::Counter;

use super::Figures;
use crate::Cri;
use crate::blocking::blocking;
use crate::pod::Pod;
use crate::stats::network::{self, Device};

/// Pods that are looked at side by side.
const AT_ONCE: usize = 8;

impl Cri {
    /// The figures of pods that are ready. What cannot be had of one is left out, and so are containers that end
    /// meanwhile.
    pub(crate) async fn list_pod_metrics(&self) -> Vec<proto::PodSandboxMetrics> {
        let pods = self.whole_pods().into_iter().filter(|pod| pod.is_ready());
        let figures = |pod: Arc<Pod>| async move {
            let figures = self.pod_metrics(&pod).await;
            figures.inspect_err(|error| tracing::debug!(pod = %pod.id, "no figures: {}", error.chain())).ok()
        };
        stream::iter(pods).map(figures).buffered(AT_ONCE).filter_map(|found| async { found }).collect().await
    }

    async fn pod_metrics(&self, pod: &Arc<Pod>) -> Result<proto::PodSandboxMetrics> {
        let metadata = pod.metadata();
        let mut figures = Figures::new(&metadata, [String::new(), pod.id.to_string(), String::new()]);
        if let Some(namespace) = pod.facts().network {
            let devices = blocking(move || network::devices(&namespace)).await?;
            devices.iter().for_each(|device| add_device(&mut figures, device));
        }
        let mut container_metrics = Vec::new();
        for container in self.containers_of(pod.id.as_str()).iter().filter(|one| one.is_running()) {
            match self.container_metrics(&metadata, container).await {
                Ok(found) => container_metrics.extend(found),
                Err(error) => tracing::debug!(container = %container.id, "no figures: {}", error.chain()),
            }
        }
        Ok(proto::PodSandboxMetrics {
            pod_sandbox_id: pod.id.to_string(),
            metrics: figures.all,
            container_metrics,
        })
    }
}

fn add_device(figures: &mut Figures, device: &Device) {
    for (direction, counts) in [("receive", &device.received), ("transmit", &device.sent)] {
        for (what, figure) in [
            ("bytes", counts.bytes),
            ("packets", counts.packets),
            ("packets_dropped", counts.dropped),
            ("errors", counts.errors),
        ] {
            let name = format!("container_network_{direction}_{what}_total");
            figures.add(Counter, &name, &[&device.name], figure);
        }
    }
}
