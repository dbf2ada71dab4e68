//! Against the `ttrpc` crate, which other people's shims and daemons in Rust use: both directions.

#![expect(clippy::unwrap_used, reason = "a test may")]

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use berth_ttrpc::tokio::{Client, Handler, Server};
use berth_ttrpc::{Code, Error, Metadata, Status};
use ttrpc::proto::Request;
use ttrpc::{MethodHandler, TtrpcContext};

const PLENTY: Duration = Duration::from_secs(20);

struct Echo;

impl Handler for Echo {
    async fn call(
        &self,
        _: &str,
        method: &str,
        metadata: Metadata,
        payload: Vec<u8>,
    ) -> Result<Vec<u8>, Status> {
        match method {
            "Echo" => Ok(payload),
            "Namespace" => Ok(metadata.namespace().unwrap_or_default().into()),
            other => Err(Status::new(Code::NotFound, other)),
        }
    }
}

fn request(method: &str, payload: Vec<u8>) -> Request {
    let pairs = HashMap::from([("containerd-namespace-ttrpc".to_owned(), vec!["moby".to_owned()])]);
    Request {
        service: "a.B".into(),
        method: method.into(),
        payload,
        timeout_nano: 20_000_000_000,
        metadata: ttrpc::context::to_pb(pairs),
        ..Default::default()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_crates_client_is_served() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("s");
    let listener = tokio::net::UnixListener::bind(&path).unwrap();
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let server = tokio::spawn(Server::new(Echo).serve(listener, async { stopped.await.unwrap_or(()) }));
    let address = format!("unix://{}", path.display());
    tokio::task::spawn_blocking(move || {
        let client = ttrpc::Client::connect(&address).unwrap();
        for size in [0, 1, 100_000, 4_000_000] {
            assert_eq!(client.request(request("Echo", vec![7; size])).unwrap().payload, vec![7; size]);
        }
        assert_eq!(client.request(request("Namespace", vec![])).unwrap().payload, b"moby");
        let Err(ttrpc::Error::RpcStatus(status)) = client.request(request("Lost", vec![])) else { panic!() };
        assert_eq!((status.code(), status.message.as_str()), (ttrpc::Code::NOT_FOUND, "Lost"));
    })
    .await
    .unwrap();
    stop.send(()).unwrap();
    server.await.unwrap();
}

struct Foreign;

impl MethodHandler for Foreign {
    fn handler(&self, context: TtrpcContext, request: Request) -> ttrpc::Result<()> {
        let mut response = ttrpc::Response::new();
        response.payload = match request.method.as_str() {
            "Echo" => request.payload,
            "Namespace" => context.metadata["containerd-namespace-ttrpc"].join(",").into_bytes(),
            _ => {
                let status = ttrpc::get_status(ttrpc::Code::FAILED_PRECONDITION, "no".to_owned());
                response.set_status(status);
                Vec::new()
            }
        };
        context.respond(context.mh.stream_id, response)
    }
}

/// A server of the crate, which shuts down when dropped.
struct ForeignServer(Option<ttrpc::Server>);

impl ForeignServer {
    fn start(address: &str) -> Self {
        let methods = ["Echo", "Namespace", "Fail"]
            .map(|name| (format!("/a.B/{name}"), Box::new(Foreign) as Box<dyn MethodHandler + Send + Sync>));
        let mut server = ttrpc::Server::new().bind(address).unwrap().register_service(HashMap::from(methods));
        server.start().unwrap();
        Self(Some(server))
    }
}

impl Drop for ForeignServer {
    fn drop(&mut self) {
        if let Some(server) = self.0.take() {
            server.shutdown();
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_crates_server_serves_both_our_clients() {
    let folder = tempfile::tempdir().unwrap();
    let path = Arc::new(folder.path().join("s"));
    let _server = ForeignServer::start(&format!("unix://{}", path.display()));

    let client = Client::connect(&path).await.unwrap().with_metadata(Metadata::for_namespace("moby"));
    for size in [0, 1, 100_000, 4_000_000] {
        let answer = client.call_raw("a.B", "Echo", vec![7; size], Some(PLENTY)).await.unwrap();
        assert_eq!(answer, vec![7; size]);
    }
    let error = client.call_raw("a.B", "Fail", vec![], Some(PLENTY)).await.unwrap_err();
    assert!(matches!(&error, Error::Status(status) if status.code == Code::FailedPrecondition), "{error}");

    let blocking = tokio::task::spawn_blocking(move || {
        let client = berth_ttrpc::client::Client::connect(&path).unwrap();
        client.with_metadata(Metadata::for_namespace("moby")).call_raw("a.B", "Namespace", vec![], PLENTY)
    });
    assert_eq!(blocking.await.unwrap().unwrap(), b"moby");
}
