//! The daemon is killed while it does what a kubelet asked for; the kubelet asks again.

use std::time::{Duration, Instant};

use berth_proto::runtime::v1 as proto;
use e2e::{Answer, Asked, Node, container, create, pod, run_pod};
use proto::{ContainerState, NamespaceMode, PodSandboxState};
use testkit::wait;
use tonic::Code;

/// How often each request is killed, each time a bit later in its course.
const ROUNDS: u32 = 30;
/// A container that says something, ends on SIGTERM with 7, and else goes on.
const PATIENT: &str = "trap 'exit 7' TERM; echo hello; while true; do sleep 0.05; done";

/// Kills the daemon after a part of the time that the request takes, which `timed` was seen to take, and starts it.
fn kill_within<T>(node: &mut Node, round: u32, timed: Duration, mut asked: Asked<T>) {
    let _ = asked.within(node, timed * round / ROUNDS);
    node.daemon.kill();
    node.daemon.restart();
}

/// How long a request takes that nothing disturbs.
fn time<T>(node: &Node, asked: Asked<T>) -> (Duration, Answer<T>) {
    let began = Instant::now();
    let answer = node.answer(asked);
    (began.elapsed(), answer)
}

/// A pod whose containers share their processes in every second round, so that it has a first process.
fn pod_of(node: &Node, round: u32) -> proto::PodSandboxConfig {
    let mut config = pod(node, &format!("pod{round}"));
    if round % 2 == 1 {
        let security = config.linux.as_mut().and_then(|linux| linux.security_context.as_mut());
        let options = security.and_then(|security| security.namespace_options.as_mut());
        options.expect("it has them").pid = NamespaceMode::Pod.into();
    }
    config
}

fn asking_for_pod(node: &Node, config: &proto::PodSandboxConfig) -> Asked<proto::RunPodSandboxResponse> {
    let request = run_pod(config);
    node.asking(|mut client| async move { client.run_pod_sandbox(request).await })
}

#[test]
fn a_pod_whose_run_was_killed_is_there_once_it_is_asked_for_again() {
    Node::run(|node| {
        let config = pod(node, "timed");
        let (timed, first) = time(node, asking_for_pod(node, &config));
        node.away(&first.expect("a pod can be run").pod_sandbox_id);
        for round in 0..ROUNDS {
            let config = pod_of(node, round);
            let asked = asking_for_pod(node, &config);
            kill_within(node, round, timed, asked);
            let id = node.run_pod(&config).unwrap_or_else(|error| panic!("round {round}: {error}"));
            let status = node.pod_status(&id).expect("it is there");
            assert_eq!(status.state(), PodSandboxState::SandboxReady, "round {round}");
            assert!(status.network.is_some_and(|network| network.ip.starts_with("10.88.")), "round {round}");
            assert_eq!(node.pods().len(), 1, "round {round}");
            let own = container("own", &["true"]);
            let own =
                node.started(&id, &config, &own).unwrap_or_else(|error| panic!("round {round}: {error}"));
            assert_eq!(node.ended(&own).exit_code, 0, "round {round}");
            node.away(&id);
        }
    });
}

#[test]
fn a_container_whose_creation_was_killed_is_there_once_it_is_asked_for_again() {
    Node::run(|node| {
        let of = pod(node, "pod");
        let pod = node.run_pod(&of).expect("a pod can be run");
        let asking = |node: &Node, name: &str| {
            let request = create(&pod, &of, &container(name, &["true"]));
            node.asking(|mut client| async move { client.create_container(request).await })
        };
        let (timed, first) = time(node, asking(node, "timed"));
        node.remove_container(&first.expect("a container can be created").container_id).expect("it goes");
        for round in 0..ROUNDS {
            let name = format!("c{round}");
            let asked = asking(node, &name);
            kill_within(node, round, timed, asked);
            let config = container(&name, &["true"]);
            let id =
                node.started(&pod, &of, &config).unwrap_or_else(|error| panic!("round {round}: {error}"));
            assert_eq!(node.ended(&id).exit_code, 0, "round {round}");
            assert_eq!(node.containers().len(), 1, "round {round}");
            node.remove_container(&id).expect("it goes");
        }
        node.away(&pod);
    });
}

#[test]
fn a_container_whose_start_was_killed_runs_once_it_is_asked_for_again() {
    Node::run(|node| {
        let of = pod(node, "pod");
        let pod = node.run_pod(&of).expect("a pod can be run");
        let created = |node: &Node, name: &str| {
            node.create(&pod, &of, &container(name, &["sh", "-c", PATIENT])).expect("it can be created")
        };
        let asking = |node: &Node, id: &str| {
            let request = proto::StartContainerRequest { container_id: id.to_owned() };
            node.asking(|mut client| async move { client.start_container(request).await })
        };
        let first = created(node, "timed");
        let (timed, started) = time(node, asking(node, &first));
        started.expect("a container can be started");
        node.remove_container(&first).expect("it goes");
        for round in 0..ROUNDS {
            let name = format!("c{round}");
            let id = created(node, &name);
            let asked = asking(node, &id);
            kill_within(node, round, timed, asked);
            match node.start_container(&id) {
                // The first request had done it, and was killed before it could say so.
                Err(error) if error.code() == Code::FailedPrecondition => {
                    assert!(error.message().contains("running"), "round {round}: {error}");
                }
                started => started.unwrap_or_else(|error| panic!("round {round}: {error}")),
            }
            let status = node.status(&id).expect("it is there");
            assert_eq!(status.state(), ContainerState::ContainerRunning, "round {round}");
            assert_eq!(node.sh(&id, "echo in"), "in\n", "round {round}");
            wait::soon("its log", || node.log("pod", &name).contains(" stdout F hello\n"));
            assert_eq!(node.log("pod", &name).matches("hello").count(), 1, "it was started once");
            node.remove_container(&id).expect("it goes");
        }
        node.away(&pod);
    });
}

#[test]
fn a_container_whose_stop_was_killed_ends_once_it_is_asked_for_again() {
    Node::run(|node| {
        let of = pod(node, "pod");
        let pod = node.run_pod(&of).expect("a pod can be run");
        let running = |node: &Node, name: &str| {
            let config = container(name, &["sh", "-c", PATIENT]);
            let id = node.started(&pod, &of, &config).expect("it can be started");
            wait::soon("its trap", || node.log("pod", name).contains("hello"));
            id
        };
        let asking = |node: &Node, id: &str| {
            let request = proto::StopContainerRequest { container_id: id.to_owned(), timeout: 100 };
            node.asking(|mut client| async move { client.stop_container(request).await })
        };
        let first = running(node, "timed");
        let (timed, stopped) = time(node, asking(node, &first));
        stopped.expect("a container can be stopped");
        node.remove_container(&first).expect("it goes");
        for round in 0..ROUNDS {
            let id = running(node, &format!("c{round}"));
            let asked = asking(node, &id);
            kill_within(node, round, timed, asked);
            node.stop_container(&id, 100).unwrap_or_else(|error| panic!("round {round}: {error}"));
            let status = node.status(&id).expect("it is there");
            assert_eq!(status.state(), ContainerState::ContainerExited, "round {round}");
            assert_eq!((status.exit_code, status.reason.as_str()), (7, "Error"), "round {round}");
            assert!(status.finished_at >= status.started_at && status.started_at > 0, "round {round}");
            node.remove_container(&id).expect("it goes");
        }
        node.away(&pod);
    });
}

#[test]
fn a_pod_whose_removal_was_killed_is_gone_once_it_is_asked_for_again() {
    Node::run(|node| {
        let running = |node: &Node, round: u32| {
            let config = pod_of(node, round);
            let id = node.run_pod(&config).expect("a pod can be run");
            let config = (config, container("c", &["sleep", "1000"]));
            node.started(&id, &config.0, &config.1).expect("a container can be started");
            id
        };
        let asking = |node: &Node, id: &str| {
            let request = proto::RemovePodSandboxRequest { pod_sandbox_id: id.to_owned() };
            node.asking(|mut client| async move { client.remove_pod_sandbox(request).await })
        };
        let first = running(node, ROUNDS);
        let (timed, removed) = time(node, asking(node, &first));
        removed.expect("a pod can be removed");
        for round in 0..ROUNDS {
            let id = running(node, round);
            let asked = asking(node, &id);
            kill_within(node, round, timed, asked);
            node.remove_pod(&id).unwrap_or_else(|error| panic!("round {round}: {error}"));
            assert_eq!((node.pods().len(), node.containers().len()), (0, 0), "round {round}");
        }
    });
}

#[test]
fn a_pod_whose_stop_was_killed_is_stopped_once_it_is_asked_for_again() {
    Node::run(|node| {
        let running = |node: &Node, round: u32| {
            let config = pod_of(node, round);
            let id = node.run_pod(&config).expect("a pod can be run");
            let own = container("c", &["sleep", "1000"]);
            (id.clone(), node.started(&id, &config, &own).expect("a container can be started"))
        };
        let asking = |node: &Node, id: &str| {
            let request = proto::StopPodSandboxRequest { pod_sandbox_id: id.to_owned() };
            node.asking(|mut client| async move { client.stop_pod_sandbox(request).await })
        };
        let (first, _) = running(node, ROUNDS);
        let (timed, stopped) = time(node, asking(node, &first));
        stopped.expect("a pod can be stopped");
        node.remove_pod(&first).expect("it goes");
        for round in 0..ROUNDS {
            let (id, own) = running(node, round);
            let asked = asking(node, &id);
            kill_within(node, round, timed, asked);
            node.stop_pod(&id).unwrap_or_else(|error| panic!("round {round}: {error}"));
            let status = node.pod_status(&id).expect("it is there");
            assert_eq!(status.state(), PodSandboxState::SandboxNotready, "round {round}");
            let ended = node.status(&own).expect("it is there");
            assert_eq!(ended.state(), ContainerState::ContainerExited, "round {round}");
            assert_eq!(ended.exit_code, 137, "round {round}");
            node.remove_pod(&id).expect("it goes");
        }
    });
}

#[test]
fn containers_go_on_while_the_daemon_is_away_and_those_that_end_are_known() {
    Node::run(|node| {
        let of = pod(node, "pod");
        let pod = node.run_pod(&of).expect("a pod can be run");
        let go = node.path("logs/go");
        std::fs::write(&go, "").expect("the scratch folder takes a file");
        let mut short =
            container("short", &["sh", "-c", "while [ -e /host/go ]; do sleep 0.02; done; exit 5"]);
        short.mounts.push(proto::Mount {
            container_path: "/host".to_owned(),
            host_path: node.path("logs").display().to_string(),
            ..Default::default()
        });
        let short = node.started(&pod, &of, &short).expect("it can be started");
        let script = "n=0; while true; do echo line $n; n=$((n+1)); sleep 0.02; done";
        let long = node.started(&pod, &of, &container("long", &["sh", "-c", script])).expect("it starts");
        let before = node.status(&long).expect("it is there");
        let short_process = process_of(node, &short);

        node.daemon.kill();
        let lines = node.log("pod", "long").lines().count();
        std::fs::remove_file(&go).expect("it is there");
        wait::soon("more lines, and the end of the short one", || {
            node.log("pod", "long").lines().count() > lines + 10 && !short_process.exists()
        });
        node.daemon.restart();

        let ended = node.status(&short).expect("it is there");
        assert_eq!(ended.state(), ContainerState::ContainerExited);
        assert_eq!((ended.exit_code, ended.reason.as_str()), (5, "Error"));
        assert!(ended.finished_at > ended.started_at);
        let after = node.status(&long).expect("it is there");
        assert_eq!(after, before);
        assert_eq!(node.sh(&long, "echo in"), "in\n");
        let lines = node.log("pod", "long").lines().count();
        wait::soon("more lines", || node.log("pod", "long").lines().count() > lines + 10);
        let log = node.log("pod", "long");
        for (number, line) in log.lines().enumerate() {
            assert!(line.ends_with(&format!(" stdout F line {number}")), "{number}: {line}");
        }
        let status = node.pod_status(&pod).expect("it is there");
        assert_eq!(status.state(), PodSandboxState::SandboxReady);
        node.away(&pod);
    });
}

/// The folder of a running container's first process in proc(5).
fn process_of(node: &Node, id: &str) -> std::path::PathBuf {
    let request = proto::ContainerStatusRequest { container_id: id.to_owned(), verbose: true };
    let answer = node.ask(|mut client| async move { client.container_status(request).await });
    let info = answer.expect("it is there").info.remove("info").expect("it was asked for");
    let info: serde_json::Value = serde_json::from_str(&info).expect("it is JSON");
    format!("/proc/{}", info["pid"]).into()
}

#[test]
fn a_request_that_is_under_way_is_joined() {
    Node::run(|node| {
        let hang = "#!/bin/sh\necho x >> \"$0.calls\"\n[ -e \"$0.wait\" ] && cat \"$0.wait\" > /dev/null\nexec \"$0.real\"\n";
        let plugins = node.path("plugins");
        std::fs::rename(plugins.join("host-local"), plugins.join("host-local.real")).expect("it is there");
        node.plugin("host-local", hang);
        let gate = plugins.join("host-local.wait");
        rustix::fs::mkfifoat(rustix::fs::CWD, &gate, rustix::fs::Mode::RWXU).expect("a fifo can be made");

        let config = pod(node, "pod");
        let first = asking_for_pod(node, &config);
        wait::soon("the plugin's call", || plugins.join("host-local.calls").exists());
        let gone = asking_for_pod(node, &config);
        let second = asking_for_pod(node, &config);
        gone.hang_up();
        first.hang_up();
        let mut other = config.clone();
        other.hostname = "another".to_owned();
        assert!(!second.is_answered());
        drop(std::fs::OpenOptions::new().write(true).open(&gate).expect("somebody reads it"));
        let id = node.answer(second).expect("a pod can be run").pod_sandbox_id;
        std::fs::remove_file(&gate).expect("it is there");
        assert_eq!(node.run_pod(&config).expect("it is there already"), id);
        assert_eq!(node.pods().len(), 1);
        let calls = std::fs::read_to_string(plugins.join("host-local.calls")).expect("it was called");
        assert_eq!(calls.lines().count(), 1, "one pod has one address");

        // Another pod of that name is another matter.
        let refused = node.run_pod(&other).expect_err("the name is taken");
        assert_eq!(refused.code(), Code::AlreadyExists);
        assert!(refused.message().contains(&id) && !refused.message().contains("reserved"), "{refused}");
        node.away(&id);
    });
}
