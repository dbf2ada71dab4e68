//! `ListMetricDescriptors` and `ListPodSandboxMetrics`: figures for a kubelet that serves them to Prometheus.
//!
//! Names, labels and units are those that cAdvisor made usual and containerd has. Figures of the network are the pod's,
//! all others a container's.

mod cgroup;
mod container;
mod descriptors;
mod pod;
mod process;

use berth_proto::runtime::v1 as proto;
use proto::MetricType;

use super::reading::value;

pub(crate) use descriptors::descriptors;

/// Figures of one thing, with the labels that all of them have.
struct Figures {
    labels: [String; 5],
    at: i64,
    all: Vec<proto::Metric>,
}

impl Figures {
    /// None yet: of a pod's `container`, which is told by its name, id and image.
    fn new(pod: &proto::PodSandboxMetadata, container: [String; 3]) -> Self {
        let [name, id, image] = container;
        let labels = [pod.name.clone(), pod.namespace.clone(), name, id, image];
        Self { labels, at: crate::time::now(), all: Vec::new() }
    }

    /// What only grows.
    fn count(&mut self, name: &str, value: u64) {
        self.add(MetricType::Counter, name, &[], value);
    }

    /// What goes up and down.
    fn gauge(&mut self, name: &str, value: u64) {
        self.add(MetricType::Gauge, name, &[], value);
    }

    /// One of several of a name, which further labels tell apart.
    fn add(&mut self, kind: MetricType, name: &str, more: &[&str], figure: u64) {
        let more = more.iter().map(|label| (*label).to_owned());
        self.all.push(proto::Metric {
            name: name.to_owned(),
            timestamp: self.at,
            metric_type: kind.into(),
            label_values: self.labels.iter().cloned().chain(more).collect(),
            value: value(figure),
        });
    }
}
