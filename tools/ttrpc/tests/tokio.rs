//! The asynchronous client and server with one another.

#![expect(clippy::unwrap_used, reason = "a test may")]

use std::sync::Arc;
use std::time::Duration;

use berth_ttrpc::tokio::{Client, Handler, Server};
use berth_ttrpc::{Code, Error, Metadata, Status};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{Notify, oneshot};
use tokio::task::JoinHandle;

const PLENTY: Option<Duration> = Some(Duration::from_secs(20));

/// Answers `echo` at once, `wait` when told, anything else never heard of.
struct Desk {
    bell: Arc<Notify>,
}

impl Handler for Desk {
    async fn call(
        &self,
        _: &str,
        method: &str,
        metadata: Metadata,
        payload: Vec<u8>,
    ) -> Result<Vec<u8>, Status> {
        match method {
            "echo" => Ok(payload),
            "namespace" => Ok(metadata.namespace().unwrap_or_default().into()),
            "wait" => {
                self.bell.notified().await;
                Ok(payload)
            }
            other => Err(Status::new(Code::Unimplemented, format!("method {other}"))),
        }
    }
}

struct Fixture {
    folder: tempfile::TempDir,
    bell: Arc<Notify>,
    stop: oneshot::Sender<()>,
    server: JoinHandle<()>,
}

impl Fixture {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let bell = Arc::new(Notify::new());
        let listener = UnixListener::bind(folder.path().join("s")).unwrap();
        let (stop, stopped) = oneshot::channel::<()>();
        let server = Server::new(Desk { bell: bell.clone() });
        let server = tokio::spawn(server.serve(listener, async { stopped.await.unwrap_or(()) }));
        Self { folder, bell, stop, server }
    }

    async fn client(&self) -> Client {
        Client::connect(&self.folder.path().join("s")).await.unwrap()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_calls_share_a_connection_and_none_mixes_with_another() {
    let fixture = Fixture::new();
    let client = fixture.client().await;
    let mut calls = tokio::task::JoinSet::new();
    for number in 0..500_u32 {
        let client = client.clone();
        calls.spawn(async move {
            let payload = number.to_be_bytes().repeat(1 + number as usize);
            let answer = client.call_raw("s", "echo", payload.clone(), PLENTY).await.unwrap();
            assert_eq!(answer, payload);
        });
    }
    while let Some(result) = calls.join_next().await {
        result.unwrap();
    }
}

#[tokio::test]
async fn a_deadline_and_a_cancellation_leave_the_connection_whole() {
    let fixture = Fixture::new();
    let client = fixture.client().await;
    let error = client.call_raw("s", "wait", vec![1], Some(Duration::from_millis(10))).await.unwrap_err();
    assert!(matches!(error, Error::Timeout), "{error}");
    for size in [10, 3 << 20] {
        let call = client.call_raw("s", "wait", vec![0; size], None);
        assert!(tokio::time::timeout(Duration::from_millis(10), call).await.is_err());
        assert_eq!(client.call_raw("s", "echo", vec![2], PLENTY).await.unwrap(), [2]);
    }
    assert!(!client.is_closed());
    fixture.bell.notify_waiters();
}

#[tokio::test]
async fn the_headers_of_a_client_go_with_its_calls_alone() {
    let fixture = Fixture::new();
    let plain = fixture.client().await;
    let named = plain.with_metadata(Metadata::for_namespace("k8s.io"));
    assert_eq!(named.call_raw("s", "namespace", vec![], PLENTY).await.unwrap(), b"k8s.io");
    assert_eq!(plain.call_raw("s", "namespace", vec![], PLENTY).await.unwrap(), b"");
}

#[tokio::test]
async fn the_end_of_the_server_reaches_every_waiter() {
    let (client, server) = UnixStream::pair().unwrap();
    let client = Client::from_stream(client);
    let waiting = tokio::spawn({
        let client = client.clone();
        async move { client.call_raw("s", "wait", vec![], None).await }
    });
    // The request has arrived, so the call is in flight when the server goes.
    server.readable().await.unwrap();
    drop(server);
    assert!(matches!(waiting.await.unwrap(), Err(Error::Closed)));
    client.closed().await;
    assert!(matches!(client.call_raw("s", "echo", vec![], None).await, Err(Error::Closed)));
}

#[tokio::test]
async fn the_last_client_closes_the_connection() {
    let (client, server) = UnixStream::pair().unwrap();
    let client = Client::from_stream(client);
    drop(client.clone());
    assert!(!client.is_closed());
    drop(client);
    server.readable().await.unwrap();
    assert_eq!(server.try_read(&mut [0; 1]).unwrap(), 0);
}

#[tokio::test]
async fn a_shutdown_answers_what_is_under_way_and_takes_nothing_new() {
    let fixture = Fixture::new();
    let client = fixture.client().await;
    let waiting = tokio::spawn({
        let client = client.clone();
        async move { client.call_raw("s", "wait", vec![7], PLENTY).await }
    });
    // An answered echo proves that the call before it was taken.
    tokio::task::yield_now().await;
    client.call_raw("s", "echo", vec![], PLENTY).await.unwrap();
    fixture.stop.send(()).unwrap();
    fixture.bell.notify_one();
    assert_eq!(waiting.await.unwrap().unwrap(), [7]);
    fixture.server.await.unwrap();
    client.closed().await;
}

#[tokio::test]
async fn an_answer_too_long_fails_its_call_only() {
    let fixture = Fixture::new();
    let client = fixture.client().await;
    let limit = berth_ttrpc::frame::MAX_DATA;
    let error = client.call_raw("s", "echo", vec![0; limit], PLENTY).await.unwrap_err();
    assert!(matches!(&error, Error::Status(status) if status.code == Code::ResourceExhausted), "{error}");
    assert_eq!(client.call_raw("s", "echo", vec![5], PLENTY).await.unwrap(), [5]);
}
