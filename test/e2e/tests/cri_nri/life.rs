//! What plugins are told, in which order, and when the daemon is started again.

use berth_proto::runtime::v1 as proto;
use e2e::{Node, container, pod};
use testkit::nri::Programs;
use testkit::{image, wait};

use crate::bed::{connect, install, journal, programs, run, table, uninstall};

/// Everything that can become of containers, once; the answer is what a plugin wrote down of it.
fn tour(node: &Node, programs: &Programs) -> Vec<String> {
    let (_scribe, journal) = connect(node, programs, "50-scribe", "");
    let of = pod(node, "pod");
    let id = node.run_pod(&of).expect("a pod can be run");
    let long = node.started(&id, &of, &container("long", &["sleep", "1000"])).expect("it starts");
    let linux = proto::LinuxContainerResources { cpu_shares: 77, ..Default::default() };
    let request = proto::UpdateContainerResourcesRequest {
        container_id: long.clone(),
        linux: Some(linux.clone()),
        ..Default::default()
    };
    node.ask(|mut client| async move { client.update_container_resources(request).await })
        .expect("it can be updated");
    let request = proto::UpdatePodSandboxResourcesRequest {
        pod_sandbox_id: id.clone(),
        overhead: Some(linux.clone()),
        resources: Some(linux),
    };
    node.ask(|mut client| async move { client.update_pod_sandbox_resources(request).await })
        .expect("it can be updated");
    let script = "while [ ! -e /go ]; do sleep 0.05; done";
    let short = node.started(&id, &of, &container("short", &["sh", "-c", script])).expect("it starts");
    journal.wait("PostStartContainer short");
    // It may end before that is answered.
    let _ = node.exec(&short, &["touch", "/go"]);
    node.ended(&short);
    journal.wait("StopContainer short");
    node.remove_container(&short).expect("it goes");
    let none = node.create(&id, &of, &container("none", &["/no/such/program"])).expect("it is made");
    node.start_container(&none).expect_err("there is no such program");
    node.remove_container(&none).expect("it goes");
    let idle = node.create(&id, &of, &container("idle", &["true"])).expect("it is made");
    node.remove_container(&idle).expect("it goes");
    node.stop_container(&long, 0).expect("it ends");
    journal.wait("StopContainer long");
    node.remove_container(&long).expect("it goes");
    node.away(&id);
    journal.wait("RemovePodSandbox");
    journal.lines().split_off(2)
}

#[test]
fn plugins_are_told_what_containerd_tells_them_in_its_order() {
    let Some(programs) = programs() else { return };
    let mut told = Vec::new();
    Node::run_with(&table("60s", ""), |node| told = tour(node, programs));
    if told.is_empty() {
        return;
    }
    assert_eq!(told[..2], ["RunPodSandbox pod", "CreateContainer pod long"], "{told:?}");
    let mut oracle = Vec::new();
    Node::oracle_with(&table("60s", ""), |node| oracle = tour(node, programs));
    assert!(oracle.is_empty() || told == oracle, "berth: {told:#?}\ncontainerd: {oracle:#?}");
}

#[test]
fn installed_plugins_come_and_go_with_the_daemon_and_learn_what_there_is() {
    run(|node, programs| {
        let of = pod(node, "pod");
        let id = node.run_pod(&of).expect("a pod can be run");
        let runs = node.started(&id, &of, &container("runs", &["sleep", "1000"])).expect("it starts");
        node.create(&id, &of, &container("waits", &["true"])).expect("it is made");
        let ended = node.started(&id, &of, &container("ended", &["true"])).expect("it starts");
        node.ended(&ended);

        let told = journal(node, "10-scribe");
        let wish = format!(
            r#""Update": {{"containerId": "{runs}", "linux": {{"resources": {{"cpu": {{"shares": {{"value": "88"}}}}}}}}}}"#
        );
        install(node, "10-scribe", &programs.scribe, Some(&told.config(&wish)));
        node.daemon.kill();
        node.daemon.restart();
        let version = told.wait("Configure");
        assert!(version.starts_with("Configure containerd "), "{version}");
        assert_eq!(told.wait("Synchronize"), "Synchronize 1 pods, 2 containers");
        let shares = || {
            let resources = node.status(&runs).ok()?.resources?.linux?;
            Some(resources.cpu_shares)
        };
        wait::soon("what it wants changed", || shares() == Some(88));

        node.remove_container(&ended).expect("it goes");
        node.away(&id);
        assert!(told.has("StopPodSandbox pod"), "{:?}", told.lines());
        uninstall(node);
        assert!(told.has("Shutdown"), "{:?}", told.lines());
    });
}

#[test]
fn containers_of_other_clients_are_none_of_the_plugins_business() {
    run(|node, programs| {
        let (_scribe, journal) = connect(node, programs, "50-scribe", "");
        let image = "berth.test/busybox:1";
        node.ctr("run --rm --snapshotter overlayfs").line(&format!("{image} other true")).ok();
        let archive = image::busybox().expect("it was looked for").named(image).oci_archive();
        let archive = node.daemon.scratch().file("again.tar", archive);
        let ctr = || node.daemon.ctr().expect("it was looked for").args(["--namespace", "default"]);
        ctr().line("images import --local").arg(archive).ok();
        ctr().line(&format!("run --rm {image} other true")).ok();
        let of = pod(node, "pod");
        let id = node.run_pod(&of).expect("a pod can be run");
        node.away(&id);
        journal.wait("RemovePodSandbox");
        let told = journal.lines().split_off(2);
        assert_eq!(told, ["RunPodSandbox pod", "StopPodSandbox pod", "RemovePodSandbox pod"]);
    });
}
