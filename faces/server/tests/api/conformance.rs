//! The shared suites, through client and server.

use std::path::Path;
use std::sync::{Arc, Mutex};

use berth_core::{Catalog, ContentStore, Snapshotter};
use testkit::conformance::content::{self, Labelling};
use testkit::conformance::records::{self, Records};
use testkit::conformance::snapshot;

use crate::served::{Served, scope};

#[tokio::test(flavor = "multi_thread")]
async fn records_are_the_same_through_the_wire() {
    let served = Served::start();
    records::all(&Records::of(served.client())).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_content_store_is_the_same_through_the_wire() {
    let all = Mutex::new(Vec::new());
    let open = |_: &Path| -> Arc<dyn ContentStore> {
        let served = Served::start();
        let content = served.client().content(&scope());
        all.lock().unwrap().push(served);
        content
    };
    content::all(open, Labelling::Kept).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_snapshotter_is_the_same_through_the_wire() {
    if testkit::need::root().is_err() {
        return;
    }
    let all = Mutex::new(Vec::new());
    let open = |_: &Path| -> Arc<dyn Snapshotter> {
        let served = Served::start();
        let snapshotter = served.client().snapshotter(&"native".parse().unwrap(), &scope()).unwrap();
        all.lock().unwrap().push(served);
        snapshotter
    };
    snapshot::all(open).await;
}
