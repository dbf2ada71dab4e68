//! Pods of somebody else's shim, which knows fifos alone: here that of containerd.

use berth_proto::runtime::v1 as proto;
use e2e::{Node, container, crictl, pod};
use testkit::{need, programs, wait};

/// Every pod is the Go shim's.
fn run(test: impl FnOnce(&mut Node) + Send) {
    if need::program("runc").and(need::program("crictl")).is_err() {
        return;
    }
    let shim = programs::containerd("containerd-shim-runc-v2");
    if need::that(shim.is_some(), "containerd's shim (cargo xtask peers)").is_err() {
        return;
    }
    let more = format!(
        "[plugins.'io.containerd.grpc.v1.cri'.containerd]\ndefault_runtime_name = 'go'\n\
         [plugins.'io.containerd.grpc.v1.cri'.containerd.runtimes.go]\nruntime_type = 'io.containerd.runc.v2'\n\
         runtime_path = '{}'\n",
        shim.unwrap_or_default().display()
    );
    Node::run_with(&more, test);
}

#[test]
fn the_log_goes_on_when_it_is_renamed_and_when_the_daemon_is_killed() {
    run(|node| {
        let of = pod(node, "pod");
        let pod = node.run_pod(&of).expect("a pod can be run");
        let script = "n=0; while [ $n -lt 3000 ]; do echo $n; n=$((n+1)); done; echo bad >&2; printf end";
        let id = node.create(&pod, &of, &container("c", &["sh", "-c", script])).expect("it is made");
        node.start_container(&id).expect("it starts");
        let log = node.path("logs/pod/c.log");
        wait::soon("a log", || log.exists());
        node.daemon.kill();
        let old = node.path("logs/pod/c.log.old");
        std::fs::rename(&log, &old).expect("a log can be renamed");
        node.daemon.restart();
        let request = proto::ReopenContainerLogRequest { container_id: id.clone() };
        // It may have ended by now, and its log with it.
        let _ = node.ask(|mut client| async move { client.reopen_container_log(request).await });
        node.ended(&id);
        let whole = || [&old, &log].map(|path| std::fs::read_to_string(path).unwrap_or_default()).concat();
        // Two pipes: either can be read last.
        let last = [" stdout P end\n", " stderr F bad\n"];
        wait::soon("the last words", || last.iter().all(|words| whole().contains(words)));
        let whole = whole();
        let numbers = whole.lines().filter_map(|line| line.split_once(" stdout F ")).map(|(_, text)| text);
        assert!(
            numbers.map(|text| text.parse::<usize>().expect("a number")).eq(0..3000),
            "a line is missing, doubled or out of order"
        );
        node.away(&pod);
    });
}

#[test]
fn who_attaches_is_heard_and_hears_and_the_input_ends_with_them() {
    run(|node| {
        let of = pod(node, "pod");
        let pod = node.run_pod(&of).expect("a pod can be run");
        let words = ["sh", "-c", "while read line; do echo heard $line; done; echo over"];
        let config = proto::ContainerConfig { stdin: true, stdin_once: true, ..container("c", &words) };
        let id = node.started(&pod, &of, &config).expect("it starts");
        let shown = crictl(&node.daemon, &format!("attach -i {id}")).input("one\ntwo\n").ok();
        assert_eq!(shown, "heard one\nheard two\nover\n");
        assert_eq!(node.ended(&id).exit_code, 0);
        assert!(node.log("pod", "c").ends_with(" stdout F over\n"));
        node.away(&pod);
    });
}

#[test]
fn a_container_that_cannot_start_leaves_nobody_beside_it() {
    run(|node| {
        let of = pod(node, "pod");
        let pod = node.run_pod(&of).expect("a pod can be run");
        let id = node.create(&pod, &of, &container("c", &["/missing"])).expect("it is made");
        let error = node.start_container(&id).expect_err("there is no such program");
        assert!(error.message().contains("/missing"), "{error}");
        node.away(&pod);
    });
}
