//! The figures of one task: the messages that shims answer, under containerd's names.

mod v1;
mod v2;

use berth_proto::io::containerd::cgroups as proto;
use berth_types::Any;
use prost::Message as _;

use crate::page::{Kind, Page};

/// Whose figures they are.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Task<'a> {
    pub(crate) container: &'a str,
    pub(crate) namespace: &'a str,
    pub(crate) runtime: &'a str,
}

/// A page, as the figures of one task see it.
struct Figures<'a, 'p> {
    task: Task<'a>,
    page: &'p mut Page,
}

impl Figures<'_, '_> {
    fn add(&mut self, name: &str, help: &'static str, value: u64) {
        self.add_of(&[], name, help, value);
    }

    /// Adds a figure that there is several times for one task.
    fn add_of(&mut self, of: &[(&str, &str)], name: &str, help: &'static str, value: u64) {
        let Task { container, namespace, runtime } = self.task;
        let mut labels = vec![("container_id", container), ("namespace", namespace), ("runtime", runtime)];
        labels.extend_from_slice(of);
        labels.sort_unstable();
        self.page.add(&format!("container_{name}"), Kind::Gauge, help, &labels, value as f64);
    }
}

/// Adds the figures in `data`. A message of another kind, as runtimes without cgroups send it, has none.
pub(crate) fn collect(page: &mut Page, task: Task<'_>, data: &Any) {
    let mut figures = Figures { task, page };
    match &*data.type_url {
        "io.containerd.cgroups.v1.Metrics" => {
            if let Ok(metrics) = proto::v1::Metrics::decode(&*data.value) {
                v1::collect(&mut figures, &metrics);
            }
        }
        "io.containerd.cgroups.v2.Metrics" => {
            if let Ok(metrics) = proto::v2::Metrics::decode(&*data.value) {
                v2::collect(&mut figures, &metrics);
            }
        }
        other => tracing::trace!(container = task.container, kind = other, "no figures in this message"),
    }
}

#[cfg(test)]
mod tests;
