//! Pods: namespaces, files and addresses that containers share.
//!
//! ```text
//!            run                     stop                  remove
//!   nothing ─────▶ making ─▶ ready ───────▶ not ready ───────────▶ nothing
//!                    │ fails, or the daemon dies: taken down and forgotten
//! ```
//! A pod needs no process: its namespaces are held by files ([`berth_sys::held`]). Only a pod whose containers share
//! their process ids, and one of a shim that is not berth's, has a first process of its own ([`pause`]).
//!
//! A pod whose runtime handler names another controller is run by that ([`controlled`]).
//!
//! The record is written before anything is made, and says all that has to be taken down; a step forward that finds
//! its work done goes on, and so does a step back that finds nothing. So a daemon that takes up a half-made pod does
//! what one does whose request failed.

mod controlled;
mod controller;
mod files;
mod list;
mod namespaces;
mod network;
mod pause;
mod recover;
mod remove;
mod run;
mod status;
mod stop;
mod sysctl;
mod users;

use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::SystemTime;

use berth_proto::runtime::v1 as proto;
use berth_types::{Any, Error, Result, Sandbox, SandboxId, SandboxUpdate};
use proto::NamespaceMode;
use serde::{Deserialize, Serialize};
use serde_json::json;
use tokio::sync::watch;

use crate::Cri;
use crate::config::Handler;
use crate::diary::{Diary, Work};
use crate::names;
use crate::table::Item;

pub(crate) use network::Networks;
pub(crate) use users::{Users, maps};

/// Where a record keeps the request, and where what came of it.
const CONFIG: &str = "io.berth.cri.pod.config";
const FACTS: &str = "io.berth.cri.pod.facts";
/// The controller that containerd has for such pods.
const CONTROLLER: &str = "podsandbox";

/// A pod.
#[derive(Debug)]
pub(crate) struct Pod {
    /// Its id.
    pub(crate) id: SandboxId,
    name: String,
    /// What was asked for.
    pub(crate) config: proto::PodSandboxConfig,
    /// How it is run.
    pub(crate) handler: Arc<Handler>,
    /// When it was made.
    pub(crate) created_at: SystemTime,
    /// What outlives the machine's start, and what does not.
    pub(crate) root: PathBuf,
    pub(crate) state: PathBuf,
    facts: watch::Sender<Facts>,
    /// What was done for it.
    pub(crate) diary: Diary,
    /// Held by whoever changes it.
    pub(crate) work: tokio::sync::Mutex<()>,
}

/// What came of it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Facts {
    /// Where it is in its life.
    pub(crate) stage: Stage,
    /// The handler's name.
    pub(crate) handler: String,
    /// The file that holds its network namespace; none on the host's network.
    pub(crate) network: Option<PathBuf>,
    /// Its addresses, the main one first.
    pub(crate) addresses: Vec<IpAddr>,
    /// What the networks answered.
    pub(crate) attached: serde_json::Value,
    /// The pid of its first process, if it has one.
    pub(crate) pause: Option<u32>,
    /// Where whoever runs it makes its tasks: address and version of the task API.
    pub(crate) endpoint: Option<(String, u32)>,
}

/// Where a pod is in its life.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Stage {
    /// It is being made.
    #[default]
    Making,
    /// Containers can run in it.
    Ready,
    /// Its namespaces went with the machine, or under the hands of a daemon that was killed. The rest of it is yet to be
    /// taken down.
    Lost,
    /// It has been taken down.
    Stopped,
}

impl Item for Pod {
    const KIND: &'static str = "pod sandbox";

    fn id(&self) -> &str {
        self.id.as_str()
    }

    fn name(&self) -> &str {
        &self.name
    }
}

impl Pod {
    /// What is known of it now.
    pub(crate) fn facts(&self) -> Facts {
        self.facts.borrow().clone()
    }

    /// Changes what is known of it.
    fn change(&self, change: impl FnOnce(&mut Facts)) -> Facts {
        self.facts.send_modify(change);
        self.facts()
    }

    /// Waits until it has come to a stage.
    async fn reach(&self, is_there: impl Fn(Stage) -> bool) {
        let mut facts = self.facts.subscribe();
        // The sender lives in `self`, so the wait cannot fail.
        let _ = facts.wait_for(|facts| is_there(facts.stage)).await;
    }

    /// Whether containers can run in it.
    pub(crate) fn is_ready(&self) -> bool {
        self.facts().stage == Stage::Ready
    }

    /// Its name for `explain` and errors: what a user calls it.
    pub(crate) fn title(&self) -> String {
        let metadata = self.metadata();
        format!("{}/{}", metadata.namespace, metadata.name)
    }

    /// What identifies it to people.
    fn identity(&self) -> serde_json::Value {
        let metadata = self.metadata();
        json!({
            "id": self.id.as_str(), "namespace": metadata.namespace, "name": metadata.name,
            "attempt": metadata.attempt,
        })
    }

    /// What identifies it to a kubelet.
    pub(crate) fn metadata(&self) -> proto::PodSandboxMetadata {
        self.config.metadata.clone().unwrap_or_default()
    }

    /// What was asked for on Linux.
    pub(crate) fn linux(&self) -> proto::LinuxPodSandboxConfig {
        self.config.linux.clone().unwrap_or_default()
    }

    /// Which namespaces it has of its own.
    pub(crate) fn namespace_options(&self) -> proto::NamespaceOption {
        self.linux().security_context.and_then(|context| context.namespace_options).unwrap_or_default()
    }

    /// Whether it is on the host's network.
    pub(crate) fn is_on_host_network(&self) -> bool {
        self.namespace_options().network == NamespaceMode::Node as i32
    }

    /// Whether it has the host's System V IPC.
    pub(crate) fn has_host_ipc(&self) -> bool {
        self.namespace_options().ipc == NamespaceMode::Node as i32
    }

    /// The record, as it is to be stored.
    fn record(&self) -> Result<Sandbox> {
        let mut record = Sandbox::new(self.id.clone(), self.handler.runtime.clone());
        self.controller().unwrap_or(CONTROLLER).clone_into(&mut record.sandboxer);
        record.labels = names::labels(names::SANDBOX, &self.config.labels);
        record.extensions.insert(CONFIG.to_owned(), berth_proto::convert::pack(&self.config));
        record.extensions.insert(FACTS.to_owned(), self.facts().to_any()?);
        Ok(record)
    }
}

impl Facts {
    fn to_any(&self) -> Result<Any> {
        let json = serde_json::to_vec(self)
            .map_err(|error| Error::internal("what is known of a pod cannot be written").caused_by(error))?;
        Ok(Any::new(FACTS, json))
    }
}

impl Cri {
    /// Changes what is known of a pod, in its record first.
    async fn change_pod(&self, pod: &Pod, change: impl FnOnce(&mut Facts)) -> Result<()> {
        let mut facts = pod.facts();
        change(&mut facts);
        let mut record = Sandbox::new(pod.id.clone(), pod.handler.runtime.clone());
        record.extensions.insert(FACTS.to_owned(), facts.to_any()?);
        let mask = berth_types::FieldMask::new([format!("extensions.{FACTS}")]);
        self.sandboxes()?.update(SandboxUpdate { sandbox: record, mask }).await?;
        pod.change(|known| *known = facts);
        Ok(())
    }

    /// A pod whose first process or machine has ended by itself is not ready.
    async fn lose(&self, pod: &Pod, pid: Option<u32>) {
        // Whoever holds it is about to say what becomes of it.
        let _work = pod.work.lock().await;
        let facts = pod.facts();
        if facts.stage != Stage::Ready || facts.pause != pid {
            return;
        }
        tracing::warn!(pod = %pod.id, "the pod has ended by itself");
        let change = |facts: &mut Facts| (facts.stage, facts.pause) = (Stage::Lost, None);
        if let Err(error) = self.change_pod(pod, change).await {
            tracing::error!(pod = %pod.id, "cannot tell that the pod is not ready: {}", error.chain());
        }
    }

    /// The pod that a request means.
    pub(crate) fn pod(&self, id: &str) -> Result<Arc<Pod>> {
        self.pods.find(id)
    }

    /// The end of a call for a pod: one that failed is kept beyond the pod.
    pub(crate) fn conclude<T>(&self, pod: &Pod, work: &Work, result: &Result<T>) {
        work.end(result);
        if result.is_err() {
            self.failures.keep(pod.identity(), work);
        }
    }

    /// What only this daemon knows, for people: the pods that are being made, and the last calls that failed.
    pub(crate) fn underway(&self) -> serde_json::Value {
        let all = self.pods.all();
        let making = all.iter().filter(|pod| pod.facts().stage == Stage::Making);
        let making: Vec<_> = making.map(|pod| pod.identity()).collect();
        json!({ "making": making, "failures": self.failures.told() })
    }

    /// The pods that a kubelet may know of: those that are there as a whole.
    pub(crate) fn whole_pods(&self) -> Vec<Arc<Pod>> {
        self.pods.all().into_iter().filter(|pod| pod.facts().stage != Stage::Making).collect()
    }
}
