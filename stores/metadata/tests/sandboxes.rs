//! Sandbox records.

#![expect(clippy::unwrap_used, reason = "what fails in a test has failed the test")]

mod common;

use std::sync::Arc;

use berth_core::Sandboxes;
use berth_types::filter::Filters;
use berth_types::{Any, ErrorKind, FieldMask, Labels, RuntimeInfo, Sandbox, SandboxUpdate};
use common::objects::{digest, labels};
use common::{Store, open, scope};
use testkit::Scratch;

fn sandbox(id: &str) -> Sandbox {
    let runtime = RuntimeInfo { name: "io.containerd.runc.v2".into(), options: Some(Any::new("o", "1")) };
    let mut sandbox = Sandbox::new(id.parse().unwrap(), runtime);
    sandbox.spec = Some(Any::new("spec", "{}"));
    sandbox.labels = labels(&[("app", id)]);
    sandbox.extensions.insert("config".into(), Any::new("c", "2"));
    sandbox.sandboxer = "podsandbox".into();
    sandbox
}

fn sandboxes(store: &Store) -> Arc<dyn Sandboxes> {
    store.metadata.sandboxes(&scope("k8s.io"))
}

fn kind<T: std::fmt::Debug>(result: berth_types::Result<T>) -> ErrorKind {
    result.unwrap_err().kind()
}

#[tokio::test]
async fn a_sandbox_is_found_as_it_was_stored_after_the_store_was_closed() {
    let scratch = Scratch::new();
    let store = open(scratch.folder());
    let made = sandboxes(&store).create(sandbox("one")).await.unwrap();
    assert_eq!(kind(sandboxes(&store).create(sandbox("one")).await), ErrorKind::AlreadyExists);
    sandboxes(&store).create(sandbox("two")).await.unwrap();
    store.metadata.close().await.unwrap();
    drop(store);

    let store = open(scratch.folder());
    assert_eq!(sandboxes(&store).sandbox(&made.id).await.unwrap(), made);
    let of_two = Filters::parse(&["labels.app==two"]).unwrap();
    let found = sandboxes(&store).list(&of_two).await.unwrap();
    assert_eq!(found.iter().map(|one| one.id.as_str()).collect::<Vec<_>>(), ["two"]);
    let elsewhere = store.metadata.sandboxes(&scope("other"));
    assert_eq!(kind(elsewhere.sandbox(&made.id).await), ErrorKind::NotFound);
    sandboxes(&store).delete(&made.id).await.unwrap();
    assert_eq!(kind(sandboxes(&store).delete(&made.id).await), ErrorKind::NotFound);
}

#[tokio::test]
async fn an_update_changes_what_its_mask_names() {
    let scratch = Scratch::new();
    let store = open(scratch.folder());
    let store = sandboxes(&store);
    let made = store.create(sandbox("one")).await.unwrap();
    let mut wanted = sandbox("one");
    wanted.labels = labels(&[("app", "new"), ("more", "x")]);
    wanted.extensions.clear();
    let update = |sandbox: &Sandbox, paths: &[&str]| {
        let mask = FieldMask::new(paths.iter().copied());
        store.update(SandboxUpdate { sandbox: sandbox.clone(), mask })
    };
    let changed = update(&wanted, &["labels.more"]).await.unwrap();
    assert_eq!(changed.labels, labels(&[("app", "one"), ("more", "x")]));
    assert_eq!((changed.created_at, changed.extensions.len()), (made.created_at, 1));
    assert!(update(&wanted, &["extensions.config"]).await.unwrap().extensions.is_empty());
    assert_eq!(kind(update(&wanted, &["sandboxer"]).await), ErrorKind::InvalidArgument);

    let whole = update(&wanted, &[]).await.unwrap();
    assert_eq!((&whole.labels, whole.created_at), (&wanted.labels, made.created_at));
    wanted.runtime.name = "other".into();
    assert_eq!(kind(update(&wanted, &[]).await), ErrorKind::InvalidArgument);
}

#[tokio::test]
async fn a_sandbox_without_a_runtime_or_with_a_nameless_extension_is_refused() {
    let scratch = Scratch::new();
    let store = open(scratch.folder());
    let mut none = sandbox("one");
    none.runtime.name.clear();
    let mut nameless = sandbox("one");
    nameless.extensions.insert(String::new(), Any::default());
    for bad in [none, nameless] {
        assert_eq!(kind(sandboxes(&store).create(bad).await), ErrorKind::InvalidArgument);
    }
}

#[tokio::test]
async fn a_sandbox_keeps_what_its_labels_refer_to_and_its_namespace() {
    let scratch = Scratch::new();
    let store = open(scratch.folder());
    let here = scope("k8s.io");
    let lease = store.lease(&here, "make", Labels::new()).await;
    store.blob(&lease, "kept", Labels::new()).await.unwrap();
    let mut holding = sandbox("one");
    holding.labels = labels(&[("containerd.io/gc.ref.content", digest("kept").as_str())]);
    sandboxes(&store).create(holding).await.unwrap();
    let leases = store.metadata.leases(&here);
    leases.delete(&"make".parse().unwrap(), berth_core::Deletion::Later).await.unwrap();
    store.metadata.collect().await.unwrap();
    assert_eq!(store.blobs(&here).await, [digest("kept")]);
    assert_eq!(
        kind(store.metadata.namespaces().delete(&here.namespace).await),
        ErrorKind::FailedPrecondition
    );

    sandboxes(&store).delete(&"one".parse().unwrap()).await.unwrap();
    store.metadata.collect().await.unwrap();
    assert!(store.blobs(&here).await.is_empty());
}
