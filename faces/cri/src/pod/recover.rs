//! Pods of the daemon before this one.

use std::sync::Arc;

use berth_proto::runtime::v1 as proto;
use berth_types::filter::Filters;
use berth_types::{Error, Result, Sandbox};
use tokio::sync::watch;

use super::{CONFIG, FACTS, Facts, Pod, Stage};
use crate::{Cri, names};

impl Cri {
    /// Takes up the pods that are recorded. One that was being made is taken down: its request failed with the daemon.
    pub(crate) async fn recover_pods(self: &Arc<Self>) -> Result<()> {
        for record in self.sandboxes()?.list(&Filters::default()).await? {
            let Some(pod) = self.read_pod(&record) else { continue };
            let pod = Arc::new(pod);
            if let Err(error) = self.pods.insert(pod.clone()) {
                tracing::warn!(pod = %pod.id, "a pod is there twice: {}", error.chain());
            }
        }
        Ok(())
    }

    /// Once the containers are known: takes down half-made pods, and those whose namespaces went with the machine
    /// are not ready.
    pub(crate) async fn settle_pods(self: &Arc<Self>) {
        for pod in self.pods.all() {
            let settled = match pod.facts().stage {
                Stage::Making => self.drop_half_made(&pod).await,
                Stage::Ready if !pod.has_namespaces() => {
                    self.change_pod(&pod, |facts| facts.stage = Stage::Lost).await
                }
                Stage::Ready if pod.controller().is_some() => self.take_up_sandbox(&pod).await,
                Stage::Ready => self.watch_pause(&pod).await,
                Stage::Lost | Stage::Stopped => Ok(()),
            };
            if let Err(error) = settled {
                tracing::error!(pod = %pod.id, "cannot take up a pod: {}", error.chain());
                pod.change(|facts| facts.stage = Stage::Lost);
            }
        }
    }

    async fn drop_half_made(self: &Arc<Self>, pod: &Arc<Pod>) -> Result<()> {
        tracing::info!(pod = %pod.id, "taking down a pod that the last daemon was making");
        let work = pod.diary.begin("what the last daemon was making is taken down");
        let down = self.take_down(pod, &work).await;
        self.conclude(pod, &work, &down);
        down?;
        self.erase(pod).await
    }

    fn read_pod(&self, record: &Sandbox) -> Option<Pod> {
        let (config, facts) = (record.extensions.get(CONFIG)?, record.extensions.get(FACTS)?);
        let read = || -> Result<Pod> {
            let config: proto::PodSandboxConfig = berth_proto::convert::unpack(config)?;
            let facts: Facts = serde_json::from_slice(&facts.value)
                .map_err(|error| Error::data_loss("what was known of it cannot be read").caused_by(error))?;
            let handler = self.config.pods.handler(&facts.handler).or_else(|error| {
                tracing::warn!(pod = %record.id, "{}; the default one takes the pod down", error.chain());
                self.config.pods.handler("")
            })?;
            let name = names::of_pod(&config)?;
            let mut pod = self.new_pod(record.id.clone(), name, config, handler);
            pod.created_at = record.created_at;
            pod.facts = watch::Sender::new(facts);
            Ok(pod)
        };
        read()
            .inspect_err(|error| {
                tracing::error!(sandbox = %record.id, "the record of a pod is passed over: {}", error.chain());
            })
            .ok()
    }
}
