//! What holds for every request: headers, limits, panics, clients that go away, the server's end.

use berth_proto as proto;
use proto::containerd::services::containers::v1::containers_client::ContainersClient;
use proto::containerd::services::containers::v1::{Container, CreateContainerRequest, ListContainersRequest};
use proto::containerd::services::introspection::v1::introspection_client::IntrospectionClient;
use proto::containerd::services::introspection::v1::{PluginInfoRequest, PluginsRequest};
use proto::containerd::services::namespaces::v1::ListNamespacesRequest;
use proto::containerd::services::namespaces::v1::namespaces_client::NamespacesClient;
use proto::containerd::services::tasks::v1::tasks_client::TasksClient;
use proto::containerd::services::tasks::v1::{CreateTaskRequest, GetRequest, WaitRequest};
use proto::containerd::services::version::v1::version_client::VersionClient;
use proto::grpc::health::v1::health_client::HealthClient;
use proto::grpc::health::v1::{HealthCheckRequest, health_check_response::ServingStatus};
use proto::prost_types::Any;
use tonic::codegen::http::uri::PathAndQuery;
use tonic::{Code, Request};

use crate::served::{Served, within};

#[tokio::test(flavor = "multi_thread")]
async fn a_daemon_says_what_it_is_without_a_namespace() {
    let served = Served::start();
    let version = VersionClient::new(served.channel()).version(()).await.unwrap().into_inner();
    assert_eq!((version.version.as_str(), version.revision.as_str()), ("2.3.4", "rev"));
    let mut client = IntrospectionClient::new(served.channel());
    assert_eq!(client.server(()).await.unwrap().into_inner().uuid, "u-u-i-d");
    let plugins = client.plugins(PluginsRequest::default()).await.unwrap().into_inner().plugins;
    assert_eq!((plugins[0].exports["root"].as_str(), plugins[0].capabilities.len()), ("/r", 1));
    assert_eq!(plugins[0].init_err.as_ref().unwrap().message, "no zfs here: skip plugin");
    let request = PluginInfoRequest {
        r#type: "io.containerd.snapshotter.v1".into(),
        id: "zfs".into(),
        options: Some(Any { type_url: "t".into(), value: vec![1] }),
    };
    assert_eq!(client.plugin_info(request).await.unwrap().into_inner().extra.unwrap().type_url, "t");
    let absent = PluginInfoRequest { r#type: "x".into(), id: "y".into(), options: None };
    assert_eq!(client.plugin_info(absent).await.unwrap_err().code(), Code::NotFound);
    let mut namespaces = NamespacesClient::new(served.channel());
    namespaces.list(ListNamespacesRequest::default()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn health_is_what_gos_server_says() {
    let served = Served::start();
    let mut client = HealthClient::new(served.channel());
    let whole = client.check(HealthCheckRequest::default()).await.unwrap().into_inner();
    assert_eq!(whole.status, ServingStatus::Serving as i32);
    let named = HealthCheckRequest { service: "x".into() };
    let status = client.check(named.clone()).await.unwrap_err();
    assert_eq!((status.code(), status.message()), (Code::NotFound, "unknown service"));
    let mut watching = client.watch(named).await.unwrap().into_inner();
    assert_eq!(watching.message().await.unwrap().unwrap().status, ServingStatus::ServiceUnknown as i32);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_namespace_is_required() {
    let served = Served::start();
    let mut client = ContainersClient::new(served.channel());
    let status = client.list(Request::new(ListContainersRequest::default())).await.unwrap_err();
    assert_eq!(status.code(), Code::FailedPrecondition);
    assert!(status.message().contains("namespace is required"), "{status}");
    let mut request = Request::new(ListContainersRequest::default());
    request.metadata_mut().insert("containerd-namespace", "../x".parse().unwrap());
    assert_eq!(client.list(request).await.unwrap_err().code(), Code::InvalidArgument);
}

#[tokio::test(flavor = "multi_thread")]
async fn services_that_are_not_there_are_unimplemented() {
    let served = Served::start();
    for service in ["containerd.services.absent.v1.Absent"] {
        let mut client = tonic::client::Grpc::new(served.channel());
        client.ready().await.unwrap();
        let path = PathAndQuery::try_from(format!("/{service}/List")).unwrap();
        let codec = tonic_prost::ProstCodec::<(), ()>::default();
        let status = client.unary(Request::new(()), path, codec).await.unwrap_err();
        assert_eq!(status.code(), Code::Unimplemented, "{service}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_too_long_is_resource_exhausted() {
    let served = Served::start();
    let mut client = ContainersClient::new(served.channel());
    let container = Container { id: "c".into(), image: "x".repeat(16 << 20), ..Default::default() };
    let request = CreateContainerRequest { container: Some(container) };
    let status = client.create(within(request)).await.unwrap_err();
    assert_eq!(status.code(), Code::ResourceExhausted, "{status}");
    assert!(status.message().starts_with("grpc: received message larger than max ("), "{status}");
    client.list(within(ListContainersRequest::default())).await.expect("the connection goes on");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_panic_ends_one_request() {
    let served = Served::start();
    let mut client = TasksClient::new(served.channel());
    let request = CreateTaskRequest { container_id: "panics".into(), ..Default::default() };
    assert_eq!(client.create(within(request)).await.unwrap_err().code(), Code::Internal);
    let request = GetRequest { container_id: "one".into(), exec_id: String::new() };
    client.get(within(request)).await.expect("the connection goes on");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_outlives_its_client() {
    let served = Served::start();
    let mut created = served.stores.tasks.created.subscribe();
    {
        let mut client = TasksClient::new(served.channel());
        let request = CreateTaskRequest { container_id: "slow".into(), ..Default::default() };
        let creating = client.create(within(request));
        tokio::pin!(creating);
        let asked = async {
            while served.stores.tasks.take().is_empty() {
                tokio::task::yield_now().await;
            }
        };
        tokio::select! {
            _ = &mut creating => panic!("it was to wait"),
            () = asked => {}
        }
    }
    served.stores.tasks.may_create.notify_one();
    created.wait_for(|count| *count == 1).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wait_ends_with_its_client() {
    let served = Served::start();
    let mut waiting = served.stores.tasks.waiting.subscribe();
    {
        let mut client = TasksClient::new(served.channel());
        let wait = client.wait(within(WaitRequest { container_id: "one".into(), exec_id: String::new() }));
        tokio::pin!(wait);
        tokio::select! {
            _ = &mut wait => panic!("it was to wait"),
            found = waiting.wait_for(|count| *count == 1) => drop(found.unwrap()),
        }
    }
    waiting.wait_for(|count| *count == 0).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn many_waits_share_a_connection() {
    let served = Served::start();
    let mut waiting = served.stores.tasks.waiting.subscribe();
    let client = TasksClient::new(served.channel());
    let mut waits = tokio::task::JoinSet::new();
    for _ in 0..1000 {
        let mut client = client.clone();
        waits.spawn(async move {
            let request = WaitRequest { container_id: "one".into(), exec_id: String::new() };
            client.wait(within(request)).await.map(|_| ())
        });
    }
    waiting.wait_for(|count| *count == 1000).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_waits_for_changes_and_not_for_waits() {
    let mut served = Served::start();
    let mut client = TasksClient::new(served.channel());
    let mut other = client.clone();
    let wait = tokio::spawn(async move {
        other.wait(within(WaitRequest { container_id: "one".into(), exec_id: String::new() })).await
    });
    let request = CreateTaskRequest { container_id: "slow".into(), ..Default::default() };
    let create = tokio::spawn(async move { client.create(within(request)).await });
    served.stores.tasks.waiting.subscribe().wait_for(|count| *count == 1).await.unwrap();
    while !served.stores.tasks.asked.lock().unwrap().iter().any(|one| one.starts_with("create")) {
        tokio::task::yield_now().await;
    }
    let stores = served.stores.clone();
    let stopping = async {
        served.stop().await.unwrap();
        assert_eq!(*stores.tasks.created.borrow(), 1, "the change came to its end first");
    };
    let letting = async { stores.tasks.may_create.notify_one() };
    tokio::join!(stopping, letting);
    assert_eq!(create.await.unwrap().unwrap().into_inner().pid, 11, "its answer left");
    assert!(!served.scratch.path("d.sock").exists());
    assert!(!served.scratch.path("d.sock.ttrpc").exists());
    wait.abort();
}
