//! Configurations that somebody else has written.

use e2e::{Node, container, pod};
use testkit::{Invocation, need, programs};

/// What a file of containerd's own making says of Kubernetes, but for places that are the machine's.
fn printed() -> Option<String> {
    let Some(containerd) = programs::containerd("containerd") else {
        need::that(false, "containerd 2.3 (cargo xtask peers)").ok()?;
        return None;
    };
    let printed = Invocation::new(containerd).args(["config", "default"]).ok();
    Some(printed)
}

#[test]
fn a_node_runs_with_what_containerd_prints_as_its_default() {
    let Some(printed) = printed() else { return };
    Node::run(|node| {
        node.daemon.stop();
        let own = std::fs::read_to_string(node.daemon.config()).expect("it has one");
        // Its tables of the CRI, with the network and the places of the test's own.
        let mut tables = Vec::new();
        for table in printed.split("\n  [plugins.'").skip(1) {
            let (name, _) = table.split_once(']').unwrap_or_default();
            let is_wanted = [
                "io.containerd.cri.v1.runtime'",
                "io.containerd.cri.v1.images'",
                "io.containerd.grpc.v1.cri'",
            ]
            .iter()
            .any(|wanted| name.starts_with(wanted));
            if is_wanted {
                tables.push(format!("[plugins.'{table}"));
            }
        }
        assert_eq!(tables.len(), 3, "{printed}");
        let tables = tables
            .concat()
            .replace("/opt/cni/bin", &node.path("plugins").display().to_string())
            .replace("/etc/cni/net.d", &node.path("net.d").display().to_string())
            .replace("netns_mounts_under_state_dir = false", "netns_mounts_under_state_dir = true");
        let places: Vec<&str> = own.lines().take_while(|line| !line.starts_with("[plugins")).collect();
        let places = places.join("\n").replace("version = 2", "version = 3");
        std::fs::write(node.daemon.config(), format!("{places}\n{tables}")).expect("it is the test's own");
        node.daemon.restart();
        let of = pod(node, "pod");
        let id = node.run_pod(&of).expect("a pod can be run");
        let one = node.started(&id, &of, &container("one", &["sleep", "1000"])).expect("it starts");
        assert_eq!(node.sh(&one, "echo in"), "in\n");
        node.away(&id);
    });
}
