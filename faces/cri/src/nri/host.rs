//! What plugins want from the node.

use std::sync::{Arc, Weak};
use std::time::Duration;

use async_trait::async_trait;
use berth_nri::{Host, Snapshot, proto};
use berth_types::{Error, Result};

use super::pod;
use super::resources::{shown, wanted};
use crate::Cri;
use crate::container::Change;

/// The pods and containers of an interface, which plugins do not keep alive.
pub(super) struct Node(pub(super) Weak<Cri>);

impl Node {
    fn cri(&self) -> Result<Arc<Cri>> {
        self.0.upgrade().ok_or_else(|| Error::unavailable("the daemon is ending"))
    }
}

#[async_trait]
impl Host for Node {
    async fn snapshot(&self) -> Result<Snapshot> {
        let cri = self.cri()?;
        let pods = cri.whole_pods().iter().map(|pod| pod::message(pod)).collect();
        let mut containers = Vec::new();
        for container in cri.containers.all().iter().filter(|container| !container.has_ended()) {
            containers.push(cri.message(container).await);
        }
        Ok(Snapshot { pods, containers })
    }

    async fn update(&self, updates: Vec<proto::ContainerUpdate>) -> Vec<proto::ContainerUpdate> {
        match self.cri() {
            Ok(cri) => cri.carry_out(updates).await,
            Err(_) => updates,
        }
    }

    async fn evict(&self, evictions: Vec<proto::ContainerEviction>) {
        if let Ok(cri) = self.cri() {
            cri.evict(evictions).await;
        }
    }
}

impl Cri {
    /// Changes limits as plugins want; the answer is what failed and may not. Called by whoever holds no container's
    /// lock.
    pub(super) async fn carry_out(
        self: &Arc<Self>,
        updates: Vec<proto::ContainerUpdate>,
    ) -> Vec<proto::ContainerUpdate> {
        let mut failed = Vec::new();
        for update in updates {
            let Ok(container) = self.container(&update.container_id) else { continue };
            let Some(asked) = update.linux.as_ref().and_then(|linux| linux.resources.as_ref()) else {
                continue;
            };
            let change = Change {
                limits: shown(asked),
                resources: wanted(asked, &self.config.pods),
                annotations: std::collections::BTreeMap::default(),
            };
            let _work = container.work.lock().await;
            if let Err(error) = self.change_limits(&container, change).await {
                tracing::warn!(container = %container.id, "an NRI plugin's update failed: {}", error.chain());
                if !update.ignore_failure {
                    failed.push(update);
                }
            }
        }
        failed
    }

    /// Ends containers that plugins want to be gone.
    pub(super) async fn evict(self: &Arc<Self>, evictions: Vec<proto::ContainerEviction>) {
        for proto::ContainerEviction { container_id, reason } in evictions {
            let Ok(container) = self.container(&container_id) else { continue };
            tracing::info!(container = %container.id, reason, "an NRI plugin evicts a container");
            if let Err(error) = self.end_container(&container, Duration::ZERO).await {
                tracing::error!(container = %container.id, "it cannot be evicted: {}", error.chain());
            }
        }
    }

    /// The same for what plugins want beside the request that they were asked about. Failures are in the log.
    pub(super) async fn settle(
        self: &Arc<Self>,
        updates: Vec<proto::ContainerUpdate>,
        evictions: Vec<proto::ContainerEviction>,
    ) {
        self.evict(evictions).await;
        self.carry_out(updates).await;
    }
}
