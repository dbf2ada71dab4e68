//! `Streaming` and `Transfer` on the wire: what containerd's clients do with them.

use berth_proto as proto;
use berth_types::LeaseId;
use proto::containerd::services::leases::v1::leases_client::LeasesClient;
use proto::containerd::services::leases::v1::{CreateRequest, DeleteRequest};
use proto::containerd::services::streaming::v1::StreamInit;
use proto::containerd::services::streaming::v1::streaming_client::StreamingClient;
use proto::containerd::services::transfer::v1::transfer_client::TransferClient;
use proto::containerd::services::transfer::v1::{TransferOptions, TransferRequest};
use proto::containerd::types::transfer as wire;
use proto::convert::{any, from_any, pack, unpack};
use proto::prost::Name;
use proto::prost_types::Any;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Request, Status, Streaming};

use crate::moved::EXPORTED;
use crate::served::{Served, within};

fn packed<M: Name>(message: &M) -> Any {
    any(pack(message))
}

/// A client's end of a stream.
struct Open {
    outgoing: mpsc::Sender<Any>,
    incoming: Streaming<Any>,
}

impl Open {
    async fn begin(served: &Served, id: &str) -> Result<Self, Status> {
        Self::within(served, id, |_| {}).await
    }

    async fn within(
        served: &Served,
        id: &str,
        change: impl FnOnce(&mut Request<ReceiverStream<Any>>),
    ) -> Result<Self, Status> {
        let (outgoing, messages) = mpsc::channel(64);
        outgoing.send(packed(&StreamInit { id: id.into() })).await.unwrap();
        let mut request = within(ReceiverStream::new(messages));
        change(&mut request);
        let mut incoming = StreamingClient::new(served.channel()).stream(request).await?.into_inner();
        let known = incoming.message().await?.expect("a stream is acknowledged");
        assert_eq!(known.type_url, "google.protobuf.Empty");
        Ok(Self { outgoing, incoming })
    }

    async fn say<M: Name>(&self, message: &M) {
        // A daemon that has what it wants takes no more.
        let _ = self.outgoing.send(packed(message)).await;
    }

    async fn hear<M: Name + Default>(&mut self) -> Option<M> {
        let message = self.incoming.message().await.unwrap()?;
        Some(unpack(&from_any(message)).unwrap())
    }
}

fn store(name: &str) -> Any {
    packed(&wire::ImageStore { name: name.into(), ..Default::default() })
}

fn registry(auth_stream: &str) -> Any {
    let resolver = wire::RegistryResolver {
        auth_stream: auth_stream.into(),
        headers: [("K".to_owned(), "v".to_owned())].into(),
        host_dir: "/hosts".into(),
        default_scheme: "http".into(),
        ..Default::default()
    };
    packed(&wire::OciRegistry { reference: "reg.test/a:1".into(), resolver: Some(resolver) })
}

async fn transfer(served: &Served, from: Any, to: Any, progress: &str) -> Result<(), Status> {
    let request = TransferRequest {
        source: Some(from),
        destination: Some(to),
        options: Some(TransferOptions { progress_stream: progress.into() }),
    };
    TransferClient::new(served.channel()).transfer(within(request)).await.map(|_| ())
}

fn importing(stream: &str) -> Any {
    packed(&wire::ImageImportStream { stream: stream.into(), ..Default::default() })
}

fn exporting(stream: &str) -> Any {
    packed(&wire::ImageExportStream {
        stream: stream.into(),
        all_platforms: true,
        skip_non_distributable: true,
        ..Default::default()
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_waits_under_its_name_and_namespace_and_is_taken_once() {
    let served = Served::start();
    let _open = Open::begin(&served, "s").await.unwrap();
    let again = Open::begin(&served, "s").await.map(drop).unwrap_err();
    assert_eq!(again.code(), Code::AlreadyExists);
    let other = Open::within(&served, "s", |request| {
        request.metadata_mut().insert("containerd-namespace", "other".parse().unwrap());
    });
    let _other = other.await.unwrap();
    let absent = transfer(&served, importing("absent"), store("a"), "").await.unwrap_err();
    assert_eq!(absent.code(), Code::NotFound);
    let absent = transfer(&served, store("a"), store("b"), "absent").await.unwrap_err();
    assert_eq!(absent.code(), Code::NotFound);
    // This one takes it, whatever comes of it.
    transfer(&served, importing("s"), registry(""), "").await.unwrap_err();
    let taken = transfer(&served, importing("s"), store("a"), "").await.unwrap_err();
    assert_eq!(taken.code(), Code::NotFound);
    Open::begin(&served, "s").await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_goes_with_its_client_and_with_its_lease() {
    let served = Served::start();
    drop(Open::begin(&served, "s").await.unwrap());
    // That its client has gone is noticed soon, and then the name is free.
    let mut open = loop {
        match Open::begin(&served, "s").await {
            Ok(open) => break open,
            Err(status) => assert_eq!(status.code(), Code::AlreadyExists, "{status}"),
        }
    };
    let mut leases = LeasesClient::new(served.channel());
    let lease: LeaseId = "l1".parse().unwrap();
    leases.create(within(CreateRequest { id: lease.to_string(), ..Default::default() })).await.unwrap();
    let leased = Open::within(&served, "leased", |request| {
        request.metadata_mut().insert("containerd-lease", "l1".parse().unwrap());
    });
    let mut leased = leased.await.unwrap();
    leases.delete(within(DeleteRequest { id: lease.to_string(), sync: false })).await.unwrap();
    assert!(leased.incoming.message().await.unwrap().is_none(), "it ends with its lease");
    // The other one is still there for its call.
    let moved = tokio::spawn({
        let (from, to) = (importing("s"), store("a"));
        let channel = served.channel();
        async move {
            let request = TransferRequest { source: Some(from), destination: Some(to), options: None };
            TransferClient::new(channel).transfer(within(request)).await
        }
    });
    assert!(open.hear::<wire::WindowUpdate>().await.is_some());
    drop(open.outgoing);
    moved.await.unwrap().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_archive_comes_in_pieces_as_the_daemon_allows_them() {
    let served = Served::start();
    let mut open = Open::begin(&served, "in").await.unwrap();
    let mut steps = Open::begin(&served, "steps").await.unwrap();
    let bytes: Vec<u8> = (0..3_000_000_usize).map(|at| (at % 241) as u8).collect();
    let sending = async {
        let (mut allowed, mut sent) = (0_usize, 0);
        while sent < bytes.len() {
            while allowed == 0 {
                let update = open.hear::<wire::WindowUpdate>().await.unwrap().update;
                allowed += usize::try_from(update).unwrap();
            }
            let length = allowed.min(32 << 10).min(bytes.len() - sent);
            let data = bytes[sent..sent + length].to_vec().into();
            open.say(&wire::Data { data }).await;
            sent += length;
            allowed -= length;
        }
        drop(open.outgoing);
        // Without it the daemon would see a client that has gone.
        open.incoming
    };
    let moving = transfer(&served, importing("in"), store("a"), "steps");
    let (moved, _) = tokio::join!(moving, sending);
    moved.unwrap();
    assert!(*served.stores.moved.imported.lock().unwrap() == bytes, "the bytes are the same");
    let step: wire::Progress = steps.hear().await.unwrap();
    assert_eq!((step.event.as_str(), step.progress, &step.parents[..]), ("read", 7, &["p".to_owned()][..]));
    assert!(steps.hear::<wire::Progress>().await.is_none(), "the steps end with the transfer");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_nobody_reads_is_not_asked_for() {
    let served = Served::start();
    let mut open = Open::begin(&served, "in").await.unwrap();
    let sending = async {
        let first = open.hear::<wire::WindowUpdate>().await.unwrap().update;
        let first = usize::try_from(first).unwrap();
        // One update for the first bytes that arrive, and no more while nobody reads what has come.
        for _ in 0..2 {
            open.say(&wire::Data { data: vec![0; first / 2].into() }).await;
        }
        let mut allowed = usize::try_from(open.hear::<wire::WindowUpdate>().await.unwrap().update).unwrap();
        let mut sent = first;
        while sent < 8 << 20 {
            if allowed == 0 {
                served.stores.moved.may_read.notify_one();
                allowed += usize::try_from(open.hear::<wire::WindowUpdate>().await.unwrap().update).unwrap();
            }
            assert!(allowed <= 1 << 20, "{allowed} bytes at once");
            let length = allowed.min(32 << 10);
            open.say(&wire::Data { data: vec![0; length].into() }).await;
            (sent, allowed) = (sent + length, allowed - length);
        }
        drop(open.outgoing);
        (sent, open.incoming)
    };
    let (moved, (sent, _)) = tokio::join!(transfer(&served, importing("in"), store("slow"), ""), sending);
    moved.unwrap();
    assert_eq!(served.stores.moved.imported.lock().unwrap().len(), sent);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_archive_goes_out_in_pieces_as_the_client_allows_them() {
    let served = Served::start();
    let mut open = Open::begin(&served, "out").await.unwrap();
    let window = 50_000_i32;
    let taking = async {
        let (mut allowed, mut bytes) = (0, Vec::new());
        loop {
            if allowed < window {
                open.say(&wire::WindowUpdate { update: window }).await;
                allowed += window;
            }
            let Some(wire::Data { data }) = open.hear().await else { break };
            allowed -= i32::try_from(data.len()).unwrap();
            assert!(allowed >= 0, "more than was allowed");
            assert!(data.len() <= 32 << 10);
            bytes.extend_from_slice(&data);
        }
        bytes
    };
    let (moved, bytes) = tokio::join!(transfer(&served, store("a"), exporting("out"), ""), taking);
    moved.unwrap();
    assert!(bytes.len() == EXPORTED && bytes.iter().enumerate().all(|(at, byte)| *byte == (at % 251) as u8));
    let asked = served.stores.moved.asked.lock().unwrap()[0].clone();
    assert!(asked.contains("All([])") && asked.ends_with("false, true)"), "{asked}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_transfer_is_told_when_its_client_has_gone() {
    let served = Served::start();
    let (waiting, ended) = (&served.stores.moved.waiting, &served.stores.moved.ended);
    {
        let call = transfer(&served, registry(""), store("waits"), "");
        let mut count = waiting.subscribe();
        tokio::select! {
            _ = call => panic!("it waits"),
            _ = count.wait_for(|count| *count == 1) => {}
        }
    }
    ended.subscribe().wait_for(|count| *count == 1).await.unwrap();

    // A stream that breaks in the middle breaks the transfer.
    let mut open = Open::begin(&served, "in").await.unwrap();
    let breaking = async {
        open.hear::<wire::WindowUpdate>().await.unwrap();
        open.say(&StreamInit { id: "no data".into() }).await;
    };
    let (moved, ()) = tokio::join!(transfer(&served, importing("in"), store("a"), ""), breaking);
    assert!(moved.is_err());
    ended.subscribe().wait_for(|count| *count == 2).await.unwrap();
    let out = Open::begin(&served, "out").await.unwrap();
    let going = async { drop(out) };
    let (moved, ()) = tokio::join!(transfer(&served, store("a"), exporting("out"), ""), going);
    moved.unwrap_err();
}

#[tokio::test(flavor = "multi_thread")]
async fn credentials_are_asked_for_over_a_stream() {
    let served = Served::start();
    let mut auth = Open::begin(&served, "auth").await.unwrap();
    let mut steps = Open::begin(&served, "steps").await.unwrap();
    let answering = async {
        let question: wire::AuthRequest = auth.hear().await.unwrap();
        assert_eq!((question.host.as_str(), question.reference.as_str()), ("reg.test", "reg.test/a:1"));
        let (auth_type, username, secret) = (wire::AuthType::Credentials as i32, "u".into(), "p".into());
        auth.say(&wire::AuthResponse { auth_type, username, secret, expire_at: None }).await;
    };
    let (moved, ()) = tokio::join!(transfer(&served, registry("auth"), store("a"), "steps"), answering);
    moved.unwrap();
    for event in ["first", "last"] {
        assert_eq!(steps.hear::<wire::Progress>().await.unwrap().event, event);
    }
    let asked = served.stores.moved.asked.lock().unwrap().clone();
    assert_eq!(asked, [r#"("reg.test/a:1", [("K", "v")], ["/hosts"], true)"#, r#""u p""#]);
    // A client that goes without a word has none.
    let auth = Open::begin(&served, "auth").await.unwrap();
    let (moved, ()) =
        tokio::join!(transfer(&served, registry("auth"), store("a"), ""), async { drop(auth.outgoing) });
    moved.unwrap();
    assert_eq!(served.stores.moved.asked.lock().unwrap().last().unwrap(), r#""nobody""#);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_comes_too_late_is_not_taken_for_that_about_another_host() {
    let served = Served::start();
    let mut auth = Open::begin(&served, "auth").await.unwrap();
    let answering = async {
        let question: wire::AuthRequest = auth.hear().await.unwrap();
        assert_eq!(question.host, "other.test");
        let (auth_type, username, secret) = (wire::AuthType::Credentials as i32, "u".into(), "p".into());
        auth.say(&wire::AuthResponse { auth_type, username, secret, expire_at: None }).await;
    };
    let (moved, ()) = tokio::join!(transfer(&served, registry("auth"), store("hasty"), ""), answering);
    assert_eq!(moved.unwrap_err().code(), Code::Unavailable);
}

/// What a client reads of a stream of bytes, as it allows them.
async fn read_all(open: &mut Open, window: i32) -> String {
    let (mut allowed, mut bytes) = (0, Vec::new());
    loop {
        if allowed < window {
            open.say(&wire::WindowUpdate { update: window }).await;
            allowed += window;
        }
        let Some(wire::Data { data }) = open.hear().await else { break };
        allowed -= i32::try_from(data.len()).unwrap();
        bytes.extend_from_slice(&data);
    }
    String::from_utf8(bytes).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_goes_to_and_fro_is_read_over_a_stream_and_holds_nobody_up() {
    let served = Served::start();
    let registry = |http_debug: wire::HttpDebug, logs_stream: &str| {
        let (http_debug, logs_stream) = (http_debug as i32, logs_stream.into());
        let resolver = wire::RegistryResolver { http_debug, logs_stream, ..Default::default() };
        packed(&wire::OciRegistry { reference: "reg.test/a:1".into(), resolver: Some(resolver) })
    };
    let details = [
        (wire::HttpDebug::Debug, "Messages"),
        (wire::HttpDebug::Trace, "Connections"),
        (wire::HttpDebug::Both, "Everything"),
    ];
    for (debug, detail) in details {
        let mut open = Open::begin(&served, "logs").await.unwrap();
        let pull = transfer(&served, registry(debug, "logs"), store("a"), "");
        let (moved, read) = tokio::join!(pull, read_all(&mut open, 10));
        moved.unwrap();
        assert_eq!(read, format!("{detail} 0\r\n{detail} 1\r\n{detail} 2\r\n"));
    }
    // Without a stream it is in the daemon's log; without a wish it is nowhere.
    for debug in [wire::HttpDebug::Both, wire::HttpDebug::Disabled] {
        transfer(&served, registry(debug, ""), store("a"), "").await.unwrap();
    }
    let absent = transfer(&served, registry(wire::HttpDebug::Both, "absent"), store("a"), "").await;
    assert_eq!(absent.unwrap_err().code(), Code::NotFound);
    // A client that has gone or that reads nothing is not waited for.
    let gone = Open::begin(&served, "logs").await.unwrap();
    let pull = transfer(&served, registry(wire::HttpDebug::Both, "logs"), store("a"), "");
    let (moved, ()) = tokio::join!(pull, async { drop(gone) });
    // It may have gone before it was looked for.
    assert!(moved.is_ok() || moved.is_err_and(|error| error.code() == Code::NotFound));
    let _deaf = Open::begin(&served, "logs").await.unwrap();
    transfer(&served, registry(wire::HttpDebug::Both, "logs"), store("a"), "").await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn source_and_destination_say_what_is_done() {
    let served = Served::start();
    let references = wire::ImageStore {
        extra_references: vec![
            wire::ImageReference { name: "x:1".into(), ..Default::default() },
            wire::ImageReference {
                name: "x".into(),
                is_prefix: true,
                allow_overwrite: true,
                add_digest: true,
                skip_named_digest: true,
            },
        ],
        ..Default::default()
    };
    transfer(&served, store("a"), packed(&references), "").await.unwrap();
    let asked = served.stores.moved.asked.lock().unwrap().pop().unwrap();
    assert!(asked.contains(r#"Exact("x:1")"#) && asked.contains("Taken, digests: Unnamed"), "{asked}");
    let error = transfer(&served, store("a"), registry(""), "").await.unwrap_err();
    assert_eq!((error.code(), error.message()), (Code::Unauthenticated, "who are you?"));

    let path = || packed(&wire::ContainerPath { container_id: "c".into(), ..Default::default() });
    for (from, to) in [(path(), path()), (store("a"), path()), (registry(""), registry(""))] {
        let text = format!("method Transfer not implemented for {} to {}", from.type_url, to.type_url);
        let error = transfer(&served, from, to, "").await.unwrap_err();
        assert_eq!((error.code(), error.message()), (Code::Unimplemented, text.as_str()));
    }
    let nonsense = Any { type_url: "nobody.knows.This".into(), value: Vec::new() };
    let error = transfer(&served, nonsense, store("a"), "").await.unwrap_err();
    assert_eq!(error.code(), Code::NotFound);
    assert!(error.message().starts_with("type with url nobody.knows.This"), "{error}");
    let broken = Any { value: vec![0xff], ..store("a") };
    assert_eq!(transfer(&served, broken, store("a"), "").await.unwrap_err().code(), Code::InvalidArgument);
}

#[tokio::test(flavor = "multi_thread")]
async fn bytes_from_stream_to_stream_come_back() {
    let served = Served::start();
    let mut from = Open::begin(&served, "in").await.unwrap();
    let mut to = Open::begin(&served, "out").await.unwrap();
    let client = async {
        from.hear::<wire::WindowUpdate>().await.unwrap();
        from.say(&wire::Data { data: b"hello"[..].into() }).await;
        drop(from.outgoing);
        to.say(&wire::WindowUpdate { update: 100 }).await;
        let mut bytes = Vec::new();
        while let Some(wire::Data { data }) = to.hear().await {
            bytes.extend_from_slice(&data);
            to.say(&wire::WindowUpdate { update: 100 }).await;
        }
        bytes
    };
    let (moved, bytes) = tokio::join!(transfer(&served, importing("in"), exporting("out"), ""), client);
    moved.unwrap();
    assert_eq!(bytes, b"hello");
}
