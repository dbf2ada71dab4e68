//! The sandbox store on the wire.

use berth_proto as proto;
use proto::containerd::services::sandbox::v1::store_client::StoreClient;
use proto::containerd::services::sandbox::v1::{
    StoreCreateRequest, StoreDeleteRequest, StoreGetRequest, StoreListRequest, StoreUpdateRequest,
};
use proto::containerd::types::{Sandbox, sandbox::Runtime};
use proto::prost_types::Any;
use tonic::{Code, Request};

use crate::served::{Served, within};

#[tokio::test(flavor = "multi_thread")]
async fn sandboxes_are_stored_changed_listed_and_removed() {
    let served = Served::start();
    let mut client = StoreClient::new(served.channel());
    let runtime = Runtime { name: "io.containerd.runc.v2".into(), options: None };
    let spec = Any { type_url: "spec".into(), value: b"{}".to_vec() };
    let labels = [("app".to_owned(), "web".to_owned())].into();
    let sandbox = Sandbox {
        sandbox_id: "pod".into(),
        runtime: Some(runtime),
        spec: Some(spec),
        labels,
        sandboxer: "shim".into(),
        ..Default::default()
    };
    let create = || StoreCreateRequest { sandbox: Some(sandbox.clone()) };
    let made = client.create(within(create())).await.unwrap().into_inner().sandbox.unwrap();
    assert!(made.created_at.is_some());
    assert_eq!(client.create(within(create())).await.unwrap_err().code(), Code::AlreadyExists);

    let mut changed = sandbox.clone();
    changed.labels.insert("app".into(), "db".into());
    let update = StoreUpdateRequest { sandbox: Some(changed), fields: vec!["labels.app".into()] };
    client.update(within(update)).await.unwrap();
    let id = || "pod".to_owned();
    let get = || StoreGetRequest { sandbox_id: id() };
    let got = client.get(within(get())).await.unwrap().into_inner().sandbox.unwrap();
    assert_eq!((got.labels["app"].as_str(), got.sandboxer.as_str()), ("db", "shim"));
    assert_eq!((got.spec, got.created_at), (sandbox.spec.clone(), made.created_at));

    for (filter, found) in [("labels.app==db", 1), ("labels.app==web", 0)] {
        let list = StoreListRequest { filters: vec![filter.into()] };
        assert_eq!(client.list(within(list)).await.unwrap().into_inner().list.len(), found, "{filter}");
    }
    client.delete(within(StoreDeleteRequest { sandbox_id: id() })).await.unwrap();
    assert_eq!(client.get(within(get())).await.unwrap_err().code(), Code::NotFound);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_sandbox_is_refused() {
    let served = Served::start();
    let mut client = StoreClient::new(served.channel());
    let bare = Request::new(StoreListRequest::default());
    assert_eq!(client.list(bare).await.unwrap_err().code(), Code::FailedPrecondition);
    let bad = Sandbox { sandbox_id: "../pod".into(), ..Default::default() };
    for sandbox in [None, Some(bad)] {
        let status = client.create(within(StoreCreateRequest { sandbox })).await.unwrap_err();
        assert_eq!(status.code(), Code::InvalidArgument);
    }
    let missing = StoreGetRequest { sandbox_id: "../pod".into() };
    assert_eq!(client.get(within(missing)).await.unwrap_err().code(), Code::NotFound);
}
