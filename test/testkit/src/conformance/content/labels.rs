//! Labels of blobs.

use berth_types::filter::Filters;
use berth_types::{ErrorKind, FieldMask, Labels};
use bytes::Bytes;

use super::{Fixture, refused, rooted, sha256};

const ROOT: &str = "containerd.io/gc.root";

fn labels(pairs: &[(&str, &str)]) -> Labels {
    pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
}

pub(super) async fn labels_come_with_the_commit(fixture: Fixture) {
    let mut ingest = fixture.writer("labelled").await.unwrap();
    ingest.write(0, Bytes::from_static(b"labelled")).await.unwrap();
    let mut request = rooted(Some(sha256(b"labelled")));
    request.labels.insert("a".to_owned(), "1".to_owned());
    let digest = ingest.commit(request).await.unwrap();
    let info = fixture.content.info(&digest).await.unwrap();
    assert_eq!(info.labels, labels(&[("a", "1"), (ROOT, "true")]));
    assert!(info.created_at > std::time::SystemTime::UNIX_EPOCH);
}

pub(super) async fn only_labels_change(fixture: Fixture) {
    let digest = fixture.blob(b"to be labelled").await;
    let update = async |pairs: &[(&str, &str)], mask: &[&str]| {
        let mask = FieldMask::new(mask.iter().copied());
        fixture.content.update(&digest, labels(pairs), &mask).await
    };
    let before = fixture.content.info(&digest).await.unwrap();
    let info =
        update(&[("a", "1"), ("b.c/d", "2"), ("ignored", "3")], &["labels.a", "labels.b.c/d"]).await.unwrap();
    assert_eq!(info.labels, labels(&[("a", "1"), ("b.c/d", "2"), (ROOT, "true")]));
    assert_eq!((info.size, info.created_at), (before.size, before.created_at));
    assert!(info.updated_at >= before.updated_at);
    let info = update(&[], &["labels.a"]).await.unwrap();
    assert_eq!(info.labels, labels(&[("b.c/d", "2"), (ROOT, "true")]));
    let info = update(&[(ROOT, "true"), ("x", "y")], &["labels"]).await.unwrap();
    assert_eq!(info.labels, labels(&[(ROOT, "true"), ("x", "y")]));
    let info = update(&[(ROOT, "true")], &[]).await.unwrap();
    assert_eq!(info.labels, labels(&[(ROOT, "true")]));
    assert_eq!(fixture.content.info(&digest).await.unwrap().labels, info.labels);

    refused(update(&[], &["size"]).await, ErrorKind::InvalidArgument);
    let nowhere = fixture.content.update(&sha256(b"nowhere"), Labels::new(), &FieldMask::all()).await;
    refused(nowhere, ErrorKind::NotFound);
}

pub(super) async fn filters_choose_by_label(fixture: Fixture) {
    let first = fixture.blob(b"first").await;
    let second = fixture.blob(b"second").await;
    let mask = FieldMask::new(["labels.kind"]);
    fixture.content.update(&first, labels(&[("kind", "manifest")]), &mask).await.unwrap();
    let list = async |filter: &str| {
        let found = fixture.content.list(&Filters::parse(&[filter]).unwrap()).await.unwrap();
        found.into_iter().map(|info| info.digest).collect::<Vec<_>>()
    };
    assert_eq!(list("labels.kind==manifest").await, std::slice::from_ref(&first));
    assert_eq!(list("labels.kind").await, [first]);
    assert_eq!(list("labels.kind!=manifest").await, [second]);
}

pub(super) async fn labels_are_limited(fixture: Fixture) {
    let digest = fixture.blob(b"to be labelled too much").await;
    let mask = FieldMask::new(["labels.long"]);
    let fits = "x".repeat(4096 - "long".len());
    fixture.content.update(&digest, labels(&[("long", &fits)]), &mask).await.unwrap();
    let over = format!("{fits}x");
    let refusal = fixture.content.update(&digest, labels(&[("long", &over)]), &mask).await;
    refused(refusal, ErrorKind::InvalidArgument);
    assert_eq!(fixture.content.info(&digest).await.unwrap().labels["long"], fits);
}

pub(super) async fn there_are_none(fixture: Fixture) {
    let digest = fixture.blob(b"bare").await;
    assert!(fixture.content.info(&digest).await.unwrap().labels.is_empty());
    let update = fixture.content.update(&digest, labels(&[("a", "1")]), &FieldMask::all()).await;
    refused(update, ErrorKind::FailedPrecondition);
}
