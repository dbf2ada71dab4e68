//! `ListPodSandbox`.

use berth_proto::runtime::v1 as proto;

use super::Pod;
use crate::Cri;
use crate::time::nanoseconds;

impl Pod {
    /// Its state in the words of the CRI.
    pub(crate) fn wire_state(&self) -> proto::PodSandboxState {
        if self.is_ready() {
            proto::PodSandboxState::SandboxReady
        } else {
            proto::PodSandboxState::SandboxNotready
        }
    }

    fn wire(&self) -> proto::PodSandbox {
        proto::PodSandbox {
            id: self.id.to_string(),
            metadata: self.config.metadata.clone(),
            state: self.wire_state().into(),
            created_at: nanoseconds(self.created_at),
            labels: self.config.labels.clone(),
            annotations: self.config.annotations.clone(),
            runtime_handler: self.facts().handler,
        }
    }
}

impl Cri {
    /// The pods that pass a filter.
    pub(crate) fn list_pods(&self, filter: Option<proto::PodSandboxFilter>) -> Vec<proto::PodSandbox> {
        let filter = filter.unwrap_or_default();
        let wanted = |pod: &proto::PodSandbox| {
            pod.id.starts_with(&filter.id)
                && filter.state.is_none_or(|wanted| wanted.state == pod.state)
                && filter.label_selector.iter().all(|(key, value)| pod.labels.get(key) == Some(value))
        };
        self.whole_pods().iter().map(|pod| pod.wire()).filter(wanted).collect()
    }
}
