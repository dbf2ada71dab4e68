//! The owner of all plugins: one task, which asks them one after the other, one request at a time.
//!
//! That is the order that plugins rely on: all of them see the same events in the same order. A request is a job
//! that the task runs to its end, whether or not its client still waits.

use std::collections::HashSet;
use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use berth_types::{Error, Result};
use futures::FutureExt as _;
use tokio::sync::{Notify, mpsc, oneshot};

use crate::host::Host;
use crate::merge::{Creation, MergeError, Updates};
use crate::nri::{Created, Updated};
use crate::owners::Owners;
use crate::plugin::{CallError, Plugin};
use crate::proto::{self, Event};
use crate::requests::Request;
use crate::synchronize::{SynchronizeError, synchronize};
use crate::validator::ValidatorConfig;

/// Jobs that wait; beyond them callers wait for their place.
const QUEUE: usize = 64;

/// What a job does, in the end.
pub(crate) type Work<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;
type Job = Box<dyn for<'a> FnOnce(&'a mut Plugins) -> Work<'a, ()> + Send>;

/// The way to the plugins. Clones share them; the last one ends them.
#[derive(Clone)]
pub(crate) struct Desk {
    jobs: mpsc::Sender<Job>,
    count: Arc<AtomicUsize>,
}

/// The plugins, by the order of their turns.
pub(crate) struct Plugins {
    list: Vec<Plugin>,
    count: Arc<AtomicUsize>,
    validator: ValidatorConfig,
    /// Containers and pods of whose end plugins know already, until they are removed.
    ended: HashSet<String>,
}

impl Desk {
    /// Starts the owner, which looks for plugins that have gone whenever it is told of a departure.
    pub(crate) fn open(validator: ValidatorConfig, departures: Arc<Notify>) -> Self {
        let (jobs, mut queue) = mpsc::channel::<Job>(QUEUE);
        let count = Arc::new(AtomicUsize::new(0));
        let mut plugins =
            Plugins { list: Vec::new(), count: count.clone(), validator, ended: HashSet::new() };
        tokio::spawn(async move {
            loop {
                tokio::select! {
                    biased;
                    job = queue.recv() => match job {
                        // A job that panics fails its own caller; the plugins are there for the next one.
                        Some(job) => drop(AssertUnwindSafe(job(&mut plugins)).catch_unwind().await),
                        None => return,
                    },
                    () = departures.notified() => plugins.sweep(),
                }
            }
        });
        Self { jobs, count }
    }

    /// Whether there is no plugin.
    pub(crate) fn is_empty(&self) -> bool {
        self.count.load(Ordering::Acquire) == 0
    }

    /// Has the owner do something.
    pub(crate) async fn run<T, F>(&self, work: F) -> Result<T>
    where
        T: Send + 'static,
        F: for<'a> FnOnce(&'a mut Plugins) -> Work<'a, T> + Send + 'static,
    {
        let (done, result) = oneshot::channel();
        let job: Job = Box::new(move |plugins| {
            let work = work(plugins);
            Box::pin(async move {
                // The client may have gone.
                let _ = done.send(work.await);
            })
        });
        self.jobs.send(job).await.map_err(|_| Error::unavailable("NRI is shutting down"))?;
        result.await.map_err(|_| Error::internal("NRI gave a request up; the log has the reason"))
    }
}

impl Plugins {
    /// Takes a plugin in once it knows what there is. The answer is what it wants changed.
    pub(crate) async fn join(
        &mut self,
        plugin: Plugin,
        host: Arc<dyn Host>,
    ) -> Result<Vec<proto::ContainerUpdate>> {
        let mut snapshot = host.snapshot().await?;
        // The others know that it has ended before the daemon writes that down.
        snapshot.containers.retain(|container| !self.ended.contains(&container.id));
        let updates = synchronize(&plugin, snapshot).await.map_err(|error| match error {
            SynchronizeError::Call(error) => Error::from(error),
            unsplit @ SynchronizeError::Unsplit => Error::failed_precondition(unsplit.to_string()),
        })?;
        tracing::info!(plugin = %plugin.name, "NRI plugin joined");
        let at = self.list.partition_point(|other| other.name.index <= plugin.name.index);
        self.list.insert(at, plugin);
        self.counted();
        Ok(updates)
    }

    /// Tells every plugin. The first refusal is the answer; the others are told all the same.
    pub(crate) async fn tell<R: Request>(&mut self, request: R) -> Result<()> {
        let mut refusal = None;
        let mut at = 0;
        while at < self.list.len() {
            match self.ask(at, &request).await {
                Asked::Answered(_) => at += 1,
                Asked::Refused(error) => {
                    refusal.get_or_insert(error);
                    at += 1;
                }
                Asked::Lost(_) => {}
            }
        }
        refusal.map_or(Ok(()), Err)
    }

    /// Asks every plugin what a container is to become, then the validators whether it may.
    pub(crate) async fn create(
        &mut self,
        pod: proto::PodSandbox,
        container: proto::Container,
    ) -> Result<Created> {
        let mut judged = proto::ValidateContainerAdjustmentRequest {
            pod: Some(pod.clone()),
            container: Some(container.clone()),
            ..Default::default()
        };
        let mut creation = Creation::new(pod, container);
        let mut at = 0;
        while at < self.list.len() {
            match self.ask(at, &creation.request).await {
                Asked::Answered(answer) => {
                    let name = &self.list[at].name;
                    if let Some(answer) = answer {
                        creation.merge(&name.to_string(), answer).map_err(conflict)?;
                    }
                    let (name, index) = (name.base.clone(), name.index.clone());
                    judged.plugins.push(proto::PluginInstance { name, index });
                    at += 1;
                }
                Asked::Refused(error) => return Err(error),
                Asked::Lost(_) => {}
            }
        }
        let Creation { adjustment, updates, evictions, owners, .. } = creation;
        let (_, updates) = updates.finish();
        judged.owners = Some(owners.into_message());
        judged.adjust = Some(adjustment);
        judged.update = updates;
        self.validate(&judged).await?;
        Ok(Created { adjustment: judged.adjust.unwrap_or_default(), updates: judged.update, evictions })
    }

    /// A validator that cannot answer forbids.
    async fn validate(&mut self, request: &proto::ValidateContainerAdjustmentRequest) -> Result<()> {
        self.validator.validate(request)?;
        let mut at = 0;
        while at < self.list.len() {
            if !self.list[at].events.has(Event::ValidateContainerAdjustment) {
                at += 1;
                continue;
            }
            let name = self.list[at].name.clone();
            match self.ask(at, request).await {
                Asked::Answered(Some(answer)) if answer.reject => {
                    let reason = if answer.reason.is_empty() { "it gave no reason" } else { &answer.reason };
                    let text = format!("NRI validator {name} rejected the container's adjustment: {reason}");
                    return Err(Error::permission_denied(text));
                }
                Asked::Answered(_) => at += 1,
                Asked::Refused(error) | Asked::Lost(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Asks every plugin what a client's update of a container's resources is to be.
    pub(crate) async fn update(&mut self, mut request: proto::UpdateContainerRequest) -> Result<Updated> {
        let container = request.container.as_ref().map_or("", |container| &container.id);
        let mut updates = Updates::of(container, request.linux_resources.clone().unwrap_or_default());
        let (mut owners, mut evictions) = (Owners::default(), Vec::new());
        let mut at = 0;
        while at < self.list.len() {
            match self.ask(at, &request).await {
                Asked::Answered(answer) => {
                    let proto::UpdateContainerResponse { update, evict } = answer.unwrap_or_default();
                    let name = self.list[at].name.to_string();
                    updates.merge(&mut owners, &name, update).map_err(conflict)?;
                    evictions.extend(evict);
                    request.linux_resources = updates.wanted().cloned();
                    at += 1;
                }
                Asked::Refused(error) => return Err(error),
                Asked::Lost(_) => {}
            }
        }
        let (wanted, updates) = updates.finish();
        let resources = wanted.filter(|wanted| wanted.changed).map(|wanted| wanted.resources);
        Ok(Updated { resources, updates, evictions })
    }

    /// Tells every plugin that a container stops, or has ended; the answer is what they want of others.
    pub(crate) async fn stop(
        &mut self,
        request: proto::StopContainerRequest,
    ) -> Result<Vec<proto::ContainerUpdate>> {
        let container = request.container.as_ref().map_or("", |container| &container.id);
        if !self.ended.insert(container.to_owned()) {
            return Ok(Vec::new());
        }
        let (mut updates, mut owners, mut refusal) = (Updates::default(), Owners::default(), None);
        let mut at = 0;
        while at < self.list.len() {
            match self.ask(at, &request).await {
                Asked::Answered(answer) => {
                    let name = self.list[at].name.to_string();
                    let update = answer.unwrap_or_default().update;
                    updates.merge(&mut owners, &name, update).map_err(conflict)?;
                    at += 1;
                }
                Asked::Refused(error) => {
                    refusal.get_or_insert(error);
                    at += 1;
                }
                Asked::Lost(_) => {}
            }
        }
        refusal.map_or(Ok(updates.finish().1), Err)
    }

    /// Tells every plugin that a container is about to be removed.
    pub(crate) async fn remove(&mut self, request: proto::RemoveContainerRequest) -> Result<()> {
        if let Some(container) = &request.container {
            self.ended.remove(&container.id);
        }
        self.tell(request).await
    }

    /// Tells every plugin that a pod stops.
    pub(crate) async fn stop_pod(&mut self, request: proto::StopPodSandboxRequest) -> Result<()> {
        let pod = request.pod.as_ref().map_or("", |pod| &pod.id);
        if !self.ended.insert(pod.to_owned()) {
            return Ok(());
        }
        self.tell(request).await
    }

    /// Tells every plugin that a pod is about to be removed.
    pub(crate) async fn remove_pod(&mut self, request: proto::RemovePodSandboxRequest) -> Result<()> {
        if let Some(pod) = &request.pod {
            self.ended.remove(&pod.id);
        }
        self.tell(request).await
    }

    /// Says goodbye to all.
    pub(crate) async fn part(&mut self) {
        for plugin in std::mem::take(&mut self.list) {
            plugin.shut_down().await;
        }
        self.counted();
    }

    /// Asks the plugin at this place; one that is lost loses it to the next.
    async fn ask<R: Request>(&mut self, at: usize, request: &R) -> Asked<R::Answer> {
        match self.list[at].ask(request).await {
            Ok(answer) => Asked::Answered(answer),
            Err(error @ CallError::Refused { .. }) => Asked::Refused(error.into()),
            Err(error @ CallError::Lost { .. }) => {
                let plugin = self.list.remove(at);
                self.counted();
                let error = Error::from(error);
                tracing::error!(plugin = %plugin.name, "NRI goes on without the plugin: {}", error.chain());
                Asked::Lost(error)
            }
        }
    }

    /// Lets those go whose connections have ended.
    fn sweep(&mut self) {
        for plugin in self.list.extract_if(.., |plugin| plugin.is_gone()) {
            tracing::warn!(plugin = %plugin.name, "NRI plugin closed its connection");
        }
        self.counted();
    }

    fn counted(&mut self) {
        self.count.store(self.list.len(), Ordering::Release);
        if self.list.is_empty() {
            // Nobody is told of removals now; whoever joins learns what there is.
            self.ended.clear();
        }
    }
}

/// How a plugin took a request.
enum Asked<A> {
    /// With nothing, if it did not subscribe to it.
    Answered(Option<A>),
    Refused(Error),
    Lost(Error),
}

fn conflict(error: MergeError) -> Error {
    Error::failed_precondition(error.to_string())
}

#[cfg(test)]
mod tests {
    use berth_types::ErrorKind;

    use super::*;

    #[tokio::test]
    async fn a_job_that_panics_is_an_error_of_its_own_only() {
        let desk = Desk::open(ValidatorConfig::default(), Arc::default());
        let broken = desk.run(|_| Box::pin(async { panic!("as the test wants it") })).await;
        let Err::<(), _>(error) = broken else { panic!("a job that panics has no result") };
        assert_eq!(error.kind(), ErrorKind::Internal);
        assert_eq!(desk.run(|_| Box::pin(async { 7 })).await.unwrap(), 7);
    }
}
