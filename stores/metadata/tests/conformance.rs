//! The shared suites, on a namespace's view.

#![expect(clippy::unwrap_used, reason = "what fails in a test has failed the test")]

mod common;

use std::path::Path;
use std::sync::{Arc, Mutex};

use berth_core::{ContentStore, Events, Snapshotter};
use testkit::Scratch;
use testkit::conformance::content::{self, Labelling};
use testkit::conformance::records::{self, Records};
use testkit::conformance::snapshot;

#[tokio::test(flavor = "multi_thread")]
async fn records_are_as_containerd_has_them() {
    let scratch = Scratch::new();
    let store = common::open(scratch.folder());
    let metadata = || Arc::clone(&store.metadata);
    let (images, containers, leases) = (metadata(), metadata(), metadata());
    let records = Records {
        namespaces: store.metadata.namespaces(),
        images: Box::new(move |scope| images.images(scope)),
        containers: Box::new(move |scope| containers.containers(scope)),
        leases: Box::new(move |scope| leases.leases(scope)),
        events: Arc::clone(&store.events) as Arc<dyn Events>,
    };
    records::all(&records).await;
    store.metadata.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_namespace_sees_a_content_store() {
    let opened = Mutex::new(Vec::new());
    let open = |root: &Path| -> Arc<dyn ContentStore> {
        let store = common::open(root);
        let content = store.metadata.content(&common::scope("test"));
        opened.lock().unwrap().push(store);
        content
    };
    content::all(open, Labelling::Kept).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_namespace_sees_a_snapshotter() {
    if testkit::need::root().is_err() {
        return;
    }
    let opened = Mutex::new(Vec::new());
    let open = |root: &Path| -> Arc<dyn Snapshotter> {
        let store = common::open(root);
        let snapshotter = store.metadata.snapshotter(&common::native(), &common::scope("test")).unwrap();
        opened.lock().unwrap().push(store);
        snapshotter
    };
    snapshot::all(open).await;
}
