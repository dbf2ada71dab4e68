//! Classes of block I/O and of RDT that containers ask for by annotation.

use berth_proto::runtime::v1 as proto;
use e2e::{Node, container, pod};
use tonic::Code;

fn asking(annotation: &str) -> proto::ContainerConfig {
    let mut config = container("c", &["sleep", "1000"]);
    config.annotations.insert(annotation.to_owned(), "gold".to_owned());
    config
}

const ANNOTATIONS: [(&str, &str); 2] = [
    ("io.kubernetes.cri.blockio-class", "ignore_blockio_not_enabled_errors"),
    ("io.kubernetes.cri.rdt-class", "ignore_rdt_not_enabled_errors"),
];

#[test]
fn a_class_that_cannot_be_had_is_refused_with_a_way_out() {
    Node::run(|node| {
        let mut of = pod(node, "pod");
        let id = node.run_pod(&of).expect("a pod can be run");
        for (annotation, way_out) in ANNOTATIONS {
            let error = node.create(&id, &of, &asking(annotation)).expect_err("there is no such class");
            assert_eq!(error.code(), Code::FailedPrecondition, "{error}");
            assert!(error.message().contains("\"gold\"") && error.message().contains(way_out), "{error}");
        }
        node.away(&id);
        of.annotations.insert("blockio.resources.beta.kubernetes.io/pod".to_owned(), "gold".to_owned());
        let id = node.run_pod(&of).expect("a pod can be run");
        let plain = container("c", &["sleep", "1000"]);
        let error = node.create(&id, &of, &plain).expect_err("the pod asks for all of its containers");
        assert!(error.message().contains("block I/O"), "{error}");
        node.away(&id);
    });
}

#[test]
fn a_class_is_passed_over_where_the_configuration_says_so() {
    let more = "[plugins.'io.containerd.grpc.v1.cri'.containerd]\nignore_blockio_not_enabled_errors = true\n\
                ignore_rdt_not_enabled_errors = true\n";
    Node::run_with(more, |node| {
        let of = pod(node, "pod");
        let id = node.run_pod(&of).expect("a pod can be run");
        for (annotation, _) in ANNOTATIONS {
            let one = node.started(&id, &of, &asking(annotation)).expect("it starts");
            node.remove_container(&one).expect("it goes");
        }
        node.away(&id);
    });
}
