//! Containers of the daemon before this one.

use std::collections::BTreeSet;
use std::sync::Arc;

use berth_proto::runtime::v1 as proto;
use berth_types::filter::Filters;
use berth_types::{Container as Record, Error, ErrorKind, ProcessStatus, Result};
use futures::{StreamExt as _, stream};

use super::create::SNAPSHOT_OF;
use super::{CONFIG, Container, LIFE, Life, ORIGIN, Origin};
use crate::Cri;
use crate::names;
use crate::time::now;

/// Tasks that are asked at once.
const AT_ONCE: usize = 32;

impl Cri {
    /// Takes up the containers that are recorded, once the pods are known, and hears what became of their tasks.
    pub(crate) async fn recover_containers(self: &Arc<Self>) -> Result<()> {
        let (mut found, mut recorded) = (Vec::new(), BTreeSet::new());
        for record in self.containers_store().list(&Filters::default()).await? {
            recorded.insert(record.id.to_string());
            let Some(container) = self.read_container(&record) else { continue };
            let container = Arc::new(container);
            match self.containers.insert(container.clone()) {
                Ok(()) => found.push(container),
                Err(error) => {
                    tracing::warn!(container = %container.id, "a container is there twice: {}", error.chain());
                }
            }
        }
        let settled = stream::iter(found).for_each_concurrent(AT_ONCE, |container| async move {
            if let Err(error) = self.settle_container(&container).await {
                tracing::error!(container = %container.id, "cannot take up a container: {}", error.chain());
            }
        });
        settled.await;
        self.sweep_snapshots(&recorded).await
    }

    /// Removes the snapshots of containers that were being made: nobody else knows of them.
    async fn sweep_snapshots(&self, recorded: &BTreeSet<String>) -> Result<()> {
        let mut names = vec![self.config.snapshotter.clone()];
        names.extend(self.config.pods.handlers.values().filter_map(|handler| handler.snapshotter.clone()));
        names.sort();
        names.dedup();
        for name in names {
            let Ok(snapshotter) = self.catalog.snapshotter(&name, &self.scope) else { continue };
            for snapshot in snapshotter.list(&Filters::default()).await? {
                let Some(id) = snapshot.labels.get(SNAPSHOT_OF) else { continue };
                if recorded.contains(id) {
                    continue;
                }
                tracing::info!(snapshot = %snapshot.key, "removing what the last daemon was making");
                if let Err(error) = snapshotter.remove(&snapshot.key).await {
                    tracing::warn!(snapshot = %snapshot.key, "it cannot be removed: {}", error.chain());
                }
            }
        }
        Ok(())
    }

    /// Brings what is known of a container in step with its task.
    async fn settle_container(self: &Arc<Self>, container: &Arc<Container>) -> Result<()> {
        let life = container.life();
        if life.finished_at != 0 {
            return self.remove_task(container).await;
        }
        let state = match self.tasks().state(&container.process()).await {
            Err(error) if error.kind() == ErrorKind::NotFound => {
                // One that was never started can still be.
                if life.started_at != 0 {
                    self.lost(container).await;
                }
                return Ok(());
            }
            state => state?,
        };
        match (state.status, state.exit) {
            (ProcessStatus::Stopped, Some(exit)) => {
                self.begun(container, &life, state.pid);
                self.exited(container, exit).await;
                Ok(())
            }
            // It was about to be started: the request is made again.
            (ProcessStatus::Created, _) => self.end_task(&container.id, std::time::Duration::ZERO, 9).await,
            _ => {
                self.begun(container, &life, state.pid);
                self.watch_exit(container);
                Ok(())
            }
        }
    }

    /// It has been started, also if the last daemon could not write that down.
    fn begun(&self, container: &Container, life: &Life, pid: u32) {
        let started_at = if life.started_at == 0 { now() } else { life.started_at };
        container.life.send_replace(Life { started_at, pid, ..life.clone() });
    }

    fn read_container(&self, record: &Record) -> Option<Container> {
        let config = record.extensions.get(CONFIG)?;
        let read = || -> Result<Container> {
            let config: proto::ContainerConfig = berth_proto::convert::unpack(config)?;
            let pod = self.pod(&record.sandbox)?;
            let name = names::of_container(&config, &names::of_pod(&pod.config)?)?;
            let origin: Origin = value(record, ORIGIN)?;
            let life: Life = value(record, LIFE)?;
            let root = self.config.pods.root.join("containers").join(record.id.as_str());
            let container =
                Container::new((record.id.clone(), name), &pod, config, origin, record.created_at, root);
            container.life.send_replace(life);
            if let Some(limits) = record.extensions.get(super::update::LIMITS) {
                container.set_limits(berth_proto::convert::unpack(limits)?);
            }
            Ok(container)
        };
        read()
            .inspect_err(|error| {
                tracing::error!(container = %record.id, "the record of a container is passed over: {}", error.chain());
            })
            .ok()
    }
}

fn value<T: serde::de::DeserializeOwned>(record: &Record, key: &str) -> Result<T> {
    let any = record.extensions.get(key).ok_or_else(|| Error::data_loss(format!("it lacks {key}")))?;
    serde_json::from_slice(&any.value)
        .map_err(|error| Error::data_loss(format!("{key} cannot be read")).caused_by(error))
}
