//! What plugins want from the daemon.

use async_trait::async_trait;
use berth_types::Result;

use crate::proto;

/// The daemon's pods and containers. No method may call into [`Nri`](crate::Nri) and wait for it: it may be what
/// waits for the method.
#[async_trait]
pub trait Host: Send + Sync + 'static {
    /// Every pod, and every container that has not ended, as they are now.
    async fn snapshot(&self) -> Result<Snapshot>;

    /// Changes the resources of containers. Those that could not be changed, and whose change may not fail
    /// (`ignore_failure`), are the answer; a container that is not there is passed over.
    async fn update(&self, updates: Vec<proto::ContainerUpdate>) -> Vec<proto::ContainerUpdate>;

    /// Stops containers that a plugin wants to be gone, at once.
    async fn evict(&self, evictions: Vec<proto::ContainerEviction>);
}

/// What there is when a plugin joins.
#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    /// The pods.
    pub pods: Vec<proto::PodSandbox>,
    /// The containers.
    pub containers: Vec<proto::Container>,
}
