//! Figures for Prometheus, as a kubelet asks for them.

use std::collections::{BTreeMap, BTreeSet};

use berth_proto::runtime::v1 as proto;
use e2e::{Node, container, pod};
use proto::MetricType;

/// What a figure is called and told apart by: its labels' values, with ids by what they are of.
type Figure = (String, Vec<String>);

/// What a node tells.
#[derive(Debug, Default)]
struct Told {
    /// Descriptors: names and labels.
    descriptors: BTreeMap<String, Vec<String>>,
    /// Figures of the pod, then of its container.
    pod: BTreeSet<Figure>,
    container: BTreeSet<Figure>,
}

fn list(node: &Node) -> Vec<proto::PodSandboxMetrics> {
    let request = proto::ListPodSandboxMetricsRequest {};
    let answer = node.ask(|mut client| async move { client.list_pod_sandbox_metrics(request).await });
    answer.expect("there are figures").pod_metrics
}

/// A pod with a container that is limited, on a node.
fn with_pod<T>(node: &Node, look: impl FnOnce(&str, &str) -> T) -> T {
    let of = pod(node, "pod");
    let id = node.run_pod(&of).expect("a pod can be run");
    let mut config = container("main", &["sh", "-c", "exec sleep 1000"]);
    let image = config.image.as_mut().expect("it has one");
    "web:latest".clone_into(&mut image.user_specified_image);
    config.linux.as_mut().expect("it has it").resources = Some(proto::LinuxContainerResources {
        cpu_shares: 512,
        cpu_period: 100_000,
        memory_limit_in_bytes: 64 << 20,
        ..Default::default()
    });
    let main = node.started(&id, &of, &config).expect("it starts");
    let found = look(&id, &main);
    node.away(&id);
    found
}

fn told(node: &Node) -> Told {
    let request = proto::ListMetricDescriptorsRequest {};
    let descriptors = node.ask(|mut client| async move { client.list_metric_descriptors(request).await });
    let descriptors = descriptors.expect("they are known").descriptors;
    let descriptors = descriptors.into_iter().map(|one| (one.name, one.label_keys)).collect();
    let (pod, container) = with_pod(node, |pod, main| {
        let all = list(node);
        let named = |metrics: &[proto::Metric]| {
            let label = |label: &String| label.replace(pod, "POD").replace(main, "MAIN");
            let one = |one: &proto::Metric| (one.name.clone(), one.label_values.iter().map(label).collect());
            metrics.iter().map(one).collect::<BTreeSet<Figure>>()
        };
        (named(&all[0].metrics), named(&all[0].container_metrics[0].metrics))
    });
    Told { descriptors, pod, container }
}

#[test]
fn figures_have_the_names_and_labels_that_they_have_with_containerd() {
    let (mut ours, mut theirs) = (Told::default(), Told::default());
    Node::run(|node| ours = told(node));
    Node::oracle(|node| theirs = told(node));
    if theirs.descriptors.is_empty() {
        return;
    }
    assert_eq!(ours.descriptors, theirs.descriptors);
    assert_eq!(ours.pod, theirs.pod);
    // What is read and written differs from run to run.
    let is_steady =
        |one: &&Figure| !["_fs_reads", "_fs_writes", "blkio"].iter().any(|part| one.0.contains(part));
    let missing: Vec<_> =
        theirs.container.iter().filter(is_steady).filter(|one| !ours.container.contains(*one)).collect();
    assert!(missing.is_empty(), "{missing:#?} of {:#?}", ours.container);
}

#[test]
fn figures_say_what_a_container_does_and_may() {
    Node::run(|node| {
        with_pod(node, |pod, main| {
            let all = list(node);
            assert_eq!((all.len(), all[0].pod_sandbox_id.as_str()), (1, pod));
            let metrics = &all[0].container_metrics[0];
            assert_eq!(metrics.container_id, main);
            let figure = |name: &str| {
                let one = metrics
                    .metrics
                    .iter()
                    .find(|one| one.name == name)
                    .unwrap_or_else(|| panic!("no {name}"));
                assert_eq!(one.label_values[..5], ["pod", "default", "main", main, "web:latest"]);
                assert!(one.timestamp > 0);
                (one.value.expect("it has one").value, one.metric_type())
            };
            assert_eq!(figure("container_spec_cpu_shares"), (512, MetricType::Gauge));
            assert_eq!(figure("container_spec_memory_limit_bytes"), (64 << 20, MetricType::Gauge));
            assert_eq!(figure("container_cpu_usage_seconds_total").1, MetricType::Counter);
            assert_eq!(figure("container_processes").0, 1);
            assert!(figure("container_file_descriptors").0 >= 3);
            assert!(figure("container_memory_usage_bytes").0 > 0);
            let (started, seen) = (figure("container_start_time_seconds").0, figure("container_last_seen").0);
            assert!(started > 1_700_000_000 && started <= seen && seen < started + 600, "{started} {seen}");

            let received =
                all[0].metrics.iter().find(|one| one.name == "container_network_receive_bytes_total");
            assert_eq!(received.expect("it is there").label_values, ["pod", "default", "", pod, "", "eth0"]);

            let request = proto::StreamPodSandboxMetricsRequest {};
            let stream =
                node.ask(|mut client| async move { client.stream_pod_sandbox_metrics(request).await });
            let mut stream = stream.expect("they can be streamed");
            let first =
                node.wait("a message", stream.message()).expect("the stream goes on").expect("there is one");
            assert_eq!(first.pod_sandbox_metrics[0].pod_sandbox_id, pod);
            assert!(node.wait("the end", stream.message()).expect("it ends well").is_none());
        });
        assert!(list(node).is_empty());
    });
}
