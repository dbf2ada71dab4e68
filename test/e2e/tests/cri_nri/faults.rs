//! Plugins that refuse, hang or die.

use std::time::{Duration, Instant};

use e2e::{container, pod};
use testkit::wait;

use crate::bed::{connect, run, run_with, table};

#[test]
fn a_pod_that_a_plugin_refuses_fails_in_its_words_and_leaves_nothing() {
    run(|node, programs| {
        let (strict, journal) = connect(node, programs, "10-strict", r#""Refuse": ["RunPodSandbox"]"#);
        let error = node.run_pod(&pod(node, "pod")).expect_err("a plugin refuses");
        for word in ["10-strict", "RunPodSandbox does not please", "default/pod"] {
            assert!(error.message().contains(word), "{error}");
        }
        let told = ["RunPodSandbox pod", "StopPodSandbox pod", "RemovePodSandbox pod"];
        assert_eq!(journal.lines().split_off(2), told);
        drop(strict);
        node.demand_bare();
    });
}

#[test]
fn a_container_whose_start_a_plugin_refuses_has_ended_with_its_words() {
    run(|node, programs| {
        let (strict, journal) = connect(node, programs, "10-strict", r#""Refuse": ["StartContainer"]"#);
        let of = pod(node, "pod");
        let id = node.run_pod(&of).expect("a pod can be run");
        let main = node.create(&id, &of, &container("main", &["sleep", "1000"])).expect("it is made");
        let error = node.start_container(&main).expect_err("a plugin refuses");
        assert!(error.message().contains("StartContainer does not please"), "{error}");
        let status = node.status(&main).expect("it is there");
        assert_eq!((status.exit_code, status.reason.as_str()), (128, "StartError"));
        assert!(journal.has("StopContainer main"), "{:?}", journal.lines());
        drop(strict);
        node.away(&id);
    });
}

#[test]
fn a_plugin_that_hangs_is_cut_off_in_time_and_pods_go_on() {
    run_with(&table("3s", ""), |node, programs| {
        let hang = r#""Hang": ["RunPodSandbox", "CreateContainer"]"#;
        let (_slow, journal) = connect(node, programs, "10-slow", hang);
        let of = pod(node, "pod");
        let began = Instant::now();
        let id = node.run_pod(&of).expect("a pod can be run");
        assert!(began.elapsed() >= Duration::from_secs(3), "it was not asked: {:?}", began.elapsed());
        assert!(journal.has("RunPodSandbox pod"), "{:?}", journal.lines());
        assert!(node.daemon.log().contains("NRI goes on without the plugin"), "{}", node.daemon.log_tail());
        let main = node.started(&id, &of, &container("main", &["true"])).expect("it starts");
        assert_eq!(node.ended(&main).exit_code, 0);
        assert!(!journal.has("CreateContainer pod main"), "it is asked again");
        node.away(&id);
    });
}

#[test]
fn a_plugin_that_dies_in_the_middle_takes_nothing_with_it() {
    run(|node, programs| {
        let hang = r#""Hang": ["CreateContainer"]"#;
        let (mut mortal, journal) = connect(node, programs, "10-mortal", hang);
        let of = pod(node, "pod");
        let id = node.run_pod(&of).expect("a pod can be run");
        let request = e2e::create(&id, &of, &container("main", &["true"]));
        let asked = node.asking(|mut client| async move { client.create_container(request).await });
        journal.wait("CreateContainer pod main");
        mortal.0.kill().expect("it is our child");
        let main = node.answer(asked).expect("it is made without it").container_id;
        node.start_container(&main).expect("it starts");
        assert_eq!(node.ended(&main).exit_code, 0);
        node.away(&id);
    });
}

/// A plugin that waits to join while a container takes its time to stop keeps nobody else waiting.
#[test]
fn a_slow_stop_keeps_neither_plugins_nor_pods_waiting() {
    run(|node, programs| {
        let of = pod(node, "pod");
        let id = node.run_pod(&of).expect("a pod can be run");
        let script = "trap '' TERM; echo ready; while true; do sleep 0.05; done";
        let deaf = node.started(&id, &of, &container("deaf", &["sh", "-c", script])).expect("it starts");
        wait::soon("its trap", || node.log("pod", "deaf").contains("ready"));
        let request =
            berth_proto::runtime::v1::StopContainerRequest { container_id: deaf.clone(), timeout: 1000 };
        let slow = node.asking(|mut client| async move { client.stop_container(request).await });
        let (_scribe, journal) = connect(node, programs, "10-scribe", "");
        assert_eq!(journal.wait("Synchronize"), "Synchronize 1 pods, 1 containers");
        let other = node.run_pod(&pod(node, "other")).expect("a pod can be run");
        assert!(!slow.is_answered());
        node.stop_container(&deaf, 0).expect("it is killed");
        node.answer(slow).expect("it has ended");
        journal.wait("StopContainer deaf");
        node.away(&id);
        node.away(&other);
    });
}
