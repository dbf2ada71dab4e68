//! `ListContainers`.

use berth_proto::runtime::v1 as proto;

use super::Container;
use crate::Cri;
use crate::time::nanoseconds;

impl Container {
    fn wire(&self) -> proto::Container {
        proto::Container {
            id: self.id.to_string(),
            pod_sandbox_id: self.pod.clone(),
            metadata: self.config.metadata.clone(),
            image: self.config.image.clone(),
            image_ref: self.origin.image_ref.clone(),
            state: self.life().state().into(),
            created_at: nanoseconds(self.created_at),
            labels: self.config.labels.clone(),
            annotations: self.config.annotations.clone(),
            image_id: self.origin.image.clone(),
        }
    }
}

impl Cri {
    /// The containers that pass a filter.
    pub(crate) fn list_containers(&self, filter: Option<proto::ContainerFilter>) -> Vec<proto::Container> {
        let filter = filter.unwrap_or_default();
        let wanted = |container: &proto::Container| {
            container.id.starts_with(&filter.id)
                && container.pod_sandbox_id.starts_with(&filter.pod_sandbox_id)
                && filter.state.is_none_or(|wanted| wanted.state == container.state)
                && filter.label_selector.iter().all(|(key, value)| container.labels.get(key) == Some(value))
        };
        self.containers.all().iter().map(|container| container.wire()).filter(wanted).collect()
    }
}
