//! The client against real daemons: each test runs on every containerd that is there, and on berthd.

#![expect(clippy::unwrap_used, reason = "a test fails with what it did not expect")]

use std::collections::BTreeMap;
use std::future::Future;

use berth_client::Client;
use berth_core::{
    Catalog, CommitRequest, Deletion, IngestRequest, NewSnapshot, Scope, read_blob, write_blob,
};
use berth_types::filter::Filters;
use berth_types::{
    Any, Container, ContainerUpdate, Descriptor, Digest, ErrorKind, Event, FieldMask, Image, Labels,
    LeaseResource, NamespaceRecord, RuntimeInfo,
};
use bytes::Bytes;
use futures::StreamExt;
use testkit::{Daemon, Kind};

fn on_every_daemon<F: Future<Output = ()>>(test: impl Fn(Client, Scope) -> F) {
    for kind in [Kind::Debian, Kind::Containerd, Kind::Berth] {
        let Ok(daemon) = Daemon::start(kind) else { continue };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let scope = Scope::new(daemon.tag().parse().unwrap());
            test(Client::connect(daemon.address()), scope).await;
        });
        drop(runtime);
        daemon.finish();
    }
}

fn digest(bytes: &[u8]) -> Digest {
    use sha2::{Digest as _, Sha256};
    Digest::sha256(Sha256::digest(bytes).into())
}

/// Bytes that do not compress and differ everywhere.
fn noise(length: usize) -> Bytes {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    };
    std::iter::repeat_with(next).flatten().take(length).collect::<Vec<u8>>().into()
}

fn labels(pairs: &[(&str, &str)]) -> Labels {
    pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
}

fn kind<T: std::fmt::Debug>(result: Result<T, berth_types::Error>) -> ErrorKind {
    result.unwrap_err().kind()
}

#[test]
fn a_large_blob_is_written_in_a_stream_and_read_back_in_order_and_at_any_place() {
    on_every_daemon(|client, scope| async move {
        let content = client.content(&scope);
        let data = noise((17 << 20) + 123);
        let address = digest(&data);
        let request = IngestRequest {
            reference: "large".parse().unwrap(),
            total: data.len() as u64,
            expected: Some(address.clone()),
        };
        let mut ingest = content.writer(request.clone()).await.unwrap();
        assert_eq!(ingest.status().await.unwrap().offset, 0);
        ingest.write(0, data.slice(..5 << 20)).await.unwrap();
        assert_eq!(kind(ingest.write(7, data.slice(..1)).await), ErrorKind::OutOfRange);
        ingest.write(5 << 20, data.slice(5 << 20..)).await.unwrap();
        let commit = CommitRequest {
            size: Some(data.len() as u64),
            expected: Some(address.clone()),
            labels: labels(&[("containerd.io/gc.root", "now"), ("a", "b")]),
        };
        assert_eq!(ingest.commit(commit).await.unwrap(), address);
        drop(ingest);
        assert_eq!(kind(content.writer(request).await.map(drop)), ErrorKind::AlreadyExists);

        let info = content.info(&address).await.unwrap();
        assert_eq!((info.size, info.labels["a"].as_str()), (data.len() as u64, "b"));
        let reader = content.reader(&address).await.unwrap();
        let mut back = Vec::new();
        while let part = reader.read_at(back.len() as u64, 100_000).await.unwrap()
            && !part.is_empty()
        {
            back.extend_from_slice(&part);
        }
        assert!(back == data);
        for (offset, length) in [(16 << 20, 1000), (3, 5 << 20), (17 << 20, 1 << 20), (0, 1)] {
            let part = reader.read_at(offset as u64, length).await.unwrap();
            let end = (offset + length).min(data.len());
            assert!(part == data[offset..end], "{offset} {length}");
        }
        assert!(reader.read_at(data.len() as u64, 10).await.unwrap().is_empty());
        assert_eq!(kind(read_blob(&*content, &address, 1 << 20).await), ErrorKind::ResourceExhausted);
    });
}

#[test]
fn an_ingest_is_taken_up_where_it_stopped_and_one_that_lies_is_refused() {
    on_every_daemon(|client, scope| async move {
        let content = client.content(&scope);
        let data = noise(3 << 20);
        let reference: berth_types::IngestRef = "half".parse().unwrap();
        let mut ingest = content.writer(IngestRequest::new(reference.clone())).await.unwrap();
        ingest.write(0, data.slice(..1 << 20)).await.unwrap();
        let busy = content.writer(IngestRequest::new(reference.clone())).await.map(drop);
        assert_eq!(kind(busy), ErrorKind::Unavailable);
        drop(ingest);
        // The daemon learns of the end of a stream a moment later.
        let mut ingest = loop {
            match content.writer(IngestRequest::new(reference.clone())).await {
                Ok(ingest) => break ingest,
                Err(error) if error.kind() == ErrorKind::Unavailable => tokio::task::yield_now().await,
                Err(error) => panic!("{error:?}"),
            }
        };
        let offset = ingest.status().await.unwrap().offset;
        assert_eq!(offset, 1 << 20);
        ingest.write(offset, data.slice(offset as usize..)).await.unwrap();
        let lie = CommitRequest { expected: Some(digest(b"else")), ..CommitRequest::default() };
        assert_eq!(kind(ingest.commit(lie).await), ErrorKind::FailedPrecondition);
        drop(ingest);

        let mut ingest = content.writer(IngestRequest::new("again".parse().unwrap())).await.unwrap();
        ingest.write(0, Bytes::from_static(b"wrong")).await.unwrap();
        ingest.truncate(0).await.unwrap();
        ingest.write(0, Bytes::from_static(b"right")).await.unwrap();
        // Nothing refers to it, and a collection may come at any time.
        let root = Labels::from([("containerd.io/gc.root".to_owned(), "test".to_owned())]);
        let kept = CommitRequest { labels: root, ..CommitRequest::default() };
        assert_eq!(ingest.commit(kept).await.unwrap(), digest(b"right"));
        assert_eq!(kind(content.abort(&"none".parse().unwrap()).await), ErrorKind::NotFound);
        let blobs = content.list(&Filters::parse(&["digest!=x"]).unwrap()).await.unwrap();
        assert!(blobs.iter().any(|blob| blob.digest == digest(b"right")));
        content.delete(&digest(b"right")).await.unwrap();
        assert_eq!(kind(content.info(&digest(b"right")).await), ErrorKind::NotFound);
    });
}

#[test]
fn records_of_images_containers_leases_and_namespaces_come_back_as_they_were_stored() {
    on_every_daemon(|client, scope| async move {
        let content = client.content(&scope);
        let target = Descriptor::new("application/octet-stream", digest(b"{}"), 2);
        let data = Bytes::from_static(b"{}");
        write_blob(&*content, "small".parse().unwrap(), &target, data, Labels::new()).await.unwrap();

        let images = client.images(&scope);
        let mut image = Image::new("berth.test/a:1".parse().unwrap(), target.clone());
        image.labels = labels(&[("x", "y")]);
        let stored = images.create(image.clone()).await.unwrap();
        assert_eq!((&stored.name, &stored.labels), (&image.name, &image.labels));
        assert_eq!(kind(images.create(image.clone()).await), ErrorKind::AlreadyExists);
        image.labels = labels(&[("x", "z")]);
        let changed = images.update(image.clone(), &FieldMask::new(["labels.x"])).await.unwrap();
        assert_eq!(changed.labels["x"], "z");
        let listed = images.list(&Filters::parse(&["name==berth.test/a:1"]).unwrap()).await.unwrap();
        assert_eq!(listed.len(), 1);
        assert_eq!(images.list(&Filters::parse(&["name==other"]).unwrap()).await.unwrap(), []);

        let containers = client.containers(&scope);
        let runtime = RuntimeInfo { name: "io.containerd.runc.v2".into(), options: None };
        let mut container = Container::new("c1".parse().unwrap(), runtime);
        container.image = image.name.to_string();
        container.spec = Some(Any::new("types.containerd.io/opencontainers/runtime-spec/1/Spec", *b"{}"));
        container.extensions = BTreeMap::from([("e".to_owned(), Any::new("t", *b"v"))]);
        containers.create(container.clone()).await.unwrap();
        let back = containers.container(&container.id).await.unwrap();
        assert_eq!((&back.spec, &back.extensions), (&container.spec, &container.extensions));
        container.labels = labels(&[("k", "v")]);
        let update = ContainerUpdate { container, mask: FieldMask::new(["labels"]) };
        assert_eq!(containers.update(update).await.unwrap().labels["k"], "v");
        assert_eq!(containers.list(&Filters::default()).await.unwrap().len(), 1);
        assert_eq!(kind(containers.container(&"c2".parse().unwrap()).await), ErrorKind::NotFound);
        assert_eq!(kind(client.tasks(&scope).delete(&"c1".parse().unwrap()).await), ErrorKind::NotFound);
        assert_eq!(client.tasks(&scope).list().await.unwrap(), []);
        containers.delete(&"c1".parse().unwrap()).await.unwrap();

        let leases = client.leases(&scope);
        let lease = leases.create(Some("l1".parse().unwrap()), labels(&[("a", "b")])).await.unwrap();
        let resource = LeaseResource { id: target.digest.to_string(), kind: "content".into() };
        leases.add_resource(&lease.id, resource.clone()).await.unwrap();
        assert_eq!(leases.resources(&lease.id).await.unwrap(), std::slice::from_ref(&resource));
        leases.delete_resource(&lease.id, resource).await.unwrap();
        assert!(leases.list(&Filters::default()).await.unwrap().contains(&lease));
        leases.delete(&lease.id, Deletion::Synchronous).await.unwrap();
        images.delete(&image.name, None, Deletion::Synchronous).await.unwrap();
        assert_eq!(kind(images.image(&image.name).await), ErrorKind::NotFound);

        let namespaces = client.namespaces();
        let record = NamespaceRecord { name: "other".parse().unwrap(), labels: labels(&[("l", "1")]) };
        assert_eq!(namespaces.create(record.clone()).await.unwrap(), record);
        assert_eq!(namespaces.namespace(&record.name).await.unwrap(), record);
        assert!(namespaces.list().await.unwrap().contains(&record));
        namespaces.delete(&record.name).await.unwrap();
        let (version, _) = client.introspection().version().await.unwrap();
        assert!(!version.is_empty());
        let filters = ["type==io.containerd.snapshotter.v1".to_owned()];
        let plugins = client.introspection().plugins(&filters).await.unwrap();
        assert!(plugins.iter().any(|plugin| plugin.id == "native"));
        assert!(!client.introspection().server().await.unwrap().uuid.is_empty());
    });
}

#[test]
fn snapshots_go_through_their_life() {
    on_every_daemon(|client, scope| async move {
        let snapshots = client.snapshotter(&"native".parse().unwrap(), &scope).unwrap();
        let new = |key: &str, parent: Option<&str>| NewSnapshot {
            key: key.parse().unwrap(),
            parent: parent.map(|parent| parent.parse().unwrap()),
            labels: labels(&[("containerd.io/gc.root", "now")]),
        };
        let mounts = snapshots.prepare(new("work", None)).await.unwrap();
        assert_eq!(mounts[0].kind, "bind");
        assert_eq!(snapshots.mounts(&"work".parse().unwrap()).await.unwrap(), mounts);
        let (name, key) = ("done".parse().unwrap(), "work".parse().unwrap());
        snapshots.commit(&name, &key, labels(&[("containerd.io/gc.root", "now")])).await.unwrap();
        snapshots.view(new("look", Some("done"))).await.unwrap();
        assert_eq!(kind(snapshots.remove(&name).await), ErrorKind::FailedPrecondition);
        assert_eq!(kind(snapshots.prepare(new("done", None)).await), ErrorKind::AlreadyExists);
        snapshots.usage(&name).await.unwrap();
        let marks = labels(&[("m", "n")]);
        let info = snapshots.update(&name, marks, &FieldMask::new(["labels.m"])).await.unwrap();
        assert_eq!(info.labels["m"], "n");
        assert_eq!(snapshots.list(&Filters::default()).await.unwrap().len(), 2);
        snapshots.remove(&"look".parse().unwrap()).await.unwrap();
        snapshots.remove(&name).await.unwrap();
        assert_eq!(kind(snapshots.stat(&name).await), ErrorKind::NotFound);
    });
}

#[test]
fn a_subscription_hears_what_happens_after_it() {
    on_every_daemon(|client, scope| async move {
        let topic = r#"topic=="/berth/test""#;
        let mut heard = client.events().subscribe(Filters::parse(&[topic]).unwrap()).await.unwrap();
        let told = Event::Foreign {
            topic: "/berth/test".into(),
            event: Any::new("containerd.events.TaskOOM", [0x0a, 1, b'x']),
        };
        // Go's daemons answer before they listen, so the first word may be missed.
        let again = std::time::Duration::from_millis(200);
        for _ in 0..100 {
            client.events().publish(&scope.namespace, told.clone()).await.unwrap();
            if let Ok(envelope) = tokio::time::timeout(again, heard.next()).await {
                let envelope = envelope.unwrap().unwrap();
                assert_eq!((envelope.namespace, envelope.event), (scope.namespace, told));
                return;
            }
        }
        panic!("nothing was heard");
    });
}

#[tokio::test]
async fn a_socket_without_a_daemon_is_named_with_the_way_out() {
    let client = Client::connect("/run/berth-no-such.sock");
    assert!(!client.is_listening());
    let error = client.namespaces().list().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert_eq!(
        error.message(),
        "no daemon answers at /run/berth-no-such.sock; start it with `berth system start`"
    );
    assert!(error.chain().contains("No such file"), "{}", error.chain());
}

#[test]
fn a_daemon_that_goes_away_is_said_so_and_one_that_comes_back_is_used() {
    let Ok(mut daemon) = Daemon::start(Kind::Debian) else { return };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let client =
        runtime.block_on(async { Client::connect(format!("unix://{}", daemon.address().display())) });
    let list = || runtime.block_on(client.namespaces().list());
    list().unwrap();
    daemon.kill();
    let error = list().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error:?}");
    let address = daemon.address();
    assert!(error.message().contains(address.to_str().unwrap()), "{error:?}");
    daemon.restart();
    // A connection that broke is found out by one request at most.
    list().or_else(|_| list()).unwrap();
}
