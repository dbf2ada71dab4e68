//! What the collector keeps, and what it takes.

#![expect(clippy::unwrap_used, reason = "what fails in a test has failed the test")]

mod common;

use std::time::Duration;

use berth_core::{Deletion, IngestRequest, NewSnapshot};
use berth_metadata::{GcConfig, Sharing};
use berth_types::filter::Filters;
use berth_types::{Digest, ErrorKind, FieldMask, Labels, LeaseResource};
use bytes::Bytes;
use common::objects::{digest, labels};
use common::{Store, open, open_with, scope};
use testkit::Scratch;

fn none() -> Labels {
    Labels::new()
}

fn sorted(digests: &[&str]) -> Vec<Digest> {
    let mut digests: Vec<Digest> = digests.iter().map(|text| digest(text)).collect();
    digests.sort();
    digests
}

#[tokio::test]
async fn what_nothing_refers_to_goes_from_the_records_and_the_backends() {
    let scratch = Scratch::new();
    let store = open(scratch.folder());
    let here = scope("here");
    store.blob(&here, "garbage", none()).await.unwrap();
    store.blob(&here, "root", labels(&[("containerd.io/gc.root", "now")])).await.unwrap();
    store.committed(&here, "base", "", none()).await;
    store.committed(&here, "middle", "base", none()).await;
    store.active(&here, "top", "middle", none()).await.unwrap();
    let done = store.metadata.collect().await.unwrap();
    assert_eq!((done.blobs, done.blobs_freed, done.bytes_freed), (1, 1, 7));
    assert_eq!((done.snapshots, done.snapshots_freed), (3, 3));
    assert_eq!(store.blobs(&here).await, [digest("root")]);
    assert_eq!(store.backends().await, (1, 0));
    let topics = store.events.topics(&here.namespace);
    assert_eq!(topics.iter().filter(|topic| *topic == "/snapshot/remove").count(), 3);
    let again = store.metadata.collect().await.unwrap();
    assert_eq!((again.blobs, again.blobs_freed, again.snapshots), (0, 0, 0));
}

#[tokio::test]
async fn an_image_keeps_what_it_refers_to() {
    let scratch = Scratch::new();
    let store = open(scratch.folder());
    let here = scope("here");
    let lease = store.lease(&here, "pull", none()).await;
    store.blob(&lease, "config", labels(&[("containerd.io/gc.ref.snapshot.native", "base")])).await.unwrap();
    store.blob(&lease, "layer", none()).await.unwrap();
    store.blob(&lease, "other", none()).await.unwrap();
    let references = labels(&[
        ("containerd.io/gc.ref.content.config", digest("config").as_str()),
        ("containerd.io/gc.ref.content.l.0", digest("layer").as_str()),
        ("containerd.io/gc.ref.content.l.1", digest("never fetched").as_str()),
    ]);
    store.blob(&lease, "manifest", references).await.unwrap();
    store.committed(&lease, "base", "", none()).await;
    store.metadata.collect().await.unwrap();
    assert_eq!(store.blobs(&here).await, sorted(&["config", "layer", "manifest", "other"]));

    store.image(&here, "image", &digest("manifest"), none()).await;
    store.metadata.leases(&here).delete(&"pull".parse().unwrap(), Deletion::Synchronous).await.unwrap();
    assert_eq!(store.blobs(&here).await, sorted(&["config", "layer", "manifest"]));
    assert_eq!(store.snapshot_names(&here).await, ["base"]);

    store
        .metadata
        .images(&here)
        .delete(&"image".parse().unwrap(), None, Deletion::Synchronous)
        .await
        .unwrap();
    assert!(store.blobs(&here).await.is_empty());
    assert_eq!(store.backends().await, (0, 0));
}

#[tokio::test]
async fn a_container_keeps_its_snapshot_and_what_is_beneath() {
    let scratch = Scratch::new();
    let store = open(scratch.folder());
    let here = scope("here");
    store.committed(&here, "base", "", none()).await;
    store.committed(&here, "middle", "base", none()).await;
    store.active(&here, "rootfs", "middle", none()).await.unwrap();
    store.active(&here, "other", "base", none()).await.unwrap();
    store.blob(&here, "checkpoint", none()).await.unwrap();
    let reference = labels(&[("containerd.io/gc.ref.content.checkpoint", digest("checkpoint").as_str())]);
    store.container(&here, "c", "rootfs", reference).await;
    store.metadata.collect().await.unwrap();
    assert_eq!(store.snapshot_names(&here).await, ["base", "middle", "rootfs"]);
    assert_eq!(store.blobs(&here).await, [digest("checkpoint")]);
    store.metadata.containers(&here).delete(&"c".parse().unwrap()).await.unwrap();
    store.metadata.collect().await.unwrap();
    assert_eq!(store.backends().await, (0, 0));
}

#[tokio::test]
async fn a_lease_holds_until_it_ends_or_expires() {
    let scratch = Scratch::new();
    let store = open(scratch.folder());
    let here = scope("here");
    let expired = labels(&[("containerd.io/gc.expire", "2020-01-01T00:00:00Z")]);
    let current = labels(&[("containerd.io/gc.expire", "2999-01-01T00:00:00Z")]);
    let expired = store.lease(&here, "expired", expired).await;
    let current = store.lease(&here, "current", current).await;
    store.blob(&expired, "by the expired", none()).await.unwrap();
    store.blob(&current, "by the current", none()).await.unwrap();
    let done = store.metadata.collect().await.unwrap();
    assert_eq!(done.leases, 1);
    assert_eq!(store.blobs(&here).await, [digest("by the current")]);
    let leases = store.metadata.leases(&here).list(&Filters::default()).await.unwrap();
    assert_eq!(leases.len(), 1);
    // What it holds can be taken from it and given to it.
    let leases = store.metadata.leases(&here);
    let id = "current".parse().unwrap();
    let [resource] = &leases.resources(&id).await.unwrap()[..] else { panic!("one resource") };
    assert_eq!(resource.kind, "content");
    leases.delete_resource(&id, resource.clone()).await.unwrap();
    store.metadata.collect().await.unwrap();
    assert_eq!(store.backends().await, (0, 0));
}

#[tokio::test]
async fn a_flat_lease_holds_things_alone() {
    let scratch = Scratch::new();
    let store = open(scratch.folder());
    let here = scope("here");
    let flat = store.lease(&here, "flat", labels(&[("containerd.io/gc.flat", "yes")])).await;
    store.blob(&here, "child", none()).await.unwrap();
    let reference = labels(&[("containerd.io/gc.ref.content.x", digest("child").as_str())]);
    store.blob(&flat, "parent", reference.clone()).await.unwrap();
    // Parents of snapshots are part of them.
    store.committed(&here, "base", "", none()).await;
    store.active(&flat, "top", "base", reference).await.unwrap();
    store.metadata.collect().await.unwrap();
    assert_eq!(store.blobs(&here).await, [digest("parent")]);
    assert_eq!(store.snapshot_names(&here).await, ["base", "top"]);
}

#[tokio::test]
async fn back_references_keep_what_has_them() {
    let scratch = Scratch::new();
    let store = open(scratch.folder());
    let here = scope("here");
    store.blob(&here, "target", none()).await.unwrap();
    store.image(&here, "image", &digest("target"), none()).await;
    store.blob(&here, "of the image", labels(&[("containerd.io/gc.bref.image", "image")])).await.unwrap();
    let by_content = [("containerd.io/gc.bref.content.x", digest("of the image").to_string())];
    store.blob(&here, "of the blob", labels(&by_content)).await.unwrap();
    store.blob(&here, "of nothing", labels(&[("containerd.io/gc.bref.image", "gone")])).await.unwrap();
    store.active(&here, "rootfs", "", labels(&[("containerd.io/gc.bref.container", "c")])).await.unwrap();
    store.container(&here, "c", "", none()).await;
    store.metadata.collect().await.unwrap();
    assert_eq!(store.blobs(&here).await, sorted(&["target", "of the image", "of the blob"]));
    assert_eq!(store.snapshot_names(&here).await, ["rootfs"]);
}

#[tokio::test]
async fn conditions_keep_snapshots_that_were_used() {
    let scratch = Scratch::new();
    let store = open(scratch.folder());
    let here = scope("here");
    store.blob(&here, "target", none()).await.unwrap();
    let conditions = labels(&[
        ("containerd.io/gc.cond.snapshot.native/1", "usedat<24h|recent"),
        ("containerd.io/gc.cond.snapshot.native/2", "usedat<24h|old"),
        ("containerd.io/gc.cond.snapshot.native/3", "usedat<24h|unused"),
    ]);
    store.image(&here, "image", &digest("target"), conditions).await;
    let now = jiff::Timestamp::now().to_string();
    for (name, used) in [("recent", now.as_str()), ("old", "2020-01-01T00:00:00Z")] {
        store.committed(&here, name, "", labels(&[("containerd.io/gc.cond.value-usedat", used)])).await;
    }
    store.committed(&here, "unused", "", none()).await;
    store.metadata.collect().await.unwrap();
    assert_eq!(store.snapshot_names(&here).await, ["recent"]);
}

#[tokio::test]
async fn an_expired_image_goes_unless_something_refers_to_it() {
    let scratch = Scratch::new();
    let store = open(scratch.folder());
    let here = scope("here");
    let expired = labels(&[("containerd.io/gc.expire", "2020-01-01T00:00:00Z")]);
    for name in ["kept", "gone"] {
        store.blob(&here, name, none()).await.unwrap();
        store.image(&here, name, &digest(name), expired.clone()).await;
    }
    store.container(&here, "c", "", labels(&[("containerd.io/gc.ref.image", "kept")])).await;
    let done = store.metadata.collect().await.unwrap();
    assert_eq!((done.images, done.blobs), (1, 1));
    assert_eq!(store.blobs(&here).await, [digest("kept")]);
    assert!(store.events.topics(&here.namespace).contains(&"/images/delete".to_owned()));
}

#[tokio::test]
async fn orphans_of_a_crash_go_with_the_first_collection() {
    let scratch = Scratch::new();
    // A new database over what is there already would keep it.
    open(scratch.folder()).metadata.close().await.unwrap();
    let store = open(scratch.folder());
    // What a daemon does that dies before it records anything.
    let mut ingest = store.content.writer(IngestRequest::new("x/1/orphan".parse().unwrap())).await.unwrap();
    ingest.write(0, Bytes::from_static(b"orphan")).await.unwrap();
    ingest.commit(Default::default()).await.unwrap();
    let mut half = store.content.writer(IngestRequest::new("x/2/half".parse().unwrap())).await.unwrap();
    half.write(0, Bytes::from_static(b"half")).await.unwrap();
    drop(half);
    let new = |key: &str, parent: Option<&str>| NewSnapshot {
        key: key.parse().unwrap(),
        parent: parent.map(|parent| parent.parse().unwrap()),
        labels: none(),
    };
    store.native.prepare(new("x/3/active", None)).await.unwrap();
    store.native.commit(&"x/4/base".parse().unwrap(), &"x/3/active".parse().unwrap(), none()).await.unwrap();
    store.native.prepare(new("x/5/top", Some("x/4/base"))).await.unwrap();

    let here = scope("here");
    store.blob(&here, "kept", labels(&[("containerd.io/gc.root", "now")])).await.unwrap();
    let done = store.metadata.collect().await.unwrap();
    assert_eq!((done.blobs_freed, done.snapshots_freed), (1, 2));
    assert_eq!(store.backends().await, (1, 0));
    assert!(store.content.ingests(&Filters::default()).await.unwrap().is_empty());
}

#[tokio::test]
async fn an_ingest_is_kept_for_a_day_whatever_its_lease_does() {
    let scratch = Scratch::new();
    let store = open(scratch.folder());
    let here = scope("here");
    let leased = store.lease(&here, "l", none()).await;
    for (scope, name) in [(&here, "free"), (&leased, "leased")] {
        let request = IngestRequest::new(name.parse().unwrap());
        let mut ingest = store.content(scope).writer(request).await.unwrap();
        ingest.write(0, Bytes::from_static(b"half")).await.unwrap();
    }
    let names = async || {
        let found = store.content(&here).ingests(&Filters::default()).await.unwrap();
        found.into_iter().map(|status| status.reference.to_string()).collect::<Vec<_>>()
    };
    store.metadata.collect().await.unwrap();
    assert_eq!(names().await, ["free", "leased"]);
    store.metadata.leases(&here).delete(&"l".parse().unwrap(), Deletion::Synchronous).await.unwrap();
    assert_eq!(names().await, ["free", "leased"], "a pull that failed can be taken up again");
    assert_eq!(store.content.ingests(&Filters::default()).await.unwrap().len(), 2);
}

async fn fetched_by_another(store: &Store) -> berth_types::Result<Digest> {
    let (here, there) = (scope("here"), scope("there"));
    let root = labels(&[("containerd.io/gc.root", "now")]);
    store.blob(&here, "shared", root.clone()).await.unwrap();
    // Without bringing any bytes.
    let request =
        IngestRequest { reference: "take".parse().unwrap(), total: 6, expected: Some(digest("shared")) };
    let mut ingest = store.content(&there).writer(request).await.unwrap();
    let commit = berth_core::CommitRequest { size: Some(6), expected: Some(digest("shared")), labels: root };
    ingest.commit(commit).await
}

#[tokio::test]
async fn shared_content_is_taken_by_naming_it_and_kept_for_each() {
    let scratch = Scratch::new();
    let store = open(scratch.folder());
    let (here, there) = (scope("here"), scope("there"));
    fetched_by_another(&store).await.unwrap();
    store.content(&here).delete(&digest("shared")).await.unwrap();
    store.metadata.collect().await.unwrap();
    assert_eq!(store.content(&here).info(&digest("shared")).await.unwrap_err().kind(), ErrorKind::NotFound);
    let reader = store.content(&there).reader(&digest("shared")).await.unwrap();
    assert_eq!(&reader.read_at(0, 10).await.unwrap()[..], b"shared");
    store.content(&there).delete(&digest("shared")).await.unwrap();
    store.metadata.collect().await.unwrap();
    assert_eq!(store.backends().await, (0, 0));
}

#[tokio::test]
async fn isolated_content_has_to_be_brought() {
    let scratch = Scratch::new();
    let store = open_with(scratch.folder(), common::manual(), Sharing::Isolated);
    let error = fetched_by_another(&store).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::FailedPrecondition);
    let there = scope("there");
    store.blob(&there, "shared", none()).await.unwrap();
    assert_eq!(store.backends().await.0, 1);

    // Unless its owner lets others have it.
    let scratch = Scratch::new();
    let store = open_with(scratch.folder(), common::manual(), Sharing::Isolated);
    let shareable = labels(&[("containerd.io/namespace.shareable", "true")]);
    let mask = FieldMask::new(["labels.containerd.io/namespace.shareable"]);
    store.metadata.namespaces().update(&scope("here").namespace, shareable, &mask).await.unwrap();
    fetched_by_another(&store).await.unwrap();
}

#[tokio::test]
async fn what_is_taken_by_naming_it_can_be_changed_after_all() {
    let scratch = Scratch::new();
    let store = open(scratch.folder());
    store.blob(&scope("here"), "shared", labels(&[("containerd.io/gc.root", "now")])).await.unwrap();
    let there = scope("there");
    let request =
        IngestRequest { reference: "take".parse().unwrap(), total: 0, expected: Some(digest("shared")) };
    let mut ingest = store.content(&there).writer(request.clone()).await.unwrap();
    assert_eq!(ingest.status().await.unwrap().offset, 6);
    ingest.write(6, Bytes::from_static(b" and more")).await.unwrap();
    assert_eq!(ingest.status().await.unwrap().offset, 15);
    let digest = ingest.commit(Default::default()).await.unwrap();
    assert_eq!(digest, common::objects::digest("shared and more"));
    let mut ingest = store.content(&there).writer(request).await.unwrap();
    ingest.truncate(0).await.unwrap();
    assert_eq!(ingest.status().await.unwrap().offset, 0);
}

#[tokio::test]
async fn a_resource_that_is_not_there_yet_can_be_held() {
    let scratch = Scratch::new();
    let store = open(scratch.folder());
    let here = scope("here");
    store.lease(&here, "early", none()).await;
    let resource = LeaseResource { id: digest("late").to_string(), kind: "content".into() };
    store.metadata.leases(&here).add_resource(&"early".parse().unwrap(), resource).await.unwrap();
    store.metadata.collect().await.unwrap();
    store.blob(&here, "late", none()).await.unwrap();
    store.metadata.collect().await.unwrap();
    assert_eq!(store.blobs(&here).await, [digest("late")]);
}

#[tokio::test]
async fn deletions_cause_a_collection_by_themselves() {
    let scratch = Scratch::new();
    let gc = GcConfig { startup_delay: Duration::from_millis(1), ..GcConfig::default() };
    let store = open_with(scratch.folder(), gc, Sharing::Shared);
    let here = scope("here");
    store.blob(&here, "target", none()).await.unwrap();
    store.image(&here, "image", &digest("target"), none()).await;
    store.metadata.images(&here).delete(&"image".parse().unwrap(), None, Deletion::Later).await.unwrap();
    let deadline = tokio::time::Instant::now() + testkit::wait::SOON;
    while store.backends().await.0 > 0 {
        assert!(tokio::time::Instant::now() < deadline, "the blob is still there");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}
