//! Every event over the wire and back, and what becomes of an event that is not ours.

#![expect(clippy::unwrap_used, reason = "a test may")]

use std::time::{Duration, SystemTime};

use berth_proto as proto;
use berth_types::{Any, Envelope, Event, Exit, Labels, Mount, RuntimeInfo, Stdio};
use proto::convert::{envelope, event, from_envelope, from_event, pack};

fn every_event() -> Vec<(Event, &'static str)> {
    let text = str::to_owned;
    let labels = Labels::from([("k".to_owned(), "v".to_owned())]);
    let digest: berth_types::Digest = format!("sha256:{}", "a".repeat(64)).parse().unwrap();
    let exit = Exit { pid: 4, status: 137, at: SystemTime::UNIX_EPOCH + Duration::new(9, 8) };
    let runtime = RuntimeInfo { name: text("io.containerd.runc.v2"), options: Some(Any::new("o", [1])) };
    let rootfs =
        vec![Mount { kind: text("bind"), source: text("/s"), target: text("/t"), options: vec![text("ro")] }];
    let io = Stdio { stdin: text("i"), stdout: text("o"), stderr: text("e"), terminal: true };
    vec![
        (
            Event::ContainerCreate { id: text("c"), image: text("i"), runtime },
            "containerd.events.ContainerCreate",
        ),
        (
            Event::ContainerUpdate {
                id: text("c"),
                image: text("i"),
                labels: labels.clone(),
                snapshot_key: text("s"),
            },
            "containerd.events.ContainerUpdate",
        ),
        (Event::ContainerDelete { id: text("c") }, "containerd.events.ContainerDelete"),
        (Event::ContentCreate { digest: digest.clone(), size: 5 }, "containerd.events.ContentCreate"),
        (Event::ContentDelete { digest }, "containerd.events.ContentDelete"),
        (
            Event::ImageCreate { name: text("n"), labels: labels.clone() },
            "containerd.services.images.v1.ImageCreate",
        ),
        (
            Event::ImageUpdate { name: text("n"), labels: labels.clone() },
            "containerd.services.images.v1.ImageUpdate",
        ),
        (Event::ImageDelete { name: text("n") }, "containerd.services.images.v1.ImageDelete"),
        (
            Event::NamespaceCreate { name: text("n"), labels: labels.clone() },
            "containerd.events.NamespaceCreate",
        ),
        (Event::NamespaceUpdate { name: text("n"), labels }, "containerd.events.NamespaceUpdate"),
        (Event::NamespaceDelete { name: text("n") }, "containerd.events.NamespaceDelete"),
        (
            Event::SnapshotPrepare { key: text("k"), parent: text("p"), snapshotter: text("s") },
            "containerd.events.SnapshotPrepare",
        ),
        (
            Event::SnapshotCommit { key: text("k"), name: text("n"), snapshotter: text("s") },
            "containerd.events.SnapshotCommit",
        ),
        (
            Event::SnapshotRemove { key: text("k"), snapshotter: text("s") },
            "containerd.events.SnapshotRemove",
        ),
        (
            Event::TaskCreate {
                container_id: text("c"),
                bundle: text("b"),
                rootfs,
                io,
                checkpoint: text("x"),
                pid: 4,
            },
            "containerd.events.TaskCreate",
        ),
        (Event::TaskStart { container_id: text("c"), pid: 4 }, "containerd.events.TaskStart"),
        (
            Event::TaskDelete { container_id: text("c"), exec_id: String::new(), exit },
            "containerd.events.TaskDelete",
        ),
        (
            Event::TaskExit { container_id: text("c"), exec_id: String::new(), exit },
            "containerd.events.TaskExit",
        ),
        (Event::TaskExit { container_id: text("c"), exec_id: text("e"), exit }, "containerd.events.TaskExit"),
        (Event::TaskOom { container_id: text("c") }, "containerd.events.TaskOOM"),
        (
            Event::TaskExecAdded { container_id: text("c"), exec_id: text("e") },
            "containerd.events.TaskExecAdded",
        ),
        (
            Event::TaskExecStarted { container_id: text("c"), exec_id: text("e"), pid: 4 },
            "containerd.events.TaskExecStarted",
        ),
        (Event::TaskPaused { container_id: text("c") }, "containerd.events.TaskPaused"),
        (Event::TaskResumed { container_id: text("c") }, "containerd.events.TaskResumed"),
        (
            Event::TaskCheckpointed { container_id: text("c"), checkpoint: text("x") },
            "containerd.events.TaskCheckpointed",
        ),
        (Event::Foreign { topic: text("/mine/own"), event: Any::new("x.Y", [1, 2]) }, "x.Y"),
    ]
}

#[test]
fn every_event_comes_back_as_it_went() {
    for (original, type_url) in every_event() {
        let (topic, message) = event(original.clone());
        assert_eq!(message.type_url, type_url);
        assert_eq!(topic, original.topic());
        assert_eq!(from_event(topic, message), original);
    }
}

#[test]
fn the_first_process_is_called_like_its_container() {
    let exit = Exit { pid: 1, status: 0, at: SystemTime::UNIX_EPOCH };
    let (_, message) = event(Event::TaskExit { container_id: "c".into(), exec_id: String::new(), exit });
    let decoded: proto::containerd::events::TaskExit = proto::convert::unpack(&message).unwrap();
    assert_eq!(decoded.id, "c");
}

#[test]
fn what_does_not_read_as_its_message_is_passed_on_as_it_came() {
    let start = pack(&proto::containerd::events::TaskStart { container_id: "c".into(), pid: 1 });
    for (topic, message) in [
        ("/tasks/exit", start),
        ("/tasks/start", Any::new("containerd.events.TaskStart", [0xff])),
        (
            "/content/create",
            pack(&proto::containerd::events::ContentCreate { digest: "no".into(), size: -1 }),
        ),
        ("/tasks/start", Any::new("containerd.events.TaskFuture", [])),
    ] {
        let event = from_event(topic.to_owned(), message.clone());
        assert_eq!(event, Event::Foreign { topic: topic.to_owned(), event: message });
    }
}

#[test]
fn an_envelope_needs_a_namespace_a_topic_and_a_message() {
    let good = envelope(Envelope {
        timestamp: SystemTime::UNIX_EPOCH + Duration::from_secs(1),
        namespace: "default".parse().unwrap(),
        event: Event::TaskOom { container_id: "c".into() },
    });
    assert!(from_envelope(good.clone()).is_ok());
    for bad in ["", "/", "tasks/oom", "/tasks//oom", "/tasks/", "/a b"] {
        assert!(
            from_envelope(proto::containerd::types::Envelope { topic: bad.into(), ..good.clone() }).is_err()
        );
    }
    assert!(
        from_envelope(proto::containerd::types::Envelope { namespace: String::new(), ..good.clone() })
            .is_err()
    );
    assert!(from_envelope(proto::containerd::types::Envelope { event: None, ..good }).is_err());
}
