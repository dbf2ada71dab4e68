//! What daemons of different ages, and daemons that come and go, get from a shim.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Command, Stdio};

use berth_proto as proto;
use berth_ttrpc::client::Client;
use prost::Message as _;
use proto::containerd::runc::v1::Options;
use proto::containerd::task::v3 as wire;
use proto::containerd::types::RuntimeInfo;
use rustix::process::Signal;
use testkit::{Leftovers, need, wait};

use crate::daemon::Daemon;
use crate::lifecycle::for_both;
use crate::pod::{Kind, PLENTY, Pod, Streams, program};

for_both!(
    old_daemons_get_the_answers_that_they_read,
    containers_of_a_group_share_a_shim,
    a_daemon_that_was_away_hears_what_happened,
    a_dead_shim_is_cleared_away,
    the_old_service_name_is_served_too,
    a_daemon_without_ttrpc_is_told_by_its_program,
);

fn connect(address: &str) -> Client {
    Client::connect(Path::new(address.strip_prefix("unix://").expect("a path"))).expect("the shim listens")
}

fn old_daemons_get_the_answers_that_they_read(kind: Kind) {
    let Some(pod) = Pod::new(kind) else { return };
    let bundle = pod.bundle("a", "true");
    let start = |version: Option<&str>| {
        let mut command = Command::new(program());
        command.args(["-namespace", pod.scratch.tag(), "-id", "a", "-address"]);
        command.arg(pod.scratch.path("d.sock")).args(["-publish-binary", "/bin/false", "start"]);
        command.current_dir(&bundle).env_remove("MAX_SHIM_VERSION").stdin(Stdio::null());
        command.envs(version.map(|version| ("MAX_SHIM_VERSION", version)));
        let output = command.output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    };
    let address = start(None);
    assert!(address.starts_with("unix:///run/containerd/s/"), "{address}");
    let path = Path::new(address.strip_prefix("unix://").unwrap());
    assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(std::fs::read_to_string(bundle.join("address")).unwrap(), address);
    // It runs already, so the second answer names the same.
    let answer: serde_json::Value = serde_json::from_str(&start(Some("2"))).unwrap();
    assert_eq!(answer, serde_json::json!({"version": 2, "address": address, "protocol": "ttrpc"}));
    let mut client = connect(&address);
    let shim: wire::ConnectResponse = client
        .call("containerd.task.v2.Task", "Connect", &wire::ConnectRequest { id: "a".into() }, PLENTY)
        .unwrap();
    let told: u32 = std::fs::read_to_string(bundle.join("shim.pid")).unwrap().parse().unwrap();
    assert_eq!(shim.shim_pid, told);
    let watched = wait::Watched::open(shim.shim_pid).unwrap();
    client
        .call::<_, ()>("containerd.task.v2.Task", "Shutdown", &wire::ShutdownRequest::default(), PLENTY)
        .unwrap();
    assert!(watched.ends_within(PLENTY));
    assert!(!path.exists());
    Leftovers::none(&pod.scratch);
}

fn containers_of_a_group_share_a_shim(kind: Kind) {
    let Some(pod) = Pod::new(kind) else { return };
    let group = |spec: &mut serde_json::Value| {
        spec["annotations"] = serde_json::json!({"io.kubernetes.cri.sandbox-id": "pod"});
    };
    let (first, second) = (pod.bundle_with("a", "sleep 1000", group), pod.bundle_with("b", "exit 2", group));
    let mut first = pod.start("a", &first);
    let mut second = pod.start("b", &second);
    assert_eq!(first.shim, second.shim);
    for task in [&mut first, &mut second] {
        task.create(&pod, &Streams::default()).unwrap();
        task.start("").unwrap();
    }
    assert_eq!(second.wait(""), 2);
    second.delete("").unwrap();
    second.call::<_, ()>("Shutdown", &wire::ShutdownRequest::default()).unwrap();
    // The other one still needs it.
    assert_eq!(first.state("").unwrap().status, 2);
    first.kill("", 9, false).unwrap();
    assert_eq!(first.wait(""), 137);
    first.finish();
    Leftovers::none(&pod.scratch);
}

fn a_daemon_that_was_away_hears_what_happened(kind: Kind) {
    let Some(mut pod) = Pod::new(kind) else { return };
    let mut task = pod.launch("a", "sleep 1000", &Streams::default());
    pod.hears("start");
    pod.daemon = None;
    task.kill("", 9, false).unwrap();
    assert_eq!(task.wait(""), 137);
    pod.daemon = Some(Daemon::listen(&pod.scratch.path("events.sock"), pod.heard.clone()));
    // A daemon that is back connects to its shims.
    task.connect();
    pod.hears("exit a");
    task.finish();
    pod.hears("delete");
    assert_eq!(pod.topics(), ["create", "start", "exit a", "delete"]);
    assert_eq!(pod.exits().len(), 1);
    Leftovers::none(&pod.scratch);
}

fn a_dead_shim_is_cleared_away(kind: Kind) {
    let Some(pod) = Pod::new(kind) else { return };
    let mut task = pod.launch("a", "sleep 1000", &Streams::default());
    let init = task.state("").unwrap().pid;
    let watched = wait::Watched::open(init).unwrap();
    wait::Watched::open(task.shim).unwrap().signal(Signal::KILL);
    let bundle = task.bundle.clone();
    let told = pod.run_shim(&["-bundle", &bundle.display().to_string(), "delete"], "a", &bundle, &[]);
    let told = wire::DeleteResponse::decode(told.as_slice()).unwrap();
    assert_eq!((told.pid, told.exit_status), (init, 137));
    assert!(watched.ends_within(PLENTY));
    Leftovers::none(&pod.scratch);
}

fn the_old_service_name_is_served_too(kind: Kind) {
    let Some(pod) = Pod::new(kind) else { return };
    let mut task = pod.launch("a", "sleep 1000", &Streams::default());
    let request = wire::StateRequest { id: "a".into(), exec_id: String::new() };
    let state: wire::StateResponse =
        task.client.call("containerd.task.v2.Task", "State", &request, PLENTY).unwrap();
    assert_eq!(state.status, 2);
    let unknown = task.client.call::<_, ()>("containerd.task.v9.Task", "State", &request, PLENTY);
    assert_eq!(crate::pod::code(unknown), berth_ttrpc::Code::Unimplemented);
    task.kill("", 9, true).unwrap();
    task.wait("");
    task.finish();
    Leftovers::none(&pod.scratch);
}

fn a_daemon_without_ttrpc_is_told_by_its_program(kind: Kind) {
    let Some(pod) = Pod::new(kind) else { return };
    let told = pod.scratch.path("told");
    let publisher = pod
        .scratch
        .file("publisher", format!("#!/bin/sh\necho \"$*\" >> {}\ncat > /dev/null\n", told.display()));
    std::fs::set_permissions(&publisher, std::fs::Permissions::from_mode(0o755)).unwrap();
    let bundle = pod.bundle("a", "exit 1");
    let mut command = Command::new(program());
    command.args(["-namespace", pod.scratch.tag(), "-id", "a", "-address"]).arg(pod.scratch.path("d.sock"));
    command.arg("-publish-binary").arg(&publisher).arg("start").current_dir(&bundle);
    let output = command.stdin(Stdio::null()).env_remove("TTRPC_ADDRESS").output().unwrap();
    let mut client = connect(std::str::from_utf8(&output.stdout).unwrap());
    let mut call = |method: &str, request: Vec<u8>| {
        client.call_raw("containerd.task.v2.Task", method, request, PLENTY).unwrap()
    };
    let options = pod.options();
    let any =
        prost_types::Any { type_url: "containerd.runc.v1.Options".into(), value: options.encode_to_vec() };
    let create = wire::CreateTaskRequest {
        id: "a".into(),
        bundle: bundle.display().to_string(),
        rootfs: vec![proto::containerd::types::Mount {
            r#type: "bind".into(),
            source: pod.scratch.path("image").display().to_string(),
            options: vec!["rbind".into()],
            ..Default::default()
        }],
        options: Some(any),
        ..Default::default()
    };
    call("Create", create.encode_to_vec());
    let addressed = wire::WaitRequest { id: "a".into(), exec_id: String::new() }.encode_to_vec();
    for method in ["Start", "Wait", "Delete", "Shutdown"] {
        call(method, addressed.clone());
    }
    let line = |topic: &str| {
        let (address, tag) = (pod.scratch.path("d.sock"), pod.scratch.tag());
        format!("--address {} publish --topic {topic} --namespace {tag}", address.display())
    };
    let topics = ["/tasks/create", "/tasks/start", "/tasks/exit", "/tasks/delete"];
    let expected: Vec<String> = topics.iter().map(|topic| line(topic)).collect();
    wait::soon("four events", || std::fs::read_to_string(&told).is_ok_and(|text| text.lines().count() == 4));
    assert_eq!(std::fs::read_to_string(&told).unwrap().lines().collect::<Vec<_>>(), expected);
    Leftovers::none(&pod.scratch);
}

#[test]
fn a_shim_serves_on_a_socket_that_it_is_given() {
    let Some(pod) = Pod::new(Kind::Native) else { return };
    let bundle = pod.bundle("a", "exit 3");
    let path = pod.scratch.path("given.sock");
    let listener = std::os::unix::net::UnixListener::bind(&path).unwrap();
    let mut command = Command::new(program());
    command.args(["-namespace", pod.scratch.tag(), "-id", "a", "-address", "/nowhere"]);
    command.env("TTRPC_ADDRESS", pod.scratch.path("events.sock")).current_dir(&bundle);
    berth_sys::spawn::with_descriptors(&mut command, [std::os::fd::AsRawFd::as_raw_fd(&listener)]);
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::null()).spawn().unwrap();
    drop(listener);
    let mut task = pod.connect("a", &bundle, &path);
    task.create(&pod, &Streams::default()).unwrap();
    task.start("").unwrap();
    assert_eq!(task.wait(""), 3);
    task.delete("").unwrap();
    task.call::<_, ()>("Shutdown", &wire::ShutdownRequest::default()).unwrap();
    assert!(child.wait().unwrap().success());
    assert!(!path.exists());
    assert_eq!(pod.topics(), ["create", "start", "exit a", "delete"]);
    Leftovers::none(&pod.scratch);
}

#[test]
fn the_runtime_describes_itself() {
    let Ok(runc) = need::program("runc") else { return };
    let options = Options { binary_name: runc.display().to_string(), ..Default::default() };
    let any =
        prost_types::Any { type_url: "containerd.runc.v1.Options".into(), value: options.encode_to_vec() };
    for (input, has_options) in [(any.encode_to_vec(), true), (Vec::new(), false)] {
        let mut child = Command::new(program())
            .arg("-info")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        std::io::Write::write_all(&mut child.stdin.take().unwrap(), &input).unwrap();
        let output = child.wait_with_output().unwrap();
        let info = RuntimeInfo::decode(output.stdout.as_slice()).unwrap();
        assert_eq!(info.name, "io.containerd.runc.v2");
        assert_eq!(info.options.is_some(), has_options);
    }
}
