//! Network plugins that hang, crash and lie: the answer comes in bounded time and says whose fault it is, and nothing of
//! the pod is left.

use std::time::{Duration, Instant};

use berth_proto::runtime::v1 as proto;
use e2e::{Node, pod};
use testkit::processes;

/// The longest that one call of a plugin may take, and some for a busy machine.
const PATIENCE: Duration = Duration::from_secs(90);

/// Puts a plugin behind the real ones, which does `add` when it is to add, and nothing else.
fn chain(node: &Node, add: &str) {
    node.plugin("evil", &format!("#!/bin/sh\nif [ \"$CNI_COMMAND\" = ADD ]; then {add}\nfi\n"));
    let path = node.network();
    let text = std::fs::read_to_string(&path).expect("it is there");
    if !text.contains("evil") {
        let end = text.rfind("]}").expect("it ends with its plugins");
        let text = format!("{},{{\"type\":\"evil\"}}{}", &text[..end], &text[end..]);
        std::fs::write(path, text).expect("the scratch folder takes a file");
    }
}

/// Demands that a pod cannot be run, for a reason with these words, and that nothing of it is left.
#[track_caller]
fn refused(node: &Node, words: &[&str]) {
    let config = pod(node, "pod");
    let error = node.run_pod(&config).expect_err("the network is broken");
    for word in words {
        assert!(error.message().contains(word), "{word:?} is not in {error}");
    }
    assert!(error.message().len() < 4096, "the error is {} bytes long", error.message().len());
    node.demand_bare();
}

#[test]
fn a_plugin_that_crashes_or_lies_is_named_and_the_pod_taken_down() {
    Node::run(|node| {
        chain(node, "kill -9 $$");
        refused(node, &["evil", "signal"]);
        chain(node, "exit 3");
        refused(node, &["evil"]);
        chain(node, "echo not json");
        refused(node, &["evil"]);
        chain(node, "echo '{\"cniVersion\":\"1.0.0\",\"ips\":[{\"address\":\"no address\"}]}'");
        refused(node, &["evil", "no address"]);
        chain(node, "echo '{\"cniVersion\":\"9.9.9\",\"ips\":[]}'");
        refused(node, &["evil", "9.9.9"]);
        chain(node, "echo '{\"cniVersion\":\"1.0.0\"}'");
        refused(node, &["no address"]);
        chain(node, "echo '{\"cniVersion\":\"1.0.0\",\"code\":11,\"msg\":\"the pool is dry\"}'; exit 1");
        refused(node, &["evil", "the pool is dry"]);
        chain(node, "yes");
        refused(node, &["evil"]);
        chain(node, "yes >&2; exit 1");
        refused(node, &["evil"]);
        // With one that is not there nothing is begun.
        std::fs::remove_file(node.path("plugins/evil")).expect("it is there");
        refused(node, &["evil", "plugins", "install it"]);
    });
}

#[test]
fn a_plugin_that_hangs_is_cut_off_with_all_its_children() {
    Node::run(|node| {
        chain(node, "sleep 1000 & sleep 1000");
        let began = Instant::now();
        refused(node, &["evil"]);
        assert!(began.elapsed() < PATIENCE, "it took {:?}", began.elapsed());
        let left: Vec<_> = processes::tagged(node.daemon.tag())
            .into_iter()
            .filter(|one| one.command.contains("sleep"))
            .collect();
        assert!(left.is_empty(), "{left:?}");
    });
}

#[test]
fn a_pod_that_cannot_be_taken_off_its_network_stays_until_it_can() {
    Node::run(|node| {
        let config = pod(node, "pod");
        let id = node.run_pod(&config).expect("a pod can be run");
        let real = std::fs::read_link(node.path("plugins/host-local")).expect("it is a link");
        node.plugin("host-local", "#!/bin/sh\necho '{\"code\":7,\"msg\":\"come back later\"}'; exit 1\n");
        for answer in [node.stop_pod(&id), node.remove_pod(&id)] {
            let error = answer.expect_err("the plugin is broken");
            assert!(error.message().contains("come back later"), "{error}");
        }
        node.daemon.kill();
        node.daemon.restart();
        assert_eq!(node.pods().len(), 1);
        std::fs::remove_file(node.path("plugins/host-local")).expect("it is there");
        std::os::unix::fs::symlink(real, node.path("plugins/host-local")).expect("a link can be made");
        node.remove_pod(&id).expect("it can be taken off again");
    });
}

#[test]
fn without_a_network_only_pods_of_the_hosts_network_run_and_the_node_says_so() {
    Node::run(|node| {
        let ready = |node: &Node| {
            let request = proto::StatusRequest { verbose: false };
            let status = node.ask(|mut client| async move { client.status(request).await });
            let conditions = status.expect("it has a status").status.unwrap_or_default().conditions;
            conditions.into_iter().find(|condition| condition.r#type == "NetworkReady").expect("it is told")
        };
        assert!(ready(node).status);
        let text = std::fs::read(node.network()).expect("it is there");
        std::fs::remove_file(node.network()).expect("it is there");
        let condition = ready(node);
        assert!(!condition.status && condition.message.contains("net.d"), "{condition:?}");
        refused(node, &["net.d"]);

        let mut config = pod(node, "host");
        let security = config.linux.as_mut().and_then(|linux| linux.security_context.as_mut());
        let options = security.and_then(|security| security.namespace_options.as_mut());
        options.expect("it has them").network = proto::NamespaceMode::Node.into();
        let id = node.run_pod(&config).expect("the host's network is there");
        node.away(&id);

        std::fs::write(node.network(), text).expect("the scratch folder takes a file");
        let config = pod(node, "pod");
        let id = node.run_pod(&config).expect("the network is there again");
        node.away(&id);
    });
}
