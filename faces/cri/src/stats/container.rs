//! `ContainerStats`.

use std::sync::Arc;
use std::time::{Duration, Instant};

use berth_cgroup::{Cgroup, Metrics};
use berth_proto::convert::unpack;
use berth_proto::io::containerd::cgroups::{v1, v2};
use berth_proto::runtime::v1 as proto;
use berth_types::{Any, Error, ErrorKind, Result, SnapshotKey, Usage};

use super::Reading;
use super::reading::value;
use crate::Cri;
use crate::blocking::blocking;
use crate::container::Container;
use crate::time::now;

/// How long the size of a container's own layer is taken to be the same: measuring it walks its files.
const SIZE_HOLDS: Duration = Duration::from_secs(10);

/// The size of a container's layer, and when it was measured.
pub(crate) type Measured = tokio::sync::Mutex<Option<(Instant, Usage)>>;

impl Cri {
    /// What one container uses.
    pub(crate) async fn container_stats(&self, id: &str) -> Result<proto::ContainerStats> {
        let container = self.container(id)?;
        self.stats_of(&container).await
    }

    /// What the containers use that pass a filter. Those that end meanwhile are left out, as in containerd.
    pub(crate) async fn list_container_stats(
        &self,
        filter: Option<proto::ContainerStatsFilter>,
    ) -> Vec<proto::ContainerStats> {
        let filter = filter.unwrap_or_default();
        let wanted = |container: &Arc<Container>| {
            container.is_running()
                && container.id.as_str().starts_with(&filter.id)
                && container.pod.starts_with(&filter.pod_sandbox_id)
                && filter
                    .label_selector
                    .iter()
                    .all(|(key, value)| container.config.labels.get(key) == Some(value))
        };
        self.rates.keep(|id| self.containers.find(id).is_ok() || self.pods.find(id).is_ok());
        let mut all = Vec::new();
        for container in self.containers.all().into_iter().filter(wanted) {
            match self.stats_of(&container).await {
                Ok(stats) => all.push(stats),
                Err(error) => {
                    tracing::debug!(container = %container.id, "no figures: {}", error.chain());
                }
            }
        }
        all
    }

    pub(super) async fn stats_of(&self, container: &Arc<Container>) -> Result<proto::ContainerStats> {
        let config = &container.config;
        let attributes = proto::ContainerAttributes {
            id: container.id.to_string(),
            metadata: config.metadata.clone(),
            labels: config.labels.clone(),
            annotations: config.annotations.clone(),
        };
        let mut stats = proto::ContainerStats {
            attributes: Some(attributes),
            writable_layer: Some(self.layer_usage(container).await?),
            ..proto::ContainerStats::default()
        };
        if let Some(reading) = self.reading(container).await? {
            let rate = self.rates.of(container.id.as_str(), reading.at, reading.cpu);
            stats.cpu = Some(reading.cpu(rate));
            stats.memory = Some(reading.memory());
            stats.swap = reading.swap();
            stats.io = reading.io();
        }
        Ok(stats)
    }

    async fn reading(&self, container: &Arc<Container>) -> Result<Option<Reading>> {
        Ok(self.cgroup_metrics(container).await?.map(|metrics| Reading::of(&metrics, now())))
    }

    /// The figures of a container's cgroup; none for one that does not run, or whose shim has words of its own.
    pub(super) async fn cgroup_metrics(&self, container: &Arc<Container>) -> Result<Option<Metrics>> {
        let life = container.life();
        if life.pid == 0 || !container.is_running() {
            return Ok(None);
        }
        if self.pod(&container.pod)?.handler.is_own {
            return blocking(move || match Cgroup::of(life.pid).and_then(|cgroup| cgroup.metrics()) {
                Ok(metrics) => Ok(Some(metrics)),
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
                Err(error) => Err(Error::io("cannot read the container's cgroup", error)),
            })
            .await;
        }
        let metrics = self.tasks().metrics(&[format!("id=={}", container.id)]).await?;
        let told = metrics.into_iter().find_map(|metric| metric.data);
        Ok(told.and_then(|data| read(&data)))
    }

    /// What the container itself has written.
    pub(super) async fn layer_usage(&self, container: &Arc<Container>) -> Result<proto::FilesystemUsage> {
        let pod = self.pod(&container.pod)?;
        let snapshotter = self.catalog.snapshotter(&self.snapshotter_of(&pod), &self.scope)?;
        let key: SnapshotKey = container.id.as_str().parse()?;
        let mut measured = container.measured.lock().await;
        let usage = match &*measured {
            Some((at, usage)) if at.elapsed() < SIZE_HOLDS => *usage,
            _ => match snapshotter.usage(&key).await {
                Err(error) if error.kind() == ErrorKind::NotFound => Usage::default(),
                usage => usage?,
            },
        };
        if measured.as_ref().is_none_or(|(at, _)| at.elapsed() >= SIZE_HOLDS) {
            *measured = Some((Instant::now(), usage));
        }
        Ok(proto::FilesystemUsage {
            timestamp: now(),
            fs_id: Some(proto::FilesystemIdentifier {
                mountpoint: self.config.image_folder.display().to_string(),
            }),
            used_bytes: value(usage.size),
            inodes_used: value(usage.inodes),
        })
    }
}

/// What a shim tells.
fn read(data: &Any) -> Option<Metrics> {
    if let Ok(metrics) = unpack::<v1::Metrics>(data) {
        return Some(Metrics::V1(metrics.into()));
    }
    unpack::<v2::Metrics>(data).ok().map(|metrics| Metrics::V2(metrics.into()))
}
