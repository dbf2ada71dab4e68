//! `PodSandboxStats`.

use std::sync::Arc;

use berth_cgroup::Cgroup;
use berth_proto::runtime::v1 as proto;
use berth_types::Result;

use super::Reading;
use super::reading::value;
use crate::Cri;
use crate::blocking::blocking;
use crate::pod::Pod;
use crate::time::now;

impl Cri {
    /// What one pod uses.
    pub(crate) async fn pod_stats(&self, id: &str) -> Result<proto::PodSandboxStats> {
        let pod = self.pod(id)?;
        self.stats_of_pod(&pod).await
    }

    /// What the pods use that pass a filter. Those that are not ready use nothing.
    pub(crate) async fn list_pod_stats(
        &self,
        filter: Option<proto::PodSandboxStatsFilter>,
    ) -> Vec<proto::PodSandboxStats> {
        let filter = filter.unwrap_or_default();
        let wanted = |pod: &Arc<Pod>| {
            pod.is_ready()
                && pod.id.as_str().starts_with(&filter.id)
                && filter.label_selector.iter().all(|(key, value)| pod.config.labels.get(key) == Some(value))
        };
        let mut all = Vec::new();
        for pod in self.whole_pods().into_iter().filter(wanted) {
            match self.stats_of_pod(&pod).await {
                Ok(stats) => all.push(stats),
                Err(error) => tracing::debug!(pod = %pod.id, "no figures: {}", error.chain()),
            }
        }
        all
    }

    async fn stats_of_pod(&self, pod: &Arc<Pod>) -> Result<proto::PodSandboxStats> {
        let attributes = proto::PodSandboxAttributes {
            id: pod.id.to_string(),
            metadata: pod.config.metadata.clone(),
            labels: pod.config.labels.clone(),
            annotations: pod.config.annotations.clone(),
        };
        let mut containers = Vec::new();
        let mut pid = pod.facts().pause;
        for container in self.containers_of(pod.id.as_str()).iter().filter(|one| one.is_running()) {
            pid = pid.or(Some(container.life().pid).filter(|pid| *pid != 0));
            if let Ok(stats) = self.stats_of(container).await {
                containers.push(stats);
            }
        }
        let mut linux = proto::LinuxPodSandboxStats { containers, ..Default::default() };
        if let Some(network) = pod.facts().network {
            linux.network = Some(blocking(move || super::network::usage(&network)).await?);
        }
        // What the kubelet made for the pod lies above what each container has.
        let reading = match pid {
            Some(pid) => blocking(move || Ok(of_parent(pid))).await?,
            None => None,
        };
        if let Some(reading) = reading {
            let rate = self.rates.of(pod.id.as_str(), reading.at, reading.cpu);
            linux.cpu = Some(reading.cpu(rate));
            linux.memory = Some(reading.memory());
            linux.io = reading.io();
            linux.process =
                Some(proto::ProcessUsage { timestamp: reading.at, process_count: value(reading.processes) });
        }
        Ok(proto::PodSandboxStats { attributes: Some(attributes), linux: Some(linux), windows: None })
    }
}

/// The figures of the cgroup above a process's own; none when it has ended.
fn of_parent(pid: u32) -> Option<Reading> {
    let metrics = Cgroup::of(pid).ok()?.parent()?.metrics().ok()?;
    Some(Reading::of(&metrics, now()))
}
