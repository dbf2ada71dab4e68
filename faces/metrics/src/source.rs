//! Where the figures come from.

use std::collections::BTreeMap;
use std::sync::Arc;

use berth_core::{Catalog, Scope};
use berth_types::filter::Filters;
use berth_types::{ContainerId, Metric, Namespace, Result};
use futures::future::join_all;

use crate::cgroup::{self, Task};
use crate::page::{Kind, Page};

/// Who makes pages of figures. Those of the process itself ([`serve`](crate::serve)) need not be among them.
pub trait Pages: Send + Sync + 'static {
    /// The figures as they are now.
    fn page(&self) -> impl Future<Output = Page> + Send;
}

/// What the page says the daemon is.
#[derive(Clone, Debug)]
pub struct Build {
    /// The version.
    pub version: String,
    /// The revision of the source; may be empty.
    pub revision: &'static str,
}

/// Everything that a page is made of.
pub struct Source {
    /// The daemon.
    pub catalog: Arc<dyn Catalog>,
    /// Its version.
    pub build: Build,
    /// Whether its containers' figures are asked for.
    pub containers: bool,
}

impl Pages for Source {
    /// A namespace that cannot be asked is left out, and said in the log.
    async fn page(&self) -> Page {
        let mut page = Page::default();
        let Build { version, revision } = &self.build;
        let labels = [("revision", *revision), ("version", version)];
        page.add("containerd_build_info_total", Kind::Counter, "The version of the daemon.", &labels, 1.0);
        if self.containers {
            self.collect_tasks(&mut page).await;
        }
        page
    }
}

impl Source {
    async fn collect_tasks(&self, page: &mut Page) {
        let namespaces = match self.catalog.namespaces().list().await {
            Ok(namespaces) => namespaces,
            Err(error) => {
                tracing::error!("no figures of containers: {}", error.chain());
                Vec::new()
            }
        };
        let asked = namespaces.into_iter().map(|record| async move {
            let tasks = self.tasks(&record.name).await;
            (record.name, tasks)
        });
        for (namespace, tasks) in join_all(asked).await {
            match tasks {
                Ok((metrics, runtimes)) => add(page, &namespace, &metrics, &runtimes),
                Err(error) => tracing::error!("no figures of namespace {namespace}: {}", error.chain()),
            }
        }
    }

    /// The figures of a namespace's tasks, and their containers' runtimes.
    async fn tasks(&self, namespace: &Namespace) -> Result<(Vec<Metric>, BTreeMap<ContainerId, String>)> {
        let scope = Scope::new(namespace.clone());
        let metrics = self.catalog.tasks(&scope).metrics(&[]).await?;
        if metrics.is_empty() {
            return Ok((metrics, BTreeMap::new()));
        }
        let containers = self.catalog.containers(&scope).list(&Filters::default()).await?;
        let runtimes = containers.into_iter().map(|one| (one.id, one.runtime.name)).collect();
        Ok((metrics, runtimes))
    }
}

fn add(page: &mut Page, namespace: &Namespace, metrics: &[Metric], runtimes: &BTreeMap<ContainerId, String>) {
    for metric in metrics {
        let Some(data) = &metric.data else { continue };
        let runtime = runtimes.get(&metric.id).map_or("", String::as_str);
        let (container, namespace) = (metric.id.to_string(), namespace.to_string());
        cgroup::collect(page, Task { container: &container, namespace: &namespace, runtime }, data);
    }
}
