//! `berth pods`: what people see of pods.

use e2e::{Node, container, pod, run_pod};
use testkit::{Invocation, need, programs, wait};

/// `berth pods` at a node's daemon.
fn berth(node: &Node, line: &str) -> Invocation {
    let program = programs::own("berth").expect("it was looked for");
    Invocation::new(program).arg("--address").arg(node.daemon.address()).arg("pods").line(line)
}

fn run(test: impl FnOnce(&mut Node) + Send) {
    if need::that(programs::own("berth").is_some(), "berth (cargo build)").is_ok() {
        Node::run(test);
    }
}

#[test]
fn a_pod_that_hangs_is_explained_by_the_step_that_hangs() {
    run(|node| {
        // It waits for a file, as a plugin does for a peer that does not answer.
        let gate = node.path("gate");
        let real = std::fs::read_link(node.path("plugins/bridge")).expect("it is a link");
        let script = format!(
            "#!/bin/sh\nwhile [ ! -e {} ]; do sleep 0.1; done\nexec {} \"$@\"\n",
            gate.display(),
            real.display()
        );
        node.plugin("bridge", &script);
        let config = pod(node, "slow");
        let request = run_pod(&config);
        let asked = node.asking(|mut client| async move { client.run_pod_sandbox(request).await });
        wait::soon("a pod that is being made", || berth(node, "ps").ok().contains("Making"));
        wait::soon("the step that hangs", || berth(node, "explain default/slow").ok().contains("CNI ADD"));
        let told = berth(node, "explain slow").ok();
        let mut lines = told.lines();
        let title = lines.next().unwrap_or_default();
        assert!(title.starts_with("Pod default/slow (") && title.ends_with("is being made."), "{told}");
        let verdict = lines.next().unwrap_or_default();
        assert!(verdict.starts_with("RunPodSandbox has been going on for "), "{told}");
        assert!(verdict.ends_with("with: networks (CNI ADD pods: bridge)."), "{told}");
        std::fs::write(&gate, "").expect("the scratch folder takes a file");
        let id = node.answer(asked).expect("the pod can be run").pod_sandbox_id;
        assert_eq!(berth(node, "ps -q --no-trunc").ok().trim(), id);

        node.started(&id, &config, &container("web", &["sleep", "1000"])).expect("it starts");
        let told = berth(node, &format!("explain {}", &id[..8])).ok();
        for words in
            ["is ready", "Nothing is under way, and nothing failed last.", "StartContainer web", "running"]
        {
            assert!(told.contains(words), "{words:?} is not in {told}");
        }
        let address = berth(node, "inspect -f {{.status.network.ip}} slow").ok();
        assert!(address.starts_with("10.88."), "{address}");
        node.away(&id);
    });
}

#[test]
fn what_failed_is_told_when_the_pod_is_gone() {
    run(|node| {
        let script = "#!/bin/sh\n[ $CNI_COMMAND = ADD ] || exit 0\n\
                      echo '{\"code\":7,\"msg\":\"no address is left\"}'; exit 1\n";
        node.plugin("bridge", script);
        node.run_pod(&pod(node, "unlucky")).expect_err("the network is broken");
        let told = berth(node, "explain unlucky").ok();
        assert!(told.contains("its last try failed") && told.contains("no address is left"), "{told}");
        let error = berth(node, "explain other").fails();
        assert!(error.contains("no such pod: other") && error.contains("berth pods ps"), "{error}");
        assert_eq!(berth(node, "ps -q").ok(), "");
    });
}
