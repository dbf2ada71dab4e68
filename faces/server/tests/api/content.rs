//! `Content` on the wire: what a Go client counts on in each message.

use berth_proto as proto;
use proto::containerd::services::content::v1::content_client::ContentClient;
use proto::containerd::services::content::v1::{
    AbortRequest, Info, InfoRequest, ListContentRequest, ReadContentRequest, StatusRequest, UpdateRequest,
    WriteAction, WriteContentRequest, WriteContentResponse,
};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Channel;
use tonic::{Code, Status, Streaming};

use crate::served::{Served, within};

const HELLO: &str = "sha256:2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824";
const NOTHING: &str = "sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";

/// A write under way.
struct Writing {
    requests: mpsc::Sender<WriteContentRequest>,
    answers: Streaming<WriteContentResponse>,
}

impl Writing {
    async fn begin(client: &mut ContentClient<Channel>) -> Self {
        let (requests, stream) = mpsc::channel(4);
        let answers = client.write(within(ReceiverStream::new(stream))).await.unwrap().into_inner();
        Self { requests, answers }
    }

    async fn say(&mut self, request: WriteContentRequest) -> Result<WriteContentResponse, Status> {
        // A session that has failed reads no more.
        let _ = self.requests.send(request).await;
        self.answers.message().await.map(|answer| answer.expect("an answer to each request"))
    }
}

fn stat(reference: &str) -> WriteContentRequest {
    WriteContentRequest { r#ref: reference.into(), ..Default::default() }
}

fn write(offset: i64, data: &'static [u8]) -> WriteContentRequest {
    WriteContentRequest { action: WriteAction::Write as i32, offset, data: data.into(), ..Default::default() }
}

fn commit(offset: i64, total: i64, expected: &str) -> WriteContentRequest {
    let expected = expected.into();
    WriteContentRequest { action: WriteAction::Commit as i32, offset, total, expected, ..Default::default() }
}

async fn put(client: &mut ContentClient<Channel>, reference: &str, data: &'static [u8]) -> String {
    let mut writing = Writing::begin(client).await;
    writing.say(stat(reference)).await.unwrap();
    writing.say(write(0, data)).await.unwrap();
    writing.say(commit(data.len() as i64, 0, "")).await.unwrap().digest
}

#[tokio::test(flavor = "multi_thread")]
async fn a_write_is_resumed_where_it_stopped() {
    let served = Served::start();
    let mut client = ContentClient::new(served.channel());
    let mut first = Writing::begin(&mut client).await;
    let mut request = stat("r");
    request.total = 5;
    let answer = first.say(request).await.unwrap();
    assert_eq!((answer.offset, answer.total), (0, 5));
    assert!(answer.started_at.is_some());
    let answer = first.say(write(0, b"he")).await.unwrap();
    assert_eq!(answer.offset, 2);
    // A client that is killed says nothing.
    drop(first);

    let mut second = Writing::begin(&mut client).await;
    let answer = loop {
        match second.say(stat("r")).await {
            Ok(answer) => break answer,
            Err(status) => {
                assert_eq!(status.code(), Code::Unavailable, "{status}");
                second = Writing::begin(&mut client).await;
            }
        }
    };
    assert_eq!(answer.offset, 2);
    let status = client.status(within(StatusRequest { r#ref: "r".into() })).await.unwrap().into_inner();
    assert_eq!(status.status.unwrap().offset, 2);
    assert_eq!(second.say(write(2, b"llo")).await.unwrap().offset, 5);
    let answer = second.say(commit(5, 5, HELLO)).await.unwrap();
    assert_eq!((answer.digest.as_str(), answer.offset), (HELLO, 5));
    assert!(second.answers.message().await.unwrap().is_none(), "a commit ends the session");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_offset_is_the_end_or_the_beginning() {
    let served = Served::start();
    let mut client = ContentClient::new(served.channel());
    let mut writing = Writing::begin(&mut client).await;
    writing.say(stat("r")).await.unwrap();
    writing.say(write(0, b"wrong")).await.unwrap();
    // Zero begins anew, as when a client starts over.
    assert_eq!(writing.say(write(0, b"hello")).await.unwrap().offset, 5);
    let status = writing.say(write(3, b"x")).await.unwrap_err();
    assert_eq!(status.code(), Code::OutOfRange);
    assert_eq!(status.message(), "write @3 must occur at current offset 5");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_commit_must_find_is_checked() {
    let served = Served::start();
    let mut client = ContentClient::new(served.channel());
    for (reference, request) in [("size", commit(5, 4, "")), ("digest", commit(5, 5, NOTHING))] {
        let mut writing = Writing::begin(&mut client).await;
        writing.say(stat(reference)).await.unwrap();
        writing.say(write(0, b"hello")).await.unwrap();
        assert_eq!(writing.say(request).await.unwrap_err().code(), Code::FailedPrecondition);
        client.status(within(StatusRequest { r#ref: reference.into() })).await.expect("it stays an ingest");
        client.abort(within(AbortRequest { r#ref: reference.into() })).await.unwrap();
    }
    let status = client.abort(within(AbortRequest { r#ref: "size".into() })).await.unwrap_err();
    assert_eq!(status.code(), Code::NotFound);
}

#[tokio::test(flavor = "multi_thread")]
async fn content_that_is_there_needs_no_ingest() {
    let served = Served::start();
    let mut client = ContentClient::new(served.channel());
    assert_eq!(put(&mut client, "one", b"hello").await, HELLO);
    // Known from the first message.
    let mut writing = Writing::begin(&mut client).await;
    let request = WriteContentRequest { expected: HELLO.into(), ..stat("two") };
    assert_eq!(writing.say(request).await.unwrap_err().code(), Code::AlreadyExists);
    // Known only at the commit.
    let mut writing = Writing::begin(&mut client).await;
    writing.say(stat("three")).await.unwrap();
    writing.say(write(0, b"hello")).await.unwrap();
    let status = writing.say(commit(5, 5, HELLO)).await.unwrap_err();
    assert_eq!(status.code(), Code::AlreadyExists);
    assert!(status.message().contains("blob with expected digest"), "{status}");
    let status = client.status(within(StatusRequest { r#ref: "three".into() })).await.unwrap_err();
    assert_eq!(status.code(), Code::NotFound);
    assert!(status.message().starts_with("could not get status for ref \"three\""), "{status}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reference_has_one_writer_and_is_needed() {
    let served = Served::start();
    let mut client = ContentClient::new(served.channel());
    let mut nameless = Writing::begin(&mut client).await;
    assert_eq!(nameless.say(stat("")).await.unwrap_err().code(), Code::InvalidArgument);
    let mut first = Writing::begin(&mut client).await;
    first.say(stat("r")).await.unwrap();
    let mut second = Writing::begin(&mut client).await;
    assert_eq!(second.say(stat("r")).await.unwrap_err().code(), Code::Unavailable);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_part_is_read_with_offsets_that_count_from_it() {
    let served = Served::start();
    let mut client = ContentClient::new(served.channel());
    put(&mut client, "one", b"hello").await;
    let mut read = async |offset, size| {
        let request = ReadContentRequest { digest: HELLO.into(), offset, size };
        let mut stream = client.read(within(request)).await?.into_inner();
        let mut pieces = Vec::new();
        while let Some(piece) = stream.message().await? {
            pieces.push((piece.offset, String::from_utf8_lossy(&piece.data).into_owned()));
        }
        Ok::<_, Status>(pieces)
    };
    assert_eq!(read(0, 0).await.unwrap(), [(0, "hello".to_owned())]);
    assert_eq!(read(1, 3).await.unwrap(), [(0, "ell".to_owned())]);
    assert_eq!(read(3, 100).await.unwrap(), [(0, "lo".to_owned())]);
    assert_eq!(read(5, 0).await.unwrap(), []);
    assert_eq!(read(6, 0).await.unwrap_err().code(), Code::OutOfRange);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_long_list_comes_in_blocks() {
    let served = Served::start();
    let mut client = ContentClient::new(served.channel());
    let data: Vec<&'static [u8]> =
        (0..101_u8).map(|byte| &*Box::leak(vec![byte].into_boxed_slice())).collect();
    for (number, data) in data.into_iter().enumerate() {
        put(&mut client, &number.to_string(), data).await;
    }
    let request = within(ListContentRequest::default());
    let mut stream = client.list(request).await.unwrap().into_inner();
    let mut blocks = Vec::new();
    while let Some(block) = stream.message().await.unwrap() {
        blocks.push(block.info.len());
    }
    assert_eq!(blocks, [100, 1]);
}

#[tokio::test(flavor = "multi_thread")]
async fn labels_change_alone_and_bad_digests_are_refused() {
    let served = Served::start();
    let mut client = ContentClient::new(served.channel());
    put(&mut client, "one", b"hello").await;
    let info = Info {
        digest: HELLO.into(),
        labels: [("a".to_owned(), "b".to_owned())].into(),
        ..Default::default()
    };
    let mask = proto::prost_types::FieldMask { paths: vec!["labels.a".into()] };
    let request = UpdateRequest { info: Some(info), update_mask: Some(mask) };
    let updated = client.update(within(request)).await.unwrap().into_inner().info.unwrap();
    assert_eq!((updated.size, updated.labels["a"].as_str()), (5, "b"));
    for bad in ["", "sha256:", "sha256:ab", "x", "sha256:ä"] {
        let status = client.info(within(InfoRequest { digest: bad.into() })).await.unwrap_err();
        assert_eq!(status.code(), Code::InvalidArgument, "{bad}");
    }
    let status = client.info(within(InfoRequest { digest: NOTHING.into() })).await.unwrap_err();
    assert_eq!(status.code(), Code::NotFound);
}
