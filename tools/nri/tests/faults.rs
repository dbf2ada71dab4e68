//! Plugins that hang, die, talk nonsense or never were one: bounded time, clear errors, and the node goes on.

#![expect(clippy::unwrap_used, reason = "a test fails with what it did not expect")]

mod common;

use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use berth_nri::{Nri, proto};
use berth_types::ErrorKind;

use common::raw::{self, Answer};
use common::{Bed, container, pod, programs};

/// A script as a plugin.
fn script(bed: &Bed, name: &str, text: &str) {
    let path: PathBuf = bed.scratch.file(&format!("{name}.sh"), format!("#!/bin/sh\n{text}\n"));
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
    bed.install(name, &path, None);
}

async fn run_pod(nri: &Nri) -> berth_types::Result<()> {
    nri.run_pod_sandbox(proto::RunPodSandboxRequest { pod: Some(pod(&[])) }).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plugin_that_hangs_is_cut_off_once_and_the_container_made_without_it() {
    let Some(programs) = programs() else { return };
    let mut bed = Bed::new();
    let (slow, sound) = (bed.journal("slow"), bed.journal("sound"));
    let hang = r#""Hang": ["CreateContainer"], "Adjust": {"env": [{"key": "COLOUR", "value": "red"}]}"#;
    bed.install("10-slow", &programs.scribe, Some(&slow.config(hang)));
    bed.install(
        "20-sound",
        &programs.scribe,
        Some(&sound.config(r#""Adjust": {"annotations": {"by": "sound"}}"#)),
    );
    bed.config.plugin_request_timeout = Duration::from_secs(3);
    let nri = bed.open().await;
    let began = Instant::now();
    let created = nri.create_container(pod(&[]), container()).await.unwrap();
    let took = began.elapsed();
    assert!(took >= Duration::from_secs(3) && took < Duration::from_secs(30), "{took:?}");
    assert!(created.adjustment.env.is_empty());
    assert_eq!(created.adjustment.annotations["by"], "sound");
    // Its process is ours, and ends with it: nobody is left to write "closed".
    let began = Instant::now();
    nri.create_container(pod(&[]), container()).await.unwrap();
    assert!(began.elapsed() < Duration::from_secs(3), "it is asked again");
    assert_eq!(slow.lines().iter().filter(|line| line.starts_with("CreateContainer")).count(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_required_plugin_that_hangs_fails_the_creation() {
    let Some(programs) = programs() else { return };
    let mut bed = Bed::new();
    bed.install("10-slow", &programs.scribe, Some(r#"{"Hang": ["CreateContainer"]}"#));
    bed.config.plugin_request_timeout = Duration::from_secs(3);
    bed.config.default_validator.enable = true;
    bed.config.default_validator.required_plugins = vec!["slow".to_owned()];
    let nri = bed.open().await;
    for _ in 0..2 {
        let error = nri.create_container(pod(&[]), container()).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::FailedPrecondition);
        assert!(error.message().contains("required") && error.message().contains("slow"), "{error}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_program_that_never_registers_is_ended_in_time_and_one_that_fails_at_once() {
    let mut bed = Bed::new();
    script(&bed, "10-mute", "echo $$ > \"$0.pid\"; exec sleep 1000");
    script(&bed, "20-dead", "exit 1");
    bed.config.plugin_registration_timeout = Duration::from_secs(2);
    let began = Instant::now();
    let nri = bed.open().await;
    let took = began.elapsed();
    assert!(took >= Duration::from_secs(2) && took < Duration::from_secs(30), "{took:?}");
    let pid = std::fs::read_to_string(bed.config.plugin_path.join("10-mute.pid")).unwrap();
    if let Some(process) = testkit::wait::Watched::open(pid.trim().parse().unwrap()) {
        assert!(process.ends_within(testkit::wait::SOON));
    }
    run_pod(&nri).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_called_like_a_plugin_is_left_alone() {
    let bed = Bed::new();
    script(&bed, "README", "touch \"$0.ran\"");
    let nri = bed.open().await;
    run_pod(&nri).await.unwrap();
    assert!(!bed.config.plugin_path.join("README.ran").exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn noise_on_the_socket_is_hung_up_on() {
    let bed = Bed::new();
    let _nri = bed.open().await;
    for noise in [&[0xff; 64][..], b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", &[0; 8], &[0, 0, 0, 2, 0, 0, 0, 10]]
    {
        let mut socket = UnixStream::connect(&bed.config.socket_path).unwrap();
        socket.write_all(noise).unwrap();
        socket.shutdown(std::net::Shutdown::Write).unwrap();
        socket.set_read_timeout(Some(testkit::wait::SOON)).unwrap();
        let mut rest = Vec::new();
        // A reset says the same as an end.
        let ended = socket.read_to_end(&mut rest);
        assert!(rest.is_empty(), "{noise:?}: {ended:?} {rest:?}");
        assert!(
            ended.is_ok() || ended.is_err_and(|error| error.kind() == std::io::ErrorKind::ConnectionReset)
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plugin_without_a_proper_name_is_not_let_in() {
    let bed = Bed::new();
    let nri = bed.open().await;
    for name in [("x", "plugin"), ("10", "../../evil"), ("", "")] {
        let plugin = raw::connect(&bed.config.socket_path, name, |_, _| panic!("nothing is asked of it"));
        plugin.join().unwrap();
    }
    run_pod(&nri).await.unwrap();
}

/// A plugin that joins, and from then on answers pods like this.
async fn joined(
    bed: &Bed,
    answer: fn() -> Answer,
) -> (Nri, std::thread::JoinHandle<()>, mpsc::Receiver<String>) {
    let nri = bed.open().await;
    let (told, methods) = mpsc::channel();
    let plugin = raw::connect(&bed.config.socket_path, ("10", "raw"), move |method, _| {
        // The test may have ended.
        let _ = told.send(method.to_owned());
        if method == "RunPodSandbox" { answer() } else { Answer::Empty }
    });
    for expected in ["Configure", "Synchronize"] {
        assert_eq!(methods.recv_timeout(testkit::wait::SOON).unwrap(), expected);
    }
    // It is one of the plugins when it is told of something.
    while methods.try_recv().is_err() {
        nri.stop_pod_sandbox(proto::StopPodSandboxRequest { pod: Some(pod(&[])) }).await.unwrap();
    }
    (nri, plugin, methods)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plugin_that_answers_garbage_is_cut_off() {
    for answer in [|| Answer::Garbage, || Answer::Torn] {
        let bed = Bed::new();
        let (nri, plugin, _methods) = joined(&bed, answer).await;
        run_pod(&nri).await.unwrap();
        plugin.join().unwrap();
        run_pod(&nri).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_old_plugin_is_told_of_events_as_changes_of_state() {
    let bed = Bed::new();
    let (nri, _plugin, methods) = joined(&bed, || Answer::Unimplemented).await;
    while methods.try_recv().is_ok() {}
    run_pod(&nri).await.unwrap();
    run_pod(&nri).await.unwrap();
    let told: Vec<String> = methods.try_iter().collect();
    assert_eq!(told, ["RunPodSandbox", "StateChange", "StateChange"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plugin_that_dies_is_missed_before_it_is_asked() {
    let Some(programs) = programs() else { return };
    let bed = Bed::new();
    let nri = bed.open().await;
    let journal = bed.journal("mortal");
    let mut mortal = bed.connect(
        &programs.scribe,
        "10-mortal",
        &journal.config(r#""Adjust": {"annotations": {"by": "it"}}"#),
    );
    journal.wait("Synchronize");
    while nri.create_container(pod(&[]), container()).await.unwrap() == Default::default() {}
    mortal.0.kill().unwrap();
    mortal.0.wait().unwrap();
    let created = nri.create_container(pod(&[]), container()).await.unwrap();
    assert_eq!(created, Default::default());
}

#[tokio::test(flavor = "multi_thread")]
async fn plugins_do_not_join_in_the_middle_of_a_request() {
    let bed = Bed::new();
    let nri = bed.open().await;
    let pause = nri.pause_joins().await;
    let (told, methods) = mpsc::channel();
    let _plugin = raw::connect(&bed.config.socket_path, ("10", "raw"), move |method, _| {
        // The test may have ended.
        let _ = told.send(method.to_owned());
        Answer::Empty
    });
    assert_eq!(methods.recv_timeout(testkit::wait::SOON).unwrap(), "Configure");
    assert!(methods.recv_timeout(Duration::from_millis(300)).is_err(), "it joined in the middle");
    drop(pause);
    assert_eq!(methods.recv_timeout(testkit::wait::SOON).unwrap(), "Synchronize");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_socket_at_which_another_runtime_listens_is_left_to_it() {
    let bed = Bed::new();
    let first = bed.open().await;
    let second = bed.open().await;
    let (told, methods) = mpsc::channel();
    let _plugin = raw::connect(&bed.config.socket_path, ("10", "raw"), move |method, _| {
        // The test may have ended.
        let _ = told.send(method.to_owned());
        Answer::Empty
    });
    assert_eq!(methods.recv_timeout(testkit::wait::SOON).unwrap(), "Configure");
    assert_eq!(methods.recv_timeout(testkit::wait::SOON).unwrap(), "Synchronize");
    let pause = first.pause_joins().await;
    assert!(!first.is_idle() && second.is_idle());
    drop(pause);
    second.close().await;
    assert!(bed.config.socket_path.exists());
    first.close().await;
    assert!(!bed.config.socket_path.exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_is_told_once_however_often_it_is_tried() {
    let bed = Bed::new();
    let (nri, _plugin, methods) = joined(&bed, || Answer::Empty).await;
    let container = || Some(container());
    for _ in 0..3 {
        // The pod's first one was told while the plugin joined.
        nri.stop_pod_sandbox(proto::StopPodSandboxRequest { pod: Some(pod(&[])) }).await.unwrap();
        let stop = proto::StopContainerRequest { pod: Some(pod(&[])), container: container() };
        nri.stop_container(stop).await.unwrap();
    }
    nri.remove_container(proto::RemoveContainerRequest { pod: Some(pod(&[])), container: container() })
        .await
        .unwrap();
    nri.remove_pod_sandbox(proto::RemovePodSandboxRequest { pod: Some(pod(&[])) }).await.unwrap();
    let told: Vec<String> = methods.try_iter().collect();
    assert_eq!(told, ["StopContainer", "RemoveContainer", "RemovePodSandbox"]);
}
