//! Other people's plugins, and upstream's library, beside this runtime.

#![expect(clippy::unwrap_used, reason = "a test fails with what it did not expect")]
#![expect(clippy::needless_update, reason = "one macro makes messages with and without further fields")]

mod common;

use std::os::unix::fs::PermissionsExt as _;

use berth_nri::proto;
use berth_types::ErrorKind;
use common::{Bed, Daemon, container, pod, programs};
use testkit::nri::Programs;
use testkit::wait::{SOON, Watched, soon};

const QOS: &str =
    r#"{"UnifiedAnnotations": ["misc.max"], "Classes": [{"Name": "swap", "SwapLimitRatio": 0.5}]}"#;
const CLASS: (&str, &str) = ("class.memory-qos.nri.io", "swap");
const ENCLAVE: (&str, &str) = ("epc-limit.nri.io/container.main", "4096");

/// The collection's plugins, installed.
fn with_others(programs: &Programs) -> Bed {
    let bed = Bed::new();
    bed.install("10-memory-qos", &programs.memory_qos, Some(QOS));
    bed.install("20-sgx-epc", &programs.sgx_epc, None);
    bed
}

#[tokio::test(flavor = "multi_thread")]
async fn plugins_of_other_people_adjust_a_container() {
    let Some(programs) = programs() else { return };
    let bed = with_others(programs);
    let nri = bed.open().await;
    let created = nri.create_container(pod(&[CLASS, ENCLAVE]), container()).await.unwrap();
    let mut spec = berth_oci::runtime::Spec::default();
    berth_nri::apply(&mut spec, &created.adjustment).unwrap();
    let unified = spec.linux.unwrap().resources.unwrap().unified;
    let own = |(key, value): (&str, &str)| (key.to_owned(), value.to_owned());
    let expected = [("memory.high", "500"), ("memory.swap.max", "max"), ("misc.max", "sgx_epc 4096")];
    assert_eq!(unified, expected.map(own).into());
    nri.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_of_them_that_want_the_same_fail_the_creation_by_name() {
    let Some(programs) = programs() else { return };
    let bed = with_others(programs);
    let nri = bed.open().await;
    let both = pod(&[("misc.max.memory-qos.nri.io", "sgx_epc 1"), ENCLAVE]);
    let error = nri.create_container(both, container()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::FailedPrecondition);
    for word in ["10-memory-qos", "20-sgx-epc", "misc.max", "c1"] {
        assert!(error.message().contains(word), "{error}");
    }
    nri.create_container(pod(&[ENCLAVE]), container()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plugin_that_refuses_fails_the_creation_in_its_own_words_and_stays() {
    let Some(programs) = programs() else { return };
    let bed = with_others(programs);
    let nri = bed.open().await;
    let error = nri.create_container(pod(&[("epc-limit.nri.io", "much")]), container()).await.unwrap_err();
    assert!(error.message().contains("20-sgx-epc") && error.message().contains("much"), "{error}");
    let created = nri.create_container(pod(&[ENCLAVE]), container()).await.unwrap();
    assert!(created.adjustment.linux.is_some());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plugin_is_told_of_a_pods_whole_life_in_order() {
    let Some(programs) = programs() else { return };
    let bed = Bed::new();
    let journal = bed.journal("scribe");
    bed.install("50-scribe", &programs.scribe, Some(&journal.config("")));
    let nri = bed.open().await;
    let (pod, container) = (Some(pod(&[])), Some(container()));
    macro_rules! tell {
        ($name:ident, $request:ident, pod) => {
            nri.$name(proto::$request { pod: pod.clone(), ..Default::default() }).await.unwrap()
        };
        ($name:ident, $request:ident) => {
            nri.$name(proto::$request {
                pod: pod.clone(),
                container: container.clone(),
                ..Default::default()
            })
            .await
            .unwrap()
        };
    }
    tell!(run_pod_sandbox, RunPodSandboxRequest, pod);
    nri.create_container(pod.clone().unwrap(), container.clone().unwrap()).await.unwrap();
    tell!(post_create_container, PostCreateContainerRequest);
    tell!(start_container, StartContainerRequest);
    tell!(post_start_container, PostStartContainerRequest);
    tell!(update_container, UpdateContainerRequest);
    tell!(post_update_container, PostUpdateContainerRequest);
    tell!(update_pod_sandbox, UpdatePodSandboxRequest, pod);
    tell!(post_update_pod_sandbox, PostUpdatePodSandboxRequest, pod);
    tell!(stop_container, StopContainerRequest);
    tell!(remove_container, RemoveContainerRequest);
    tell!(stop_pod_sandbox, StopPodSandboxRequest, pod);
    tell!(remove_pod_sandbox, RemovePodSandboxRequest, pod);
    nri.close().await;
    journal.wait("Shutdown");
    let version = bed.config.runtime_version;
    let expected = [
        &format!("Configure berth {version} v0.12.0 1m0s"),
        "Synchronize 0 pods, 0 containers",
        "RunPodSandbox web",
        "CreateContainer web main map[] [COLOUR=grey]",
        "PostCreateContainer main",
        "StartContainer main",
        "PostStartContainer main",
        "UpdateContainer main 0",
        "PostUpdateContainer main",
        "UpdatePodSandbox web 0 0",
        "PostUpdatePodSandbox web",
        "StopContainer main",
        "RemoveContainer main",
        "StopPodSandbox web",
        "RemovePodSandbox web",
        "Shutdown",
    ];
    assert_eq!(journal.lines()[..expected.len()], expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plugin_that_connects_learns_what_there_is_however_much_it_is() {
    let Some(programs) = programs() else { return };
    let mut bed = Bed::new();
    let mut daemon = Daemon::default();
    // Some ten megabytes, in messages of four.
    let annotations = || [("long".to_owned(), "x".repeat(20_000))].into();
    for number in 0..200 {
        daemon.snapshot.pods.push(proto::PodSandbox { annotations: annotations(), ..pod(&[]) });
        let id = format!("c{number}");
        daemon.snapshot.containers.push(proto::Container { id, annotations: annotations(), ..container() });
        daemon.snapshot.containers.push(container());
    }
    bed.daemon = daemon.into();
    let nri = bed.open().await;
    let journal = bed.journal("scribe");
    let update = r#""Update": {"containerId": "c7", "linux": {"resources": {"pids": {"limit": 3}}}}"#;
    let _scribe = bed.connect(&programs.scribe, "50-scribe", &journal.config(update));
    assert_eq!(journal.wait("Synchronize"), "Synchronize 200 pods, 400 containers");
    soon("what it wants changed", || {
        bed.daemon.updates.lock().unwrap().iter().any(|one| one.container_id == "c7")
    });
    nri.close().await;
    journal.wait("closed");
    assert!(!bed.config.socket_path.exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn plugins_are_asked_by_index_whichever_came_first() {
    let Some(programs) = programs() else { return };
    let bed = Bed::new();
    let (late, early) = (bed.journal("late"), bed.journal("early"));
    bed.install("50-late", &programs.scribe, Some(&late.config("")));
    let nri = bed.open().await;
    let adjust = r#""Adjust": {"env": [{"key": "COLOUR", "value": "red"}], "annotations": {"by": "early"}}"#;
    let _early = bed.connect(&programs.scribe, "05-early", &early.config(adjust));
    early.wait("Synchronize");
    // It is one of them once its answer was taken in; until then creations go without it.
    let created = loop {
        let created = nri.create_container(pod(&[]), container()).await.unwrap();
        if created.adjustment != proto::ContainerAdjustment::default() {
            break created;
        }
    };
    assert_eq!(created.adjustment.annotations["by"], "early");
    late.wait("CreateContainer web main map[by:early] [COLOUR=red]");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_validator_sees_who_did_what_and_has_the_last_word() {
    let Some(programs) = programs() else { return };
    let bed = Bed::new();
    let judge = bed.journal("judge");
    let adjust = r#"{"Adjust": {"env": [{"key": "COLOUR", "value": "red"}]}}"#;
    bed.install("10-painter", &programs.scribe, Some(adjust));
    let events = r#""Events": ["validatecontaineradjustment"], "Reject": "no red""#;
    bed.install("90-judge", &programs.scribe, Some(&judge.config(events)));
    let nri = bed.open().await;
    let error = nri.create_container(pod(&[]), container()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::PermissionDenied);
    assert!(error.message().contains("90-judge") && error.message().contains("no red"), "{error}");
    judge.wait("ValidateContainerAdjustment main, COLOUR is 10-painter's, of 2 plugins");
}

#[tokio::test(flavor = "multi_thread")]
async fn updates_go_to_the_daemon_and_failures_back_to_the_plugin() {
    let Some(programs) = programs() else { return };
    let bed = Bed::new();
    let nri = bed.open().await;
    let (fine, failing) = (bed.journal("fine"), bed.journal("failing"));
    let update = |id| {
        format!(
            r#""Unsolicited": {{"containerId": "{id}", "linux": {{"resources": {{"pids": {{"limit": 3}}}}}}}}"#
        )
    };
    let _fine = bed.connect(&programs.scribe, "10-fine", &fine.config(&update("c1")));
    let _failing = bed.connect(&programs.scribe, "20-failing", &failing.config(&update("gone")));
    assert_eq!(fine.wait("UpdateContainers"), "UpdateContainers 0 failed, <nil>");
    assert_eq!(failing.wait("UpdateContainers"), "UpdateContainers 1 failed, <nil>");
    let updates = bed.daemon.updates.lock().unwrap();
    let limit = updates[0].linux.as_ref().unwrap().resources.as_ref().unwrap().pids.unwrap().limit;
    assert_eq!((updates.len(), limit), (2, 3));
    drop(nri);
}

#[tokio::test(flavor = "multi_thread")]
async fn plugins_change_a_clients_update_and_other_containers_at_a_stop() {
    let Some(programs) = programs() else { return };
    let bed = Bed::new();
    let journal = bed.journal("last");
    let update = |id, shares| {
        format!(
            r#"{{"Update": {{"containerId": "{id}", "linux": {{"resources": {{"cpu": {{"shares": {{"value": "{shares}"}}}}}}}}}}}}"#
        )
    };
    bed.install("10-own", &programs.scribe, Some(&update("c1", 77)));
    bed.install("20-other", &programs.scribe, Some(&update("c2", 5)));
    bed.install("30-last", &programs.scribe, Some(&journal.config("")));
    let nri = bed.open().await;
    let request = proto::UpdateContainerRequest {
        pod: Some(pod(&[])),
        container: Some(container()),
        linux_resources: Some(proto::LinuxResources {
            pids: Some(proto::LinuxPids { limit: 9 }),
            ..Default::default()
        }),
    };
    let updated = nri.update_container(request).await.unwrap();
    let resources = updated.resources.unwrap();
    assert_eq!(resources.cpu.unwrap().shares.unwrap().value, 77);
    assert_eq!(resources.pids.unwrap().limit, 9);
    assert_eq!(updated.updates.len(), 1);
    journal.wait("UpdateContainer main 77");
    let request = proto::StopContainerRequest { pod: Some(pod(&[])), container: Some(container()) };
    let updates = nri.stop_container(request.clone()).await.unwrap();
    let ids: Vec<_> = updates.iter().map(|update| update.container_id.as_str()).collect();
    assert_eq!(ids, ["c1", "c2"]);
    // Its end is no news any more, until there is another of that name.
    assert!(nri.stop_container(request.clone()).await.unwrap().is_empty());
    let removal = proto::RemoveContainerRequest { pod: Some(pod(&[])), container: Some(container()) };
    nri.remove_container(removal).await.unwrap();
    assert_eq!(nri.stop_container(request).await.unwrap().len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_that_a_plugin_refuses_is_an_error_that_every_plugin_heard_of() {
    let Some(programs) = programs() else { return };
    let bed = Bed::new();
    let journal = bed.journal("second");
    bed.install("10-first", &programs.scribe, Some(r#"{"Refuse": ["RunPodSandbox"]}"#));
    bed.install("20-second", &programs.scribe, Some(&journal.config("")));
    let nri = bed.open().await;
    let error = nri.run_pod_sandbox(proto::RunPodSandboxRequest { pod: Some(pod(&[])) }).await.unwrap_err();
    assert!(error.message().contains("10-first") && error.message().contains("does not please"), "{error}");
    journal.wait("RunPodSandbox web");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_end_of_the_daemon_is_the_end_of_its_plugins() {
    let Some(programs) = programs() else { return };
    let bed = Bed::new();
    let journal = bed.journal("scribe");
    bed.install("50-scribe", &programs.scribe, Some(&journal.config("")));
    let nri = bed.open().await;
    let mode = |path: &std::path::Path| path.metadata().unwrap().permissions().mode() & 0o777;
    let socket = &bed.config.socket_path;
    assert_eq!((mode(socket), mode(socket.parent().unwrap())), (0o600, 0o700));
    let process = plugin_process(&bed);
    drop(nri);
    assert!(process.ends_within(SOON));
}

/// The process of the plugin that this bed installed.
fn plugin_process(bed: &Bed) -> Watched {
    let own = std::process::id();
    let folder = bed.config.plugin_path.display().to_string();
    testkit::wait::until("the plugin's process", SOON, || {
        std::fs::read_dir("/proc").unwrap().flatten().find_map(|entry| {
            let pid: u32 = entry.file_name().to_str()?.parse().ok()?;
            let command = std::fs::read_to_string(entry.path().join("cmdline")).ok()?;
            let status = std::fs::read_to_string(entry.path().join("status")).ok()?;
            let child = status.lines().any(|line| line == format!("PPid:\t{own}"));
            (child && command.starts_with(&folder)).then(|| Watched::open(pid)).flatten()
        })
    })
}
