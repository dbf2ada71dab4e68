//! Pods that are hosted by a shim which serves the sandbox API, here a stand-in around containerd's shim for runc; and the
//! sandbox API's own clients.

use std::fs;
use std::path::PathBuf;

use berth_proto::runtime::v1 as proto;
use e2e::{Node, container, crictl, pod, run_pod};
use proto::{ContainerState, PodSandboxState};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use testkit::{need, processes, programs, wait};

/// Whether the stand-in can do its work; says what is missing.
fn is_possible() -> bool {
    let is_there = programs::containerd("containerd-shim-runc-v2").is_some();
    need::that(is_there, "containerd's shim (cargo xtask peers)").is_ok()
        && need::program("crictl").is_ok()
        && need::program("runc").is_ok()
}

/// The stand-in in the node's folder, under the name that says how it is to behave.
fn shim(node: &Node, how: &str) -> PathBuf {
    let named = node.path(&format!("sandbox-shim{how}"));
    std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_sandbox-shim"), &named).expect("the folder takes a link");
    named
}

/// Every pod is hosted by the stand-in.
fn run(how: &str, test: impl FnOnce(&mut Node) + Send) {
    if !is_possible() {
        return;
    }
    let more = format!(
        "[plugins.'io.containerd.grpc.v1.cri'.containerd]\ndefault_runtime_name = 'machine'\n\
         [plugins.'io.containerd.grpc.v1.cri'.containerd.runtimes.machine]\n\
         runtime_type = 'SCRATCH/sandbox-shim{how}'\nsandboxer = 'shim'\n"
    );
    Node::run_with(&more, |node| {
        shim(node, how);
        test(node);
    });
}

/// The processes of hosts: the stand-ins, and the shims in them.
fn hosts(node: &Node, program: &str) -> Vec<u32> {
    let tagged = processes::tagged(node.daemon.tag()).into_iter();
    let hosts = tagged
        .filter(|process| process.command.split(' ').next().is_some_and(|word| word.ends_with(program)));
    hosts.map(|process| process.pid).collect()
}

fn send(pid: u32, signal: Signal) {
    let pid = Pid::from_raw(i32::try_from(pid).expect("pids are small")).expect("it is no group");
    kill_process(pid, signal).expect("it runs");
}

const PATIENT: &[&str] = &["sh", "-c", "echo hello; trap 'exit 0' TERM; while true; do sleep 0.1; done"];

#[test]
fn a_shim_hosts_a_pod_and_makes_its_containers() {
    run("", |node| {
        let of = pod(node, "pod");
        let id = node.run_pod(&of).expect("a pod can be run");
        let one = node.started(&id, &of, &container("one", PATIENT)).expect("it starts");
        let two = node.started(&id, &of, &container("two", PATIENT)).expect("it starts");
        assert_eq!((hosts(node, "sandbox-shim").len(), hosts(node, "containerd-shim-runc-v2").len()), (1, 1));
        assert_eq!(node.sh(&one, "echo in; hostname"), "in\npod\n");
        wait::soon("a log", || node.log("pod", "two").contains(" stdout F hello\n"));
        let told: Value =
            serde_json::from_str(&crictl(&node.daemon, &format!("inspectp {id}")).ok()).expect("JSON");
        let program = node.path("sandbox-shim").display().to_string();
        assert_eq!(told["info"]["runtimeType"], Value::from(program));
        let host: Value = match &told["host"] {
            Value::String(text) => serde_json::from_str(text).expect("JSON"),
            told => told.clone(),
        };
        assert_eq!(host["options"], "runtime.v1.PodSandboxConfig", "{told}");
        assert!(host["network"].as_str().is_some_and(|path| path.contains("/netns/cni-")), "{told}");
        assert!(node.ctr("sandboxes ls").ok().contains(&id));

        // Its containers go on without the daemon, and one after the other ends without its host.
        node.daemon.kill();
        node.daemon.restart();
        assert_eq!(node.pod_status(&id).expect("it is there").state(), PodSandboxState::SandboxReady);
        assert_eq!(node.sh(&one, "echo again"), "again\n");
        node.stop_container(&one, 10).expect("it ends");
        node.remove_container(&one).expect("it goes");
        assert_eq!(node.status(&two).expect("it is there").state(), ContainerState::ContainerRunning);
        let three = node.started(&id, &of, &container("three", PATIENT)).expect("it starts");
        assert_eq!(node.sh(&three, "echo in"), "in\n");
        node.away(&id);
    });
}

#[test]
fn a_host_that_crashes_takes_its_pod_with_it_and_leaves_nothing() {
    run("", |node| {
        let of = pod(node, "pod");
        let id = node.run_pod(&of).expect("a pod can be run");
        let one = node.started(&id, &of, &container("one", PATIENT)).expect("it starts");
        for host in hosts(node, "sandbox-shim") {
            send(host, Signal::KILL);
        }
        wait::soon("a pod that is not ready", || {
            node.pod_status(&id).is_ok_and(|status| status.state() == PodSandboxState::SandboxNotready)
        });
        assert_ne!(node.ended(&one).exit_code, 0);
        node.away(&id);
        node.demand_bare();
        // The same while nobody looks.
        let id = node.run_pod(&of).expect("a pod can be run");
        node.started(&id, &of, &container("one", PATIENT)).expect("it starts");
        node.daemon.kill();
        for host in hosts(node, "sandbox-shim") {
            send(host, Signal::KILL);
        }
        node.daemon.restart();
        assert_eq!(node.pod_status(&id).expect("it is there").state(), PodSandboxState::SandboxNotready);
        node.away(&id);
    });
}

#[test]
fn a_host_that_does_not_answer_is_left_alone_until_it_does() {
    run("", |node| {
        let of = pod(node, "pod");
        let id = node.run_pod(&of).expect("a pod can be run");
        let host = hosts(node, "sandbox-shim")[0];
        node.daemon.kill();
        send(host, Signal::STOP);
        node.daemon.restart();
        assert_eq!(node.pod_status(&id).expect("it is there").state(), PodSandboxState::SandboxReady);
        send(host, Signal::CONT);
        let mut config = container("one", PATIENT);
        let mut attempt = 0;
        let one = wait::until("a container in it", wait::SOON, || {
            config.metadata.as_mut().expect("it has it").attempt = attempt;
            attempt += 1;
            node.started(&id, &of, &config).ok()
        });
        assert_eq!(node.sh(&one, "echo in"), "in\n");
        // The daemon asks it again in its own time.
        wait::soon("an end", || node.stop_pod(&id).is_ok());
        node.remove_pod(&id).expect("a pod can be removed");
    });
}

#[test]
fn a_host_that_cannot_make_its_pod_is_taken_down_and_its_words_are_told() {
    for (how, words) in [("-refuse-start", "no machine to boot"), ("-crash-create", "closed the connection")]
    {
        run(how, |node| {
            let error = node.run_pod(&pod(node, "pod")).expect_err("it cannot be made");
            assert!(error.message().contains(words), "{error}");
            assert!(node.pods().is_empty());
        });
    }
}

#[test]
fn what_a_host_was_making_when_the_daemon_was_killed_is_taken_down() {
    run("-hang-create", |node| {
        let request = run_pod(&pod(node, "pod"));
        let asked = node.asking(|mut client| async move { client.run_pod_sandbox(request).await });
        // One that has been started and has not said where it listens is nobody's yet.
        let bundles = node.daemon.state().join("io.containerd.sandbox.controller.v1.shim/k8s.io");
        wait::soon("a host that says where it listens", || {
            let mut found = fs::read_dir(&bundles).into_iter().flatten().flatten();
            found.any(|bundle| bundle.path().join("bootstrap.json").exists())
        });
        node.daemon.kill();
        asked.hang_up();
        node.daemon.restart();
        wait::soon("nothing of it", || hosts(node, "sandbox-shim-hang-create").is_empty());
        assert!(node.pods().is_empty());
    });
}

#[test]
fn clients_of_the_sandbox_api_run_sandboxes_and_containers_in_them() {
    if !is_possible() {
        return;
    }
    Node::run(|node| {
        let shim = shim(node, "");
        let config = node.daemon.scratch().file("pod.json", r#"{"ociVersion":"1.0.2"}"#);
        let run = format!("sandboxes run --runtime {} {} box", shim.display(), config.display());
        assert_eq!(node.ctr(&run).ok().trim(), "box");
        assert!(node.ctr("sandboxes ls").ok().contains("box"));
        assert!(node.ctr("sandboxes info box").ok().contains("\"ID\": \"box\""));
        let again = node.ctr(&run).outcome();
        assert!(again.to_string().contains("already exists"), "{again}");
        let line = format!(
            "run -d --null-io --sandbox box --runtime {} berth.test/busybox:1 one sleep 1000",
            shim.display()
        );
        node.ctr(&line).ok();
        assert_eq!((hosts(node, "sandbox-shim").len(), hosts(node, "containerd-shim-runc-v2").len()), (1, 1));
        assert_eq!(node.ctr("tasks exec --exec-id e one echo in").ok(), "in\n");
        node.ctr("tasks kill --signal SIGKILL one").ok();
        wait::soon("its end", || node.ctr("tasks ls").ok().contains("STOPPED"));
        node.ctr("tasks rm one").ok();
        node.ctr("containers rm one").ok();
        assert_eq!(hosts(node, "sandbox-shim").len(), 1, "the host outlives its containers");
        node.ctr("sandboxes rm box").ok();
        assert!(hosts(node, "sandbox-shim").is_empty() && !node.ctr("sandboxes ls").ok().contains("box"));

        // Pods of Kubernetes are seen and ended in the same way.
        let of = pod(node, "pod");
        let id = node.run_pod(&of).expect("a pod can be run");
        assert!(node.ctr("sandboxes ls").ok().contains(&id));
        node.ctr(&format!("sandboxes rm {id}")).ok();
        assert!(node.pods().is_empty());
        // A shim that hosts no sandboxes says so, and is not left.
        let other = format!("sandboxes run {} other", config.display());
        let refused = node.ctr(&other).outcome();
        assert_ne!(refused.code(), 0, "{refused}");
        wait::soon("no shim", || {
            !processes::tagged(node.daemon.tag()).iter().any(|one| one.command.contains("berth-shim"))
        });
        node.ctr("sandboxes rm other").outcome();
    });
}
