//! Pods with a container of a configured image as their first process, as containerd has it.

use berth_proto::runtime::v1 as proto;
use e2e::{Node, container, crictl, pod};
use proto::{NamespaceMode, PodSandboxState};
use serde_json::Value;
use testkit::registry::DockerRegistry;
use testkit::{image, need, processes, wait};

const IMAGE: &str = "berth.test/pause:1";

/// The image: a program that ends when it is asked to, under a name of its own.
fn pause() -> image::Image {
    let script = "trap 'exit 0' TERM; while true; do sleep 1000 & wait; done";
    image::busybox().expect("it was looked for").named(IMAGE).cmd(&["sh", "-c", script])
}

fn run(test: impl FnOnce(&mut Node) + Send) {
    if need::program("crictl").is_err() {
        return;
    }
    // A machine may not let its root lower scores, and such a process has a low one.
    let more = format!(
        "restrict_oom_score_adj = true\nsandbox_image = '{IMAGE}'\n\
         [plugins.'io.containerd.grpc.v1.cri'.containerd.runtimes.runc]\n\
         runtime_type = 'io.containerd.runc.v2'\nberth_pause_container = true\n"
    );
    Node::run_with(&more, test);
}

fn shared(node: &Node) -> proto::PodSandboxConfig {
    let mut of = pod(node, "pod");
    let security = of.linux.as_mut().and_then(|linux| linux.security_context.as_mut());
    security.and_then(|security| security.namespace_options.as_mut()).expect("it has them").pid =
        NamespaceMode::Pod.into();
    of
}

#[test]
fn a_pod_has_a_container_of_the_image_that_is_configured() {
    run(|node| {
        node.import(&pause());
        let of = shared(node);
        let id = node.run_pod(&of).expect("a pod can be run");
        let listed = node.ctr("containers ls").ok();
        let line = listed.lines().find(|line| line.starts_with(&id)).unwrap_or_default();
        assert!(line.contains(IMAGE), "{listed}");
        assert!(node.ctr("tasks ls").ok().contains(&id), "its task runs");
        // A kubelet sees no container, and does not remove the image.
        assert!(node.containers().is_empty());
        let images: Value = serde_json::from_str(&crictl(&node.daemon, "images -o json").ok()).expect("JSON");
        let pinned = |name: &str| {
            let images = images["images"].as_array().cloned().unwrap_or_default();
            let found = images.into_iter().find(|image| image["repoTags"][0] == name);
            found.unwrap_or_else(|| panic!("{name} is not there"))["pinned"] == true
        };
        assert!(pinned(IMAGE) && !pinned("berth.test/busybox:1"));
        let told: Value =
            serde_json::from_str(&crictl(&node.daemon, &format!("inspectp {id}")).ok()).expect("JSON");
        assert_eq!(
            (&told["info"]["image"], &told["info"]["snapshotKey"]),
            (&IMAGE.into(), &id.as_str().into())
        );

        let mut config = container("c", &["sleep", "1000"]);
        let security = config.linux.as_mut().and_then(|linux| linux.security_context.as_mut());
        security.and_then(|security| security.namespace_options.as_mut()).expect("it has them").pid =
            NamespaceMode::Pod.into();
        let inside = node.started(&id, &of, &config).expect("it starts");
        assert!(node.sh(&inside, "cat /proc/1/cmdline").contains("trap 'exit 0' TERM"));

        // A daemon that comes back knows it, and sees its end.
        node.daemon.kill();
        node.daemon.restart();
        assert_eq!(node.pod_status(&id).expect("it is there").state(), PodSandboxState::SandboxReady);
        node.ctr(&format!("tasks kill --signal SIGKILL {id}")).ok();
        wait::soon("a pod that is not ready", || {
            node.pod_status(&id).is_ok_and(|status| status.state() == PodSandboxState::SandboxNotready)
        });
        node.away(&id);
    });
}

#[test]
fn the_image_is_confined_and_belongs_to_whom_the_pod_says() {
    run(|node| {
        node.import(&pause());
        let mut of = pod(node, "pod");
        let security = of.linux.as_mut().and_then(|linux| linux.security_context.as_mut());
        security.expect("it has it").run_as_user = Some(proto::Int64Value { value: 65534 });
        let id = node.run_pod(&of).expect("a pod can be run");
        let told: Value =
            serde_json::from_str(&crictl(&node.daemon, &format!("inspectp {id}")).ok()).expect("JSON");
        let status =
            std::fs::read_to_string(format!("/proc/{}/status", told["info"]["pid"])).expect("it runs");
        let field = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name));
            line.unwrap_or_default().trim_start_matches(':').trim().to_owned()
        };
        assert_eq!(field("Uid").split_whitespace().next(), Some("65534"));
        assert_eq!((field("CapBnd"), field("CapEff")), ("0".repeat(16), "0".repeat(16)));
        assert_eq!(field("NoNewPrivs"), "1");
        node.away(&id);
    });
}

#[test]
fn an_image_that_is_not_there_is_pulled_and_one_that_is_nowhere_is_named() {
    run(|node| {
        let of = pod(node, "pod");
        let error = node.run_pod(&of).expect_err("there is no such image");
        assert!(error.message().contains(&format!("cannot pull the pause image {IMAGE}")), "{error}");
        assert!(node.pods().is_empty());

        let Ok(registry) = DockerRegistry::start() else { return };
        registry.put(&pause(), "pause", "1");
        node.daemon.stop();
        let config = std::fs::read_to_string(node.daemon.config()).expect("it has one");
        let there = format!("{}/pause:1", registry.address());
        std::fs::write(node.daemon.config(), config.replace(IMAGE, &there)).expect("it is the test's own");
        node.daemon.restart();
        let id = node.run_pod(&of).expect("a pod can be run");
        assert!(node.ctr("containers ls").ok().contains(&there));
        node.away(&id);
        node.ctr(&format!("images rm {there}")).ok();
    });
}

#[test]
fn what_was_killed_while_it_was_made_leaves_neither_container_nor_layer() {
    run(|node| {
        node.import(&pause());
        let config = pod(node, "pod");
        for milliseconds in [5, 15, 30, 50, 80, 120] {
            let request = e2e::run_pod(&config);
            let mut asked = node.asking(|mut client| async move { client.run_pod_sandbox(request).await });
            // Whether it is answered before is the machine's business.
            let _ = asked.within(node, std::time::Duration::from_millis(milliseconds));
            node.daemon.kill();
            node.daemon.restart();
            let id = node.run_pod(&config).unwrap_or_else(|error| panic!("after {milliseconds} ms: {error}"));
            assert_eq!(node.pods().len(), 1);
            node.away(&id);
            node.demand_bare();
        }
        assert!(processes::tagged(node.daemon.tag()).len() <= 1, "only the daemon is left");
    });
}
