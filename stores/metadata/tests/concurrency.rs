//! Many at once: pulls and removals under a collector that never rests, and writers that count.

#![expect(clippy::unwrap_used, reason = "what fails in a test has failed the test")]

mod common;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use berth_core::{Deletion, Scope, read_blob};
use berth_types::filter::Filters;
use berth_types::{ErrorKind, Labels};
use common::objects::{digest, labels};
use common::{Store, open, scope};
use testkit::Scratch;

/// One image as a client pulls it: under a lease, layers first, the image last.
async fn pull(store: &Store, scope: &Scope, name: &str, layers: &[String]) {
    let lease = store.lease(scope, &format!("pull-{name}"), Labels::new()).await;
    let mut references = Vec::new();
    for (index, layer) in layers.iter().enumerate() {
        match store.blob(&lease, layer, Labels::new()).await {
            Ok(_) => {}
            // Somebody else's, or one that another pull is writing under the same reference.
            Err(error) => assert!(
                matches!(error.kind(), ErrorKind::AlreadyExists | ErrorKind::Unavailable),
                "{}",
                error.chain()
            ),
        }
        references.push((format!("containerd.io/gc.ref.content.l.{index}"), digest(layer).to_string()));
    }
    let manifest = format!("manifest of {name}");
    let target = match store.blob(&lease, &manifest, labels(&references)).await {
        Ok(target) => target,
        Err(error) if error.kind() == ErrorKind::AlreadyExists => digest(&manifest),
        Err(error) => panic!("{}", error.chain()),
    };
    store.committed(&lease, &format!("chain-{name}"), "", Labels::new()).await;
    let snapshot = labels(&[("containerd.io/gc.ref.snapshot.native", format!("chain-{name}"))]);
    store.image(scope, name, &target, snapshot).await;
    let id = lease.lease.unwrap();
    store.metadata.leases(scope).delete(&id, Deletion::Later).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn no_pull_loses_anything_to_a_collector_that_never_rests() {
    let scratch = Scratch::new();
    let store = Arc::new(open(scratch.folder()));
    let stop = Arc::new(AtomicBool::new(false));
    let collector = tokio::spawn({
        let (store, stop) = (Arc::clone(&store), Arc::clone(&stop));
        async move {
            let mut rounds = 0;
            while !stop.load(Ordering::Relaxed) {
                store.metadata.collect().await.unwrap();
                rounds += 1;
            }
            rounds
        }
    });
    let workers = (0..4).map(|worker| {
        let store = Arc::clone(&store);
        tokio::spawn(async move {
            // Two namespaces share bytes.
            let scope = scope(&format!("ns-{}", worker % 2));
            for round in 0..25 {
                let name = format!("image-{worker}-{round}");
                let layers: Vec<String> =
                    (0..3).map(|layer| format!("layer {worker} {} {layer}", round % 4)).collect();
                pull(&store, &scope, &name, &layers).await;
                let content = store.content(&scope);
                for blob in layers.iter().chain([&format!("manifest of {name}")]) {
                    let read = read_blob(&*content, &digest(blob), 1 << 20).await;
                    let read = read.unwrap_or_else(|error| panic!("{blob}: {}", error.chain()));
                    assert_eq!(read, blob.as_bytes());
                }
                let chain = format!("chain-{name}").parse().unwrap();
                store.snapshots(&scope).stat(&chain).await.unwrap();
                if round % 2 == 0 {
                    let images = store.metadata.images(&scope);
                    images.delete(&name.parse().unwrap(), None, Deletion::Later).await.unwrap();
                }
            }
        })
    });
    for worker in futures::future::join_all(workers).await {
        worker.unwrap();
    }
    stop.store(true, Ordering::Relaxed);
    let rounds = collector.await.unwrap();
    assert!(rounds > 1, "the collector ran {rounds} times");
    store.metadata.collect().await.unwrap();
    let (blobs, snapshots) = store.backends().await;
    let mut recorded = std::collections::BTreeSet::new();
    let mut names = 0;
    for namespace in ["ns-0", "ns-1"] {
        let scope = scope(namespace);
        recorded.extend(store.blobs(&scope).await);
        names += store.snapshot_names(&scope).await.len();
        let images = store.metadata.images(&scope).list(&Filters::default()).await.unwrap();
        assert_eq!(images.len(), 24);
        for image in images {
            let info = store.content(&scope).info(&image.target.digest).await.unwrap();
            for (_, layer) in info.labels {
                store.content(&scope).info(&layer.parse().unwrap()).await.unwrap();
            }
        }
    }
    assert_eq!((blobs, snapshots), (recorded.len(), names));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn every_answer_is_true_whoever_writes_beside() {
    let scratch = Scratch::new();
    let store = Arc::new(open(scratch.folder()));
    let workers = (0..8).map(|worker| {
        let store = Arc::clone(&store);
        tokio::spawn(async move {
            let here = scope("here");
            for number in 0..25 {
                let id = format!("c-{worker}-{number}");
                store.active(&here, &id, "", Labels::new()).await.unwrap();
                store.container(&here, &id, &id, Labels::new()).await;
                let containers = store.metadata.containers(&here);
                containers.container(&id.parse().unwrap()).await.unwrap();
                if number % 5 == 0 {
                    containers.delete(&id.parse().unwrap()).await.unwrap();
                    store.snapshots(&here).remove(&id.parse().unwrap()).await.unwrap();
                }
            }
        })
    });
    for worker in futures::future::join_all(workers).await {
        worker.unwrap();
    }
    let here = scope("here");
    let list = async |store: &Store| {
        let found = store.metadata.containers(&here).list(&Filters::default()).await.unwrap();
        found.into_iter().map(|container| container.id.to_string()).collect::<Vec<_>>()
    };
    assert_eq!(list(&store).await.len(), 160);
    assert_eq!(store.snapshot_names(&here).await, list(&store).await);
    store.metadata.close().await.unwrap();
    let error = store.metadata.collect().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    drop(store);
    let store = open(scratch.folder());
    assert_eq!(list(&store).await.len(), 160);
    store.metadata.collect().await.unwrap();
    assert_eq!(store.backends().await, (0, 160));
}
