//! `RunPodSandbox`.

use std::sync::Arc;
use std::time::SystemTime;

use berth_proto::runtime::v1 as proto;
use berth_types::{Error, Result, SandboxId};
use tokio::sync::watch;
use tracing::Instrument as _;

use super::{Facts, Pod, Stage};
use crate::blocking::blocking;
use crate::config::Handler;
use crate::diary::{Diary, Work};
use crate::{Cri, names};

impl Cri {
    /// Makes a pod and answers its id. The same request again, while the first is under way or after it, is answered
    /// with the same pod.
    pub(crate) async fn run_pod(
        self: &Arc<Self>,
        config: proto::PodSandboxConfig,
        handler: &str,
    ) -> Result<String> {
        let name = names::of_pod(&config)?;
        let handler = self.config.pods.handler(handler)?;
        let cri = self.clone();
        let work = {
            let name = name.clone();
            async move { cri.made_pod(name, config, handler).await }
        };
        self.nursery.join(format!("run {name}"), work).await
    }

    async fn made_pod(
        self: Arc<Self>,
        name: String,
        config: proto::PodSandboxConfig,
        handler: Arc<Handler>,
    ) -> Result<String> {
        if let Some(pod) = self.pods.named(&name)
            && pod.is_ready()
            && pod.config == config
        {
            return Ok(pod.id.to_string());
        }
        let id: SandboxId = names::new_id()?.parse()?;
        let pod = Arc::new(self.new_pod(id, name, config, handler));
        pod.check_users(self.abilities(&pod.handler).await)?;
        let _pause = self.pause_joins().await;
        let _work = pod.work.lock().await;
        self.pods.insert(pod.clone())?;
        let work = pod.diary.begin("RunPodSandbox");
        let span = tracing::info_span!(
            target: "otel", "cri.sandbox.run", sandbox.id = %pod.id, sandbox.name = pod.name,
        );
        let up = self.bring_up(&pod, &work).instrument(span).await;
        if up.is_err() {
            self.abandon(&pod, &work).await;
        }
        self.conclude(&pod, &work, &up);
        if let Err(error) = up {
            return Err(error.context(format!("cannot run pod {}", pod.title())));
        }
        self.events.created(&self, &pod, pod.id.as_str());
        self.events.started(&self, &pod, pod.id.as_str());
        Ok(pod.id.to_string())
    }

    /// A pod of which nothing is made yet.
    pub(super) fn new_pod(
        &self,
        id: SandboxId,
        name: String,
        config: proto::PodSandboxConfig,
        handler: Arc<Handler>,
    ) -> Pod {
        let place = |base: &std::path::Path| base.join("sandboxes").join(id.as_str());
        let (root, state) = (place(&self.config.pods.root), place(&self.config.pods.state));
        let mut pod = Pod {
            id,
            name,
            config,
            created_at: SystemTime::now(),
            root,
            state,
            facts: watch::Sender::default(),
            diary: Diary::default(),
            work: tokio::sync::Mutex::default(),
            handler,
        };
        let network = (!pod.is_on_host_network()).then(|| {
            let id = pod.id.as_str();
            let short = format!("cni-{}-{}-{}", &id[..8], &id[8..12], &id[12..24]);
            self.config.pods.network_namespaces.join(short)
        });
        pod.facts =
            watch::Sender::new(Facts { network, handler: pod.handler.name.clone(), ..Facts::default() });
        pod
    }

    async fn bring_up(self: &Arc<Self>, pod: &Arc<Pod>, work: &Work) -> Result<()> {
        work.step("its record", self.sandboxes()?.create(pod.record()?)).await?;
        let made = pod.clone();
        let making = blocking(move || {
            made.make_files()?;
            made.make_namespaces()
        });
        work.step("files and namespaces", making).await?;
        let attaching = tracing::info_span!(target: "otel", "cni.setup_pod_network");
        let attached = work.step(self.networks.told(pod), self.attach(pod).instrument(attaching)).await?;
        work.step("kernel parameters", self.set_kernel_parameters(pod)).await?;
        let (pause, endpoint) = match pod.controller() {
            Some(name) => {
                let step = format!("its sandbox (controller {name})");
                work.step(step, self.start_sandbox(pod)).await?
            }
            None if pod.needs_first_process() => {
                (Some(work.step("its first process", self.start_pause(pod)).await?), None)
            }
            None => (None, None),
        };
        let addresses = attached.as_ref().map_or(&[][..], |attached| &attached.addresses);
        let mut ready = work.step("NRI plugins", self.tell_run(pod, addresses, pause)).await;
        if ready.is_ok() {
            let change = |facts: &mut Facts| {
                facts.stage = Stage::Ready;
                facts.pause = pause;
                facts.endpoint = endpoint.map(|endpoint| (endpoint.address, endpoint.version));
                if let Some(attached) = attached {
                    facts.addresses = attached.addresses;
                    facts.attached = attached.result;
                }
            };
            ready = work.step("its record, as ready", self.change_pod(pod, change)).await;
        }
        if ready.is_err() {
            self.tell_stop(pod).await;
            self.tell_removal(pod).await;
        }
        ready
    }

    /// Takes down a pod that could not be made, and forgets it. What cannot be taken down now stays, as a pod that is
    /// not ready, for the kubelet to stop and remove.
    async fn abandon(self: &Arc<Self>, pod: &Arc<Pod>, work: &Work) {
        let gone = match self.take_down(pod, work).await {
            Ok(()) => self.erase(pod).await,
            Err(error) => Err(error),
        };
        if let Err(error) = gone {
            tracing::error!(pod = %pod.id, "cannot take down a pod that could not be made: {}", error.chain());
            pod.change(|facts| facts.stage = Stage::Lost);
        }
    }

    /// The store of sandboxes, without which there are no pods.
    pub(crate) fn sandboxes(&self) -> Result<Arc<dyn berth_core::Sandboxes>> {
        self.catalog
            .sandboxes(&self.scope)
            .ok_or_else(|| Error::not_implemented("this daemon keeps no records of sandboxes"))
    }
}
