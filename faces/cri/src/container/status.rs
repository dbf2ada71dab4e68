//! `ContainerStatus`.

use std::collections::HashMap;

use berth_proto::runtime::v1 as proto;
use berth_types::Result;
use serde_json::{Value, json};

use super::Container;
use crate::Cri;
use crate::time::nanoseconds;

impl Container {
    /// Its status in the words of the CRI.
    pub(crate) fn status(&self) -> proto::ContainerStatus {
        let (life, origin, config) = (self.life(), &self.origin, &self.config);
        let mut image = config.image.clone().unwrap_or_default();
        if !image.user_specified_image.is_empty() {
            image.image.clone_from(&image.user_specified_image);
        }
        proto::ContainerStatus {
            id: self.id.to_string(),
            metadata: config.metadata.clone(),
            state: life.state().into(),
            created_at: nanoseconds(self.created_at),
            started_at: life.started_at,
            finished_at: life.finished_at,
            exit_code: life.exit_code,
            image: Some(image),
            image_ref: origin.image_ref.clone(),
            reason: life.reason,
            message: life.message,
            labels: config.labels.clone(),
            annotations: config.annotations.clone(),
            mounts: config.mounts.clone(),
            log_path: origin.log.clone(),
            resources: Some(proto::ContainerResources { linux: self.limits(), windows: None }),
            image_id: origin.image.clone(),
            user: Some(proto::ContainerUser { linux: Some(self.user()) }),
            stop_signal: config.stop_signal,
        }
    }

    fn user(&self) -> proto::LinuxContainerUser {
        let user = &self.origin.user;
        proto::LinuxContainerUser {
            uid: user.uid.into(),
            gid: user.gid.into(),
            supplemental_groups: user.groups.iter().map(|group| i64::from(*group)).collect(),
        }
    }
}

impl Cri {
    /// The status of a container; `verbose` for people.
    pub(crate) async fn container_status(
        &self,
        id: &str,
        verbose: bool,
    ) -> Result<proto::ContainerStatusResponse> {
        let container = self.container(id)?;
        let mut info = HashMap::new();
        if verbose {
            info.insert("info".to_owned(), self.container_info(&container).await?);
        }
        Ok(proto::ContainerStatusResponse { status: Some(container.status()), info })
    }

    /// What `crictl inspect` shows beyond it, under the names that containerd has.
    async fn container_info(&self, container: &Container) -> Result<String> {
        let record = self.containers_store().container(&container.id).await?;
        let spec: Option<Value> = record.spec.and_then(|spec| serde_json::from_slice(&spec.value).ok());
        Ok(json!({
            "sandboxID": container.pod,
            "pid": container.life().pid,
            "removing": false,
            "snapshotKey": record.snapshot_key,
            "snapshotter": record.snapshotter,
            "runtimeType": record.runtime.name,
            "runtimeOptions": null,
            "config": container.config,
            "runtimeSpec": spec,
        })
        .to_string())
    }
}
