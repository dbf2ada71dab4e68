//! The suite of content stores, on a folder.

use std::path::Path;
use std::sync::Arc;

use berth_content::Store;
use berth_core::ContentStore;
use testkit::conformance::content::{self, Labelling};

fn open(root: &Path) -> Arc<dyn ContentStore> {
    Arc::new(Store::open(root).expect("a folder of our own can be opened"))
}

#[tokio::test(flavor = "multi_thread")]
async fn the_local_store_is_a_content_store() {
    content::all(open, Labelling::Absent).await;
    content::reopening(open).await;
}
