//! Pods of somebody else's shim, which knows fifos alone: here that of containerd.

use std::path::Path;

use berth_proto::runtime::v1 as proto;
use e2e::{Node, container, crictl, give_own_users, pod, run_pod};
use testkit::{need, programs, wait};

/// Every pod is the Go shim's.
fn run(test: impl FnOnce(&mut Node) + Send) {
    if let Some(classes) = classes() {
        Node::run_with(&classes, test);
    }
}

/// Runtime classes of that shim: `go` with runc, the default one, and `berth` with berth's own low-level runtime.
fn classes() -> Option<String> {
    need::program("runc").and(need::program("crictl")).ok()?;
    let shim = programs::containerd("containerd-shim-runc-v2");
    need::that(shim.is_some(), "containerd's shim (cargo xtask peers)").ok()?;
    let class = |name: &str| {
        format!(
            "[plugins.'io.containerd.grpc.v1.cri'.containerd.runtimes.{name}]\n\
             runtime_type = 'io.containerd.runc.v2'\nruntime_path = '{}'\n",
            shim.as_deref().unwrap_or(Path::new("")).display()
        )
    };
    let (go, berth) = (class("go"), class("berth"));
    Some(format!(
        "[plugins.'io.containerd.grpc.v1.cri'.containerd]\ndefault_runtime_name = 'go'\n{go}{berth}\
         [plugins.'io.containerd.grpc.v1.cri'.containerd.runtimes.berth.options]\n\
         BinaryName = 'SCRATCH/runc'\n"
    ))
}

/// What a node says that its runtime classes can do.
fn abilities(node: &Node) -> Vec<proto::RuntimeHandler> {
    let request = proto::StatusRequest { verbose: false };
    let answer = node.ask(|mut client| async move { client.status(request).await });
    let mut handlers = answer.expect("a node has a status").runtime_handlers;
    handlers.retain(|handler| handler.name != "runc");
    handlers.sort_by(|a, b| a.name.cmp(&b.name));
    handlers
}

/// Puts berth where the class of that name looks for its runtime.
fn place_berth(node: &Node) {
    let berth = programs::own("berth").expect("it is beside the daemon");
    std::os::unix::fs::symlink(berth, node.path("runc")).expect("the scratch folder takes links");
}

#[test]
fn a_class_can_do_what_its_runtime_says_and_pods_have_users_of_their_own_where_it_can() {
    let Some(classes) = classes() else { return };
    if need::that(programs::own("berth").is_some(), "berth").is_err() {
        return;
    }
    let mut oracle = Vec::new();
    Node::oracle_with(&classes, |node| {
        place_berth(node);
        node.daemon.stop();
        node.daemon.restart();
        oracle = abilities(node);
    });
    Node::run_with(&classes, |node| {
        place_berth(node);
        assert_eq!(abilities(node), oracle);
        let names = oracle.iter().map(|handler| handler.name.as_str()).collect::<Vec<_>>();
        assert_eq!(names, ["", "berth", "go"]);
        let mut of = pod(node, "pod");
        let mut config = container("c", &["sleep", "1000"]);
        give_own_users(&mut of, &mut config);
        if !oracle[2].features.is_some_and(|features| features.user_namespaces) {
            let error = node.run_pod(&of).expect_err("this runc is too old");
            assert!(error.message().contains("handler \"go\""), "{error}");
        }
        let request = proto::RunPodSandboxRequest { runtime_handler: "berth".to_owned(), ..run_pod(&of) };
        let id = node.ask(|mut client| async move { client.run_pod_sandbox(request).await });
        let id = id.expect("a pod can be run").pod_sandbox_id;
        let one = node.started(&id, &of, &config).expect("it starts");
        let words = node.sh(&one, "id -u; touch /file && stat -c %u /file; cat /proc/self/uid_map");
        assert_eq!(words.split_whitespace().collect::<Vec<_>>(), ["0", "0", "0", "1000000", "65536"]);
        node.away(&id);
    });
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
