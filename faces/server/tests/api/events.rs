//! `Events` on the wire, and the shims' way to it.

use berth_proto as proto;
use berth_ttrpc::Code as TtrpcCode;
use proto::containerd::events::TaskOom;
use proto::containerd::services::events::ttrpc::v1::ForwardRequest as ShimForward;
use proto::containerd::services::events::v1::events_client::EventsClient;
use proto::containerd::services::events::v1::{ForwardRequest, PublishRequest, SubscribeRequest};
use proto::containerd::types::Envelope;
use proto::convert::{any, pack};
use tonic::{Code, Request};

use crate::served::{Served, within};

fn oom(topic: &str) -> Envelope {
    Envelope {
        timestamp: Some(proto::prost_types::Timestamp { seconds: 5, nanos: 6 }),
        namespace: "shim".into(),
        topic: topic.into(),
        event: Some(any(pack(&TaskOom { container_id: "c".into() }))),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_subscriber_hears_what_it_asked_for_as_it_was_told() {
    let served = Served::start();
    let mut client = EventsClient::new(served.channel());
    let filters = vec!["topic~=\"/tasks/.+\"".to_owned()];
    // Without a namespace: a subscriber hears all of them.
    let mut heard = client.subscribe(Request::new(SubscribeRequest { filters })).await.unwrap().into_inner();
    let message = any(pack(&TaskOom { container_id: "c".into() }));
    for topic in ["/images/x", "/tasks/oom"] {
        let publish = PublishRequest { topic: topic.into(), event: Some(message.clone()) };
        client.publish(within(publish)).await.unwrap();
    }
    let envelope = heard.message().await.unwrap().unwrap();
    assert_eq!((envelope.topic.as_str(), envelope.namespace.as_str()), ("/tasks/oom", "test"));
    assert_eq!(envelope.event, Some(message));

    client.forward(Request::new(ForwardRequest { envelope: Some(oom("/tasks/oom")) })).await.unwrap();
    assert_eq!(heard.message().await.unwrap().unwrap(), oom("/tasks/oom"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_shim_forwards_over_ttrpc() {
    let served = Served::start();
    let mut client = EventsClient::new(served.channel());
    let mut heard = client.subscribe(Request::new(SubscribeRequest::default())).await.unwrap().into_inner();
    let shim = berth_ttrpc::tokio::Client::connect(&served.scratch.path("d.sock.ttrpc")).await.unwrap();
    let service = "containerd.services.events.ttrpc.v1.Events";
    let forward =
        async |envelope| shim.call::<_, ()>(service, "Forward", &ShimForward { envelope }, None).await;
    forward(Some(oom("/tasks/oom"))).await.unwrap();
    assert_eq!(heard.message().await.unwrap().unwrap(), oom("/tasks/oom"));

    let code = |result: Result<(), berth_ttrpc::Error>| match result {
        Err(berth_ttrpc::Error::Status(status)) => status.code,
        other => panic!("{other:?}"),
    };
    let refused = forward(Some(oom("no-topic"))).await;
    assert_eq!(code(refused), TtrpcCode::InvalidArgument);
    assert_eq!(code(forward(None).await), TtrpcCode::InvalidArgument);
    let absent = shim.call::<_, ()>(service, "Backward", &ShimForward { envelope: None }, None).await;
    assert_eq!(code(absent), TtrpcCode::Unimplemented);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_event_is_refused() {
    let served = Served::start();
    let mut client = EventsClient::new(served.channel());
    let event = Some(any(pack(&TaskOom::default())));
    for topic in ["", "x", "/", "/a//b", "/a b"] {
        let publish = PublishRequest { topic: topic.into(), event: event.clone() };
        let status = client.publish(within(publish)).await.unwrap_err();
        assert_eq!(status.code(), Code::InvalidArgument, "{topic:?}");
    }
    let publish = PublishRequest { topic: "/a".into(), event };
    let status = client.publish(Request::new(publish)).await.unwrap_err();
    assert_eq!(status.code(), Code::FailedPrecondition, "a publisher says its namespace");
    let bad = SubscribeRequest { filters: vec!["topic=x".into()] };
    assert_eq!(client.subscribe(Request::new(bad)).await.unwrap_err().code(), Code::InvalidArgument);
}
