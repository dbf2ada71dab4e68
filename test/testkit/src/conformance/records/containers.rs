//! Containers.

use std::collections::BTreeMap;

use berth_types::filter::Filters;
use berth_types::{Any, Container, ContainerUpdate, ErrorKind, FieldMask, Result, RuntimeInfo};

use super::{Records, fresh, labels, long_labels, name, refused};

const SPEC: &str = "types.containerd.io/opencontainers/runtime-spec/1/Spec";

pub(super) fn container(id: &str) -> Container {
    let runtime = RuntimeInfo { name: "io.containerd.runc.v2".to_owned(), options: None };
    let mut container = Container::new(name(id), runtime);
    container.spec = Some(Any::new(SPEC, *br#"{"ociVersion":"1.2.0"}"#));
    container
}

pub(super) async fn a_container_is_what_was_stored(records: &Records) {
    let containers = (records.containers)(&fresh());
    let mut wanted = container("whole");
    wanted.labels = labels(&[("a", "1")]);
    wanted.image = "docker.io/library/busybox:latest".into();
    wanted.runtime.options = Some(Any::new("containerd.runc.v1.Options", [8, 1]));
    wanted.snapshotter = "native".into();
    wanted.snapshot_key = "whole".into();
    wanted.extensions = BTreeMap::from([("x".to_owned(), Any::new("some.Type", [1, 2, 3]))]);
    let created = containers.create(wanted.clone()).await.unwrap();
    assert_eq!(created.updated_at, created.created_at);
    let stored = containers.container(&wanted.id).await.unwrap();
    wanted.created_at = created.created_at;
    wanted.updated_at = created.updated_at;
    assert_eq!(stored, wanted);
    assert_eq!(containers.list(&Filters::default()).await.unwrap(), [stored]);
    refused(containers.create(wanted.clone()).await, ErrorKind::AlreadyExists);
    containers.delete(&wanted.id).await.unwrap();
    refused(containers.container(&wanted.id).await, ErrorKind::NotFound);
    refused(containers.delete(&wanted.id).await, ErrorKind::NotFound);
}

pub(super) async fn a_mask_says_what_changes(records: &Records) {
    let containers = (records.containers)(&fresh());
    let mut first = container("masked");
    first.labels = labels(&[("a", "1"), ("b", "2")]);
    first.extensions = BTreeMap::from([("x".to_owned(), Any::new("t", [1]))]);
    first.snapshotter = "native".into();
    first.snapshot_key = "before".into();
    let created = containers.create(first).await.unwrap();
    let mut new = container("masked");
    new.labels = labels(&[("a", "9"), ("c", "3")]);
    new.extensions = BTreeMap::from([("y".to_owned(), Any::new("t", [2]))]);
    new.spec = Some(Any::new(SPEC, *b"{}"));
    new.image = "image".into();
    new.snapshotter = "native".into();
    new.snapshot_key = "after".into();
    let update = async |paths: &[&str]| {
        let mask = FieldMask::new(paths.iter().copied());
        let updated = containers.update(ContainerUpdate { container: new.clone(), mask }).await.unwrap();
        assert_eq!(updated.created_at, created.created_at);
        assert!(updated.updated_at >= created.updated_at);
        updated
    };
    let updated = update(&["labels.a", "labels.b", "extensions.y"]).await;
    assert_eq!(updated.labels.get("a").map(String::as_str), Some("9"));
    let stored = containers.container(&name("masked")).await.unwrap();
    assert_eq!(stored.labels, labels(&[("a", "9")]));
    assert_eq!(stored.extensions.len(), 2);
    assert_eq!((stored.spec, stored.image.as_str()), (created.spec.clone(), ""));
    let updated = update(&["spec", "image", "snapshotkey"]).await;
    assert_eq!((&updated.spec, &updated.image), (&new.spec, &new.image));
    assert_eq!(updated.snapshot_key, "after");
    assert_eq!(updated.labels, labels(&[("a", "9")]));
    let updated = update(&[]).await;
    assert_eq!(updated.labels, new.labels);
    assert_eq!(updated.extensions["y"], new.extensions["y"]);
}

pub(super) async fn some_fields_never_change(records: &Records) {
    let containers = (records.containers)(&fresh());
    containers.create(container("fixed")).await.unwrap();
    let update = async |change: fn(&mut Container), paths: &[&str]| -> Result<Container> {
        let mut container = container("fixed");
        change(&mut container);
        let mask = FieldMask::new(paths.iter().copied());
        containers.update(ContainerUpdate { container, mask }).await
    };
    refused(update(|new| new.runtime.name = "other".into(), &[]).await, ErrorKind::InvalidArgument);
    refused(update(|new| new.snapshotter = "other".into(), &[]).await, ErrorKind::InvalidArgument);
    for path in ["runtime", "snapshotter", "id", "created_at"] {
        refused(update(|_| (), &[path]).await, ErrorKind::InvalidArgument);
    }
    refused(update(|new| new.spec = None, &["spec"]).await, ErrorKind::InvalidArgument);
    refused(update(|new| new.id = name("nowhere"), &["image"]).await, ErrorKind::NotFound);
}

pub(super) async fn filters_choose_containers(records: &Records) {
    let containers = (records.containers)(&fresh());
    for (id, image, label) in [("one", "busybox", "x"), ("two", "nginx", "x"), ("three", "nginx", "y")] {
        let mut container = container(id);
        container.image = image.to_owned();
        container.labels = labels(&[("some.kind/of", label)]);
        containers.create(container).await.unwrap();
    }
    let list = async |filters: &[&str]| -> Vec<String> {
        let found = containers.list(&Filters::parse(filters).unwrap()).await.unwrap();
        found.into_iter().map(|container| container.id.to_string()).collect()
    };
    assert_eq!(list(&[]).await, ["one", "three", "two"]);
    assert_eq!(list(&["id==two"]).await, ["two"]);
    assert_eq!(list(&["image==nginx"]).await, ["three", "two"]);
    assert_eq!(list(&["labels.\"some.kind/of\"==x"]).await, ["one", "two"]);
    assert_eq!(list(&["image==nginx,labels.\"some.kind/of\"==x", "id==one"]).await, ["one", "two"]);
    assert_eq!(list(&["runtime.name==io.containerd.runc.v2"]).await.len(), 3);
}

pub(super) async fn what_is_wrong_is_refused(records: &Records) {
    let containers = (records.containers)(&fresh());
    let wrong: [fn(&mut Container); 5] = [
        |container| container.runtime.name.clear(),
        |container| container.spec = None,
        |container| container.snapshot_key = "without a snapshotter".into(),
        |container| container.labels = long_labels(),
        |container| container.extensions = BTreeMap::from([(String::new(), Any::new("t", []))]),
    ];
    for change in wrong {
        let mut container = container("wrong");
        change(&mut container);
        refused(containers.create(container).await, ErrorKind::InvalidArgument);
    }
    assert!(containers.list(&Filters::default()).await.unwrap().is_empty());
}

pub(super) async fn one_of_many_makers_of_an_id_wins(records: &Records) {
    let scope = fresh();
    let makers = (0..16).map(|_| async { (records.containers)(&scope).create(container("contested")).await });
    let done = futures::future::join_all(makers).await;
    assert_eq!(done.iter().filter(|done| done.is_ok()).count(), 1);
    for error in done.into_iter().filter_map(Result::err) {
        assert_eq!(error.kind(), ErrorKind::AlreadyExists, "{}", error.chain());
    }
}
