//! Devices that their vendors describe, by name.

use std::fs;

use berth_proto::runtime::v1 as proto;
use e2e::{Node, container, pod};
use tonic::Code;

/// The table's key, with folders of the node's own.
const FOLDERS: &str = "cdi_spec_dirs = ['SCRATCH/cdi', 'SCRATCH/cdi.run']\n";

/// What a vendor describes: two devices, and what both need.
fn describe(node: &Node) {
    fs::create_dir_all(node.path("cdi")).expect("the scratch folder takes folders");
    fs::create_dir_all(node.path("driver")).expect("the scratch folder takes folders");
    fs::write(node.path("driver/lib"), "library").expect("the scratch folder takes files");
    let text = format!(
        "---\ncdiVersion: \"0.7.0\"\nkind: vendor.com/gpu\ncontainerEdits:\n  env: [DRIVER=1]\n  mounts:\n  \
         - {{hostPath: {}, containerPath: /driver, options: [ro, nosuid, nodev, rbind]}}\ndevices:\n\
         - name: \"0\"\n  containerEdits:\n    env: [GPU0=there]\n    deviceNodes:\n    \
         - {{path: /dev/gpu0, hostPath: /dev/null, permissions: rw}}\n    additionalGids: [4444]\n\
         - name: \"1\"\n  containerEdits:\n    env: [GPU1=there]\n    deviceNodes:\n    \
         - {{path: /dev/gpu1, hostPath: /dev/zero}}\n",
        node.path("driver").display()
    );
    fs::write(node.path("cdi/vendor.yaml"), text).expect("the scratch folder takes files");
}

/// A container that wants devices by its field and by an annotation.
fn wanting(by_field: &[&str], by_annotation: &str) -> proto::ContainerConfig {
    let mut config = container("main", &["sleep", "1000"]);
    let device = |name: &&str| proto::CdiDevice { name: (*name).to_owned() };
    config.cdi_devices = by_field.iter().map(device).collect();
    if !by_annotation.is_empty() {
        config.annotations.insert("cdi.k8s.io/plugin_0".to_owned(), by_annotation.to_owned());
    }
    config
}

/// What a container with both devices sees.
fn seen(node: &Node) -> String {
    describe(node);
    let of = pod(node, "pod");
    let id = node.run_pod(&of).expect("a pod can be run");
    let config = wanting(&["vendor.com/gpu=0"], "vendor.com/gpu=1,vendor.com/gpu=0");
    let main = node.started(&id, &of, &config).expect("it starts");
    let seen = node.sh(
        &main,
        "echo $DRIVER $GPU0 $GPU1; cat /driver/lib; touch /driver/x 2>/dev/null || echo ro; id -G; \
         stat -c '%a %t:%T' /dev/gpu0 /dev/gpu1; echo x > /dev/gpu0; head -c 3 /dev/gpu1 | wc -c",
    );
    node.away(&id);
    seen
}

#[test]
fn a_container_gets_the_devices_that_it_names_as_with_containerd() {
    let (mut found, mut wanted) = (String::new(), String::new());
    Node::run_with(FOLDERS, |node| found = seen(node));
    if found.is_empty() {
        return;
    }
    assert!(found.contains("1 there there") && found.contains("4444"), "{found}");
    Node::oracle_with(FOLDERS, |node| wanted = seen(node));
    assert!(wanted.is_empty() || found == wanted, "berth: {found}\ncontainerd: {wanted}");
}

#[test]
fn devices_that_cannot_be_had_are_named_and_the_container_is_not_made() {
    Node::run_with(FOLDERS, |node| {
        describe(node);
        let of = pod(node, "pod");
        let id = node.run_pod(&of).expect("a pod can be run");
        let refused =
            |config: &proto::ContainerConfig| node.create(&id, &of, config).expect_err("it cannot be had");

        let error = refused(&wanting(&["vendor.com/gpu=0", "vendor.com/gpu=7"], ""));
        assert_eq!(error.code(), Code::NotFound);
        assert!(
            error.message().contains("vendor.com/gpu=7") && error.message().contains("there are 0, 1"),
            "{error}"
        );
        let error = refused(&wanting(&["gpu"], ""));
        assert_eq!(error.code(), Code::InvalidArgument, "{error}");
        assert!(
            refused(&wanting(&[], "gpu")).message().contains("vendor.com/gpu=0"),
            "it says how it is done"
        );

        fs::copy(node.path("cdi/vendor.yaml"), node.path("cdi/again.yaml")).expect("it was written");
        let error = refused(&wanting(&["vendor.com/gpu=1"], ""));
        assert!(error.message().contains("again.yaml") && error.message().contains("vendor.yaml"), "{error}");
        node.away(&id);
    });
}

#[test]
fn no_device_is_given_where_that_is_switched_off() {
    Node::run_with("enable_cdi = false\n", |node| {
        let of = pod(node, "pod");
        let id = node.run_pod(&of).expect("a pod can be run");
        let error = node.create(&id, &of, &wanting(&["vendor.com/gpu=0"], "")).expect_err("it is off");
        assert!(error.message().contains("enable_cdi"), "{error}");
        let main =
            node.started(&id, &of, &wanting(&[], "vendor.com/gpu=0")).expect("annotations mean nothing");
        assert_eq!(node.sh(&main, "echo $GPU0").trim(), "");
        node.away(&id);
    });
}
