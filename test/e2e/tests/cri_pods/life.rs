//! The lives of containers: how they end, what they use, and who is told.

use std::time::{Duration, Instant};

use berth_proto::runtime::v1 as proto;
use e2e::{Node, container, pod};
use proto::{ContainerEventType, ContainerState};
use testkit::{need, processes, wait};
use tonic::Code;

/// The first of these paths that is in the container of this node: cgroups differ between machines.
fn first(paths: &[&str]) -> String {
    format!("for file in {}; do [ -e $file ] && exec cat $file; done", paths.join(" "))
}

#[test]
fn ends_are_told_with_code_and_reason() {
    Node::run(|node| {
        let of = pod(node, "pod");
        let pod = node.run_pod(&of).expect("a pod can be run");
        let end = |name: &str, script: &str| {
            let id = node.started(&pod, &of, &container(name, &["sh", "-c", script])).expect("it starts");
            let status = node.ended(&id);
            assert!(status.created_at <= status.started_at && status.started_at <= status.finished_at);
            (status.exit_code, status.reason)
        };
        assert_eq!(end("good", "exit 0"), (0, "Completed".to_owned()));
        assert_eq!(end("bad", "exit 3"), (3, "Error".to_owned()));

        let id = node.create(&pod, &of, &container("none", &["/no/such/program"])).expect("it is made");
        let error = node.start_container(&id).expect_err("there is no such program");
        assert!(error.message().contains("/no/such/program"), "{error}");
        let status = node.status(&id).expect("it is there");
        assert_eq!(status.state(), ContainerState::ContainerExited);
        assert_eq!((status.exit_code, status.reason.as_str()), (128, "StartError"));
        assert!(status.message.contains("/no/such/program"), "{}", status.message);
        let again = node.start_container(&id).expect_err("it has ended");
        assert_eq!(again.code(), Code::FailedPrecondition);
        node.away(&pod);
    });
}

#[test]
fn a_container_that_wants_too_much_memory_is_killed_for_it() {
    let v1 = std::path::Path::new("/sys/fs/cgroup/memory").is_dir();
    let controllers = std::fs::read_to_string("/sys/fs/cgroup/cgroup.controllers").unwrap_or_default();
    if need::that(v1 || controllers.contains("memory"), "a cgroup that limits memory").is_err() {
        return;
    }
    Node::run(|node| {
        let of = pod(node, "pod");
        let pod = node.run_pod(&of).expect("a pod can be run");
        let mut config = container("greedy", &["sh", "-c", "exec tail /dev/zero"]);
        let linux = config.linux.as_mut().expect("it has it");
        linux.resources = Some(proto::LinuxContainerResources {
            memory_limit_in_bytes: 32 << 20,
            memory_swap_limit_in_bytes: 32 << 20,
            ..Default::default()
        });
        let id = node.started(&pod, &of, &config).expect("it starts");
        let status = node.ended(&id);
        assert_eq!((status.exit_code, status.reason.as_str()), (137, "OOMKilled"));
        node.away(&pod);
    });
}

#[test]
fn a_stop_waits_for_its_grace_and_then_kills() {
    Node::run(|node| {
        let of = pod(node, "pod");
        let pod = node.run_pod(&of).expect("a pod can be run");
        let running = |name: &str, script: &str| {
            let id = node.started(&pod, &of, &container(name, &["sh", "-c", script])).expect("it starts");
            wait::soon("its trap", || node.log("pod", name).contains("ready"));
            id
        };
        let loop_ = "echo ready; while true; do sleep 0.05; done";
        let polite = running("polite", &format!("trap 'exit 9' TERM; {loop_}"));
        node.stop_container(&polite, 100).expect("it ends");
        assert_eq!(node.status(&polite).expect("it is there").exit_code, 9);

        let deaf = running("deaf", &format!("trap '' TERM; {loop_}"));
        let began = Instant::now();
        node.stop_container(&deaf, 1).expect("it is killed");
        assert!(began.elapsed() >= Duration::from_secs(1), "it had {:?} only", began.elapsed());
        let status = node.status(&deaf).expect("it is there");
        assert_eq!((status.state(), status.exit_code), (ContainerState::ContainerExited, 137));

        // A second request that is less patient decides.
        let deaf = running("deafer", &format!("trap '' TERM; {loop_}"));
        let request = proto::StopContainerRequest { container_id: deaf.clone(), timeout: 1000 };
        let patient = node.asking(|mut client| async move { client.stop_container(request).await });
        node.stop_container(&deaf, 0).expect("it is killed");
        node.answer(patient).expect("it has ended");

        // What is not there, or does not run, is stopped.
        node.stop_container(&deaf, 0).expect("it has ended");
        node.stop_container(&"0".repeat(64), 0).expect("it is not there");
        node.remove_container(&"0".repeat(64)).expect("it is not there");
        node.stop_pod(&"0".repeat(64)).expect("it is not there");
        node.remove_pod(&"0".repeat(64)).expect("it is not there");
        node.away(&pod);
    });
}

#[test]
fn a_listener_is_told_of_everything_in_order() {
    Node::run(|node| {
        let request = proto::GetEventsRequest {};
        let events = node.ask(|mut client| async move { client.get_container_events(request).await });
        let mut events = events.expect("it can be listened");
        let of = pod(node, "pod");
        let pod = node.run_pod(&of).expect("a pod can be run");
        let id = node.started(&pod, &of, &container("c", &["true"])).expect("it starts");
        node.ended(&id);
        node.remove_container(&id).expect("it goes");
        node.away(&pod);
        let mut next = || {
            let event = node.wait("an event", events.message()).expect("the stream goes on");
            let event = event.expect("the stream goes on");
            let status = event.pod_sandbox_status.clone().unwrap_or_default();
            assert_eq!(status.id, pod);
            (event.container_id.clone(), event.container_event_type())
        };
        let mut told = Vec::new();
        while told.last() != Some(&(pod.clone(), ContainerEventType::ContainerDeletedEvent)) {
            told.push(next());
        }
        let of = |wanted: &str| {
            let own = told.iter().filter(|(id, _)| id == wanted);
            own.map(|(_, kind)| kind.as_str_name()).collect::<Vec<_>>()
        };
        let all = [
            "CONTAINER_CREATED_EVENT",
            "CONTAINER_STARTED_EVENT",
            "CONTAINER_STOPPED_EVENT",
            "CONTAINER_DELETED_EVENT",
        ];
        assert_eq!((of(&id), of(&pod)), (all.to_vec(), all.to_vec()));
    });
}

#[test]
fn limits_can_be_changed_and_are_remembered() {
    Node::run(|node| {
        let of = pod(node, "pod");
        let pod = node.run_pod(&of).expect("a pod can be run");
        let mut config = container("c", &["sleep", "1000"]);
        let linux = config.linux.as_mut().expect("it has it");
        linux.resources = Some(proto::LinuxContainerResources {
            memory_limit_in_bytes: 64 << 20,
            cpu_period: 100_000,
            cpu_quota: 50_000,
            ..Default::default()
        });
        let id = node.started(&pod, &of, &config).expect("it starts");
        let memory = first(&["/sys/fs/cgroup/memory/memory.limit_in_bytes", "/sys/fs/cgroup/memory.max"]);
        let quota = first(&["/sys/fs/cgroup/cpu/cpu.cfs_quota_us", "/sys/fs/cgroup/cpu.max"]);
        assert_eq!(node.sh(&id, &memory), format!("{}\n", 64 << 20));
        assert!(node.sh(&id, &quota).starts_with("50000"));

        let update = |id: &str, memory: i64| {
            let limits =
                proto::LinuxContainerResources { memory_limit_in_bytes: memory, ..Default::default() };
            let request = proto::UpdateContainerResourcesRequest {
                container_id: id.to_owned(),
                linux: Some(limits),
                ..Default::default()
            };
            node.ask(|mut client| async move { client.update_container_resources(request).await })
        };
        update(&id, 128 << 20).expect("limits can be changed");
        assert_eq!(node.sh(&id, &memory), format!("{}\n", 128 << 20));
        assert!(node.sh(&id, &quota).starts_with("50000"), "what was not named stays");

        let waiting = node.create(&pod, &of, &container("later", &["sleep", "1000"])).expect("it is made");
        update(&waiting, 96 << 20).expect("limits can be changed before the start");
        node.start_container(&waiting).expect("it starts");
        assert_eq!(node.sh(&waiting, &memory), format!("{}\n", 96 << 20));
        for (id, bytes) in [(&id, 128 << 20), (&waiting, 96 << 20)] {
            let status = node.status(id).expect("it is there");
            let limits = status.resources.and_then(|all| all.linux).unwrap_or_default();
            assert_eq!(limits.memory_limit_in_bytes, bytes);
        }
        node.stop_container(&id, 0).expect("it ends");
        assert_eq!(update(&id, 1 << 30).expect_err("it has ended").code(), Code::FailedPrecondition);
        node.away(&pod);
    });
}

#[test]
fn what_pods_and_containers_use_is_measured() {
    Node::run(|node| {
        let of = pod(node, "pod");
        let pod = node.run_pod(&of).expect("a pod can be run");
        let script = "head -c 3000000 /dev/zero > /tmp/file; i=0; while [ $i -lt 20000 ]; do i=$((i+1)); done; \
                      echo done; sleep 1000";
        let id = node.started(&pod, &of, &container("c", &["sh", "-c", script])).expect("it starts");
        wait::soon("its work", || node.log("pod", "c").contains("done"));
        let stats = |id: &str| {
            let request = proto::ContainerStatsRequest { container_id: id.to_owned() };
            let answer = node.ask(|mut client| async move { client.container_stats(request).await });
            answer.expect("it can be measured").stats.unwrap_or_default()
        };
        wait::soon("the size of what it wrote", || {
            let layer = stats(&id).writable_layer.unwrap_or_default();
            layer.used_bytes.is_some_and(|bytes| bytes.value >= 3_000_000)
        });
        let all = stats(&id);
        let cpu = all.cpu.unwrap_or_default().usage_core_nano_seconds.unwrap_or_default().value;
        assert!(cpu > 1_000_000, "{cpu}");
        let memory = all.memory.unwrap_or_default().working_set_bytes.unwrap_or_default().value;
        assert!((4096..1 << 30).contains(&memory), "{memory}");
        assert_eq!(all.attributes.unwrap_or_default().id, id);

        let request = proto::PodSandboxStatsRequest { pod_sandbox_id: pod.clone() };
        let answer = node.ask(|mut client| async move { client.pod_sandbox_stats(request).await });
        let linux =
            answer.expect("it can be measured").stats.and_then(|stats| stats.linux).unwrap_or_default();
        assert_eq!(linux.containers.len(), 1);
        let device = linux.network.and_then(|network| network.default_interface).unwrap_or_default();
        assert_eq!(device.name, "eth0");
        node.away(&pod);
    });
}

#[test]
fn a_command_that_takes_too_long_or_whose_caller_hangs_up_is_killed() {
    Node::run(|node| {
        let of = pod(node, "pod");
        let pod = node.run_pod(&of).expect("a pod can be run");
        let id = node.started(&pod, &of, &container("c", &["sleep", "1000"])).expect("it starts");
        let request = |seconds: &str, timeout: i64| proto::ExecSyncRequest {
            container_id: id.clone(),
            cmd: vec!["sleep".to_owned(), seconds.to_owned()],
            timeout,
        };
        let late = request("777", 1);
        let error = node.ask(|mut client| async move { client.exec_sync(late).await });
        assert_eq!(error.expect_err("it takes too long").code(), Code::DeadlineExceeded);
        let is_there = |seconds: &str| {
            let all = processes::tagged(node.daemon.tag());
            all.iter().any(|process| process.command.trim() == format!("sleep {seconds}"))
        };
        wait::soon("the end of the late command", || !is_there("777"));

        let endless = request("888", 0);
        let asked = node.asking(|mut client| async move { client.exec_sync(endless).await });
        wait::soon("the command", || is_there("888"));
        asked.hang_up();
        wait::soon("the end of the command that nobody waits for", || !is_there("888"));

        let failed = node.exec(&id, &["sh", "-c", "echo out; echo err >&2; exit 4"]).expect("it is run");
        assert_eq!((failed.stdout, failed.stderr, failed.exit_code), (b"out\n".into(), b"err\n".into(), 4));
        let none = node.exec(&id, &["/no/such/program"]).expect_err("there is no such program");
        assert!(none.message().contains("/no/such/program"), "{none}");
        node.stop_container(&id, 0).expect("it ends");
        let ended = node.exec(&id, &["true"]).expect_err("it has ended");
        assert_eq!(ended.code(), Code::FailedPrecondition);
        node.away(&pod);
    });
}
