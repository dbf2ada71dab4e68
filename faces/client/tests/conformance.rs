//! The seams' own suites through the client: what holds of a store holds of it at the other end of a socket.

#![expect(clippy::unwrap_used, reason = "a test fails with what it did not expect")]

use std::path::Path;
use std::sync::Arc;

use berth_client::Client;
use berth_core::{Catalog, Scope};
use berth_types::filter::Filters;
use berth_types::{PluginState, SnapshotterName};
use testkit::conformance::content::{self, Labelling};
use testkit::conformance::records::{self, Records};
use testkit::conformance::snapshot;
use testkit::{Daemon, Kind, need};

/// Every check has a folder of its own; the tag in its path serves as a namespace.
fn scope(folder: &Path) -> Scope {
    let mut parts = folder.iter().filter_map(|part| part.to_str());
    let tag = parts.find(|part| part.starts_with("berth-test-")).unwrap();
    Scope::new(tag.parse().unwrap())
}

fn on_berthd(test: impl AsyncFn(Client)) {
    let Ok(daemon) = Daemon::start(Kind::Berth) else { return };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async { test(Client::connect(daemon.address())).await });
    drop(runtime);
    daemon.finish();
}

#[test]
fn content_is_a_content_store() {
    on_berthd(async |client| {
        content::all(|folder| client.content(&scope(folder)), Labelling::Kept).await;
    });
}

#[test]
fn snapshots_are_a_snapshotter() {
    on_berthd(async |client| {
        for name in ["erofs", "native", "overlayfs"] {
            if name == "erofs" && !has(&client, name).await {
                continue;
            }
            let name = name.parse().unwrap();
            snapshot::all(|folder| client.snapshotter(&name, &scope(folder)).unwrap()).await;
            clear(&client, &name).await;
        }
    });
}

/// Removes every snapshot, those on top first: images of layers that are there stay mounted.
async fn clear(client: &Client, name: &SnapshotterName) {
    for namespace in client.namespaces().list().await.unwrap() {
        let snapshots = client.snapshotter(name, &Scope::new(namespace.name)).unwrap();
        let mut left = usize::MAX;
        loop {
            let all = snapshots.list(&Filters::default()).await.unwrap();
            if all.is_empty() || all.len() == left {
                break;
            }
            left = all.len();
            for info in all {
                // What has children goes in a later round.
                let _ = snapshots.remove(&info.key).await;
            }
        }
        snapshots.cleanup().await.unwrap();
    }
}

/// Whether the daemon has the snapshotter on this machine.
async fn has(client: &Client, name: &str) -> bool {
    let filter = format!("type==io.containerd.snapshotter.v1,id=={name}");
    let plugins = client.introspection().plugins(&[filter]).await.unwrap();
    let ready = plugins.iter().any(|plugin| plugin.state == PluginState::Ready);
    need::that(ready, &format!("the snapshotter {name} ({:?})", plugins.first().map(|plugin| &plugin.state)))
        .is_ok()
}

#[test]
fn records_are_records() {
    on_berthd(async |client| records::all(&Records::of(Arc::new(client))).await);
}
