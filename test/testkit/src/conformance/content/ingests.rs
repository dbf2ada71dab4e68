//! Ingests.

use std::path::Path;
use std::sync::Arc;

use berth_core::{ContentStore, Ingest, IngestRequest, read_blob};
use berth_types::filter::Filters;
use berth_types::{ErrorKind, IngestStatus};
use bytes::Bytes;

use super::{Fixture, WithSize, reference_of, refused, rooted, sha256};
use crate::Scratch;

/// A writer for an ingest whose last writer has just been dropped: over a wire that takes a
/// moment to arrive.
async fn take_up(content: &Arc<dyn ContentStore>, reference: &str) -> Box<dyn Ingest> {
    let deadline = tokio::time::Instant::now() + crate::wait::SOON;
    loop {
        match content.writer(IngestRequest::new(reference_of(reference))).await {
            Ok(ingest) => return ingest,
            Err(error) if error.kind() == ErrorKind::Unavailable => {
                assert!(tokio::time::Instant::now() < deadline, "{}", error.chain());
                tokio::time::sleep(std::time::Duration::from_millis(5)).await;
            }
            Err(error) => panic!("{}", error.chain()),
        }
    }
}

/// Where an ingest is once it has `size` bytes: through a channel they may still be on their way.
async fn grown(content: &Arc<dyn ContentStore>, reference: &str, size: u64) -> IngestStatus {
    let deadline = tokio::time::Instant::now() + crate::wait::SOON / 6;
    loop {
        let status = content.ingest(&reference_of(reference)).await.unwrap();
        if status.offset >= size || tokio::time::Instant::now() > deadline {
            return status;
        }
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
}

pub(super) async fn an_ingest_goes_on_where_it_stopped(fixture: Fixture) {
    let data = b"the first half, and the second";
    let mut ingest = fixture.expecting("halves", data).await.unwrap();
    ingest.write(0, Bytes::from_static(&data[..14])).await.unwrap();
    drop(ingest);
    let status = grown(&fixture.content, "halves", 14).await;
    assert_eq!((status.offset, status.total), (14, data.len() as u64));
    assert!(status.updated_at >= status.started_at);

    let mut ingest = take_up(&fixture.content, "halves").await;
    assert_eq!(ingest.status().await.unwrap().offset, 14);
    ingest.write(14, Bytes::from_static(&data[14..])).await.unwrap();
    let digest = ingest.commit(rooted(Some(sha256(data))).with_size(data)).await.unwrap();
    assert_eq!(read_blob(&*fixture.content, &digest, 4096).await.unwrap(), data);
}

pub(super) async fn one_writes_at_a_time(fixture: Fixture) {
    let mut ingest = fixture.writer("mine").await.unwrap();
    ingest.write(0, Bytes::from_static(b"mine")).await.unwrap();
    refused(fixture.writer("mine").await, ErrorKind::Unavailable);
    let other = fixture.writer("yours").await.unwrap();
    assert_eq!(other.status().await.unwrap().offset, 0);
    drop(ingest);
    let ingest = take_up(&fixture.content, "mine").await;
    assert_eq!(ingest.status().await.unwrap().offset, 4);
}

pub(super) async fn bytes_only_go_to_the_end(fixture: Fixture) {
    let mut ingest = fixture.writer("end").await.unwrap();
    ingest.write(0, Bytes::from_static(b"0123456789")).await.unwrap();
    refused(ingest.write(11, Bytes::from_static(b"gap")).await, ErrorKind::OutOfRange);
    assert_eq!(grown(&fixture.content, "end", 10).await.offset, 10);
}

pub(super) async fn an_ingest_can_begin_anew(fixture: Fixture) {
    let mut ingest = fixture.writer("anew").await.unwrap();
    ingest.write(0, Bytes::from_static(b"something longer than what comes after it")).await.unwrap();
    ingest.truncate(0).await.unwrap();
    assert_eq!(ingest.status().await.unwrap().offset, 0);
    ingest.write(0, Bytes::from_static(b"anew")).await.unwrap();
    let digest = ingest.commit(rooted(Some(sha256(b"anew"))).with_size(b"anew")).await.unwrap();
    assert_eq!(read_blob(&*fixture.content, &digest, 4096).await.unwrap(), b"anew");
}

pub(super) async fn an_aborted_ingest_is_gone(fixture: Fixture) {
    let mut ingest = fixture.writer("aborted").await.unwrap();
    ingest.write(0, Bytes::from_static(b"never mind")).await.unwrap();
    drop(ingest);
    // As long as it has a writer, it may not be taken away everywhere.
    drop(take_up(&fixture.content, "aborted").await);
    fixture.content.abort(&reference_of("aborted")).await.unwrap();
    refused(fixture.content.ingest(&reference_of("aborted")).await, ErrorKind::NotFound);
    refused(fixture.content.abort(&reference_of("aborted")).await, ErrorKind::NotFound);
    let ingest = take_up(&fixture.content, "aborted").await;
    assert_eq!(ingest.status().await.unwrap().offset, 0);
}

pub(super) async fn filters_choose_ingests(fixture: Fixture) {
    let mut kept = Vec::new();
    for name in ["layer-1", "layer-2", "manifest-1"] {
        kept.push(fixture.writer(name).await.unwrap());
    }
    let list = async |filters: &[&str]| {
        let found = fixture.content.ingests(&Filters::parse(filters).unwrap()).await.unwrap();
        let mut found: Vec<String> = found.into_iter().map(|status| status.reference.to_string()).collect();
        found.sort();
        found
    };
    assert_eq!(list(&[]).await, ["layer-1", "layer-2", "manifest-1"]);
    assert_eq!(list(&["ref==layer-2"]).await, ["layer-2"]);
    assert_eq!(list(&["ref~=/^layer/"]).await, ["layer-1", "layer-2"]);
}

pub(super) async fn a_committed_ingest_is_gone(fixture: Fixture) {
    let mut ingest = fixture.writer("done").await.unwrap();
    ingest.write(0, Bytes::from_static(b"done")).await.unwrap();
    ingest.commit(rooted(Some(sha256(b"done"))).with_size(b"done")).await.unwrap();
    refused(ingest.write(4, Bytes::from_static(b"more")).await, ErrorKind::FailedPrecondition);
    drop(ingest);
    refused(fixture.content.ingest(&reference_of("done")).await, ErrorKind::NotFound);
    let ingest = fixture.writer("done").await.unwrap();
    assert_eq!(ingest.status().await.unwrap().offset, 0);
}

pub(super) async fn everything_is_there_after_reopening(open: &impl Fn(&Path) -> Arc<dyn ContentStore>) {
    let scratch = Scratch::new();
    let root = scratch.path("root");
    let content = open(&root);
    let mut ingest = content.writer(IngestRequest::new(reference_of("blob"))).await.unwrap();
    ingest.write(0, Bytes::from_static(b"a blob")).await.unwrap();
    let digest = ingest.commit(rooted(Some(sha256(b"a blob")))).await.unwrap();
    drop(ingest);
    let mut half = content.writer(IngestRequest::new(reference_of("half"))).await.unwrap();
    half.write(0, Bytes::from_static(b"half of")).await.unwrap();
    drop(half);
    // What was dropped may still be on its way to the disk.
    drop(take_up(&content, "half").await);
    drop(content);

    let content = open(&root);
    assert_eq!(read_blob(&*content, &digest, 4096).await.unwrap(), b"a blob");
    let mut half = take_up(&content, "half").await;
    assert_eq!(half.status().await.unwrap().offset, 7);
    half.write(7, Bytes::from_static(b" it")).await.unwrap();
    half.commit(rooted(Some(sha256(b"half of it")))).await.unwrap();
}
