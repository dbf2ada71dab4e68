//! The figures of one container.

use std::sync::Arc;

use berth_oci::runtime::Spec;
use berth_proto::runtime::v1 as proto;
use berth_types::{Error, Result};
use proto::MetricType::Gauge;

use super::{Figures, cgroup, process};
use crate::Cri;
use crate::blocking::blocking;
use crate::container::Container;

/// What containers write to, to whoever reads the figures.
const ROOT: &str = "/";

impl Cri {
    /// The figures of a container that runs; none of one that has ended meanwhile.
    pub(super) async fn container_metrics(
        &self,
        pod: &proto::PodSandboxMetadata,
        container: &Arc<Container>,
    ) -> Result<Option<proto::ContainerMetrics>> {
        let Some(metrics) = self.cgroup_metrics(container).await? else { return Ok(None) };
        let config = &container.config;
        let image = config.image.clone().unwrap_or_default();
        let image =
            if image.user_specified_image.is_empty() { image.image } else { image.user_specified_image };
        let name = config.metadata.clone().unwrap_or_default().name;
        let mut figures = Figures::new(pod, [name, container.id.to_string(), image]);
        let seconds = |nanoseconds: i64| nanoseconds.max(0).unsigned_abs() / 1_000_000_000;
        figures.gauge("container_last_seen", seconds(figures.at));
        figures.gauge("container_start_time_seconds", seconds(container.life().started_at));
        cgroup::add(&mut figures, &metrics);
        self.add_filesystem(&mut figures, container).await?;
        let pids = self.tasks().pids(&container.id).await?;
        let pids: Vec<u32> = pids.into_iter().map(|process| process.pid).collect();
        let (open, sockets) = blocking(move || Ok(process::descriptors(&pids))).await?;
        figures.gauge("container_file_descriptors", open);
        figures.gauge("container_sockets", sockets);
        let record = self.containers_store().container(&container.id).await?;
        if let Some(spec) = record.spec.and_then(|spec| Spec::from_slice(&spec.value).ok()) {
            process::add_limits(&mut figures, &spec);
        }
        Ok(Some(proto::ContainerMetrics { container_id: container.id.to_string(), metrics: figures.all }))
    }

    /// What the container has written, and the filesystem that takes it.
    async fn add_filesystem(&self, figures: &mut Figures, container: &Arc<Container>) -> Result<()> {
        let written = self.layer_usage(container).await?;
        let folder = self.config.image_folder.clone();
        let filesystem = blocking(move || {
            rustix::fs::statvfs(&folder)
                .map_err(|error| Error::io(format!("cannot look at {}", folder.display()), error.into()))
        })
        .await?;
        let used = written.used_bytes.map_or(0, |bytes| bytes.value);
        for (name, figure) in [
            ("container_fs_usage_bytes", used),
            ("container_fs_limit_bytes", filesystem.f_blocks.saturating_mul(filesystem.f_frsize)),
            ("container_fs_inodes_total", filesystem.f_files),
            ("container_fs_inodes_free", filesystem.f_ffree),
        ] {
            figures.add(Gauge, name, &[ROOT], figure);
        }
        Ok(())
    }
}
