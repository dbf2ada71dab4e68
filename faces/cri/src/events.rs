//! What happens to pods and containers, for a kubelet that listens instead of asking again and again.

use std::sync::Arc;

use berth_proto::runtime::v1 as proto;
use proto::ContainerEventType;
use tokio::sync::broadcast;

use crate::Cri;
use crate::pod::Pod;
use crate::time::now;

/// Events that may wait for a slow listener; it loses the oldest then, and asks for everything as at its start.
const WAITING: usize = 1000;

/// Everybody who listens.
#[derive(Debug)]
pub(crate) struct Events(broadcast::Sender<proto::ContainerEventResponse>);

impl Default for Events {
    fn default() -> Self {
        Self(broadcast::Sender::new(WAITING))
    }
}

impl Events {
    /// Listens from now on.
    pub(crate) fn listen(&self) -> broadcast::Receiver<proto::ContainerEventResponse> {
        self.0.subscribe()
    }

    pub(crate) fn created(&self, cri: &Cri, pod: &Arc<Pod>, id: &str) {
        self.tell(cri, pod, id, ContainerEventType::ContainerCreatedEvent);
    }

    pub(crate) fn started(&self, cri: &Cri, pod: &Arc<Pod>, id: &str) {
        self.tell(cri, pod, id, ContainerEventType::ContainerStartedEvent);
    }

    pub(crate) fn stopped(&self, cri: &Cri, pod: &Arc<Pod>, id: &str) {
        self.tell(cri, pod, id, ContainerEventType::ContainerStoppedEvent);
    }

    pub(crate) fn deleted(&self, cri: &Cri, pod: &Arc<Pod>, id: &str) {
        self.tell(cri, pod, id, ContainerEventType::ContainerDeletedEvent);
    }

    fn tell(&self, cri: &Cri, pod: &Arc<Pod>, id: &str, kind: ContainerEventType) {
        if self.0.receiver_count() == 0 {
            return;
        }
        let containers = cri.containers_of(pod.id.as_str());
        let event = proto::ContainerEventResponse {
            container_id: id.to_owned(),
            container_event_type: kind.into(),
            created_at: now(),
            pod_sandbox_status: Some(pod.status()),
            containers_statuses: containers.iter().map(|container| container.status()).collect(),
        };
        // The last listener may have left in this moment.
        let _ = self.0.send(event);
    }
}
