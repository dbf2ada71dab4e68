//! Any graph of objects: the collector takes all that nothing reaches, and nothing else.

#![expect(clippy::unwrap_used, reason = "what fails in a test has failed the test")]

mod common;

use std::collections::BTreeSet;

use berth_core::Deletion;
use berth_types::filter::Filters;
use berth_types::{Labels, LeaseResource};
use common::objects::{digest, labels};
use common::{Store, open, scope};
use proptest::prelude::*;
use testkit::Scratch;

const OBJECTS: usize = 7;

/// A graph over as many blobs and snapshots as there are [`OBJECTS`].
#[derive(Clone, Debug)]
struct Graph {
    /// Blob → blobs, by label.
    blobs: Vec<BTreeSet<usize>>,
    /// Blob → snapshots, by label.
    configs: Vec<BTreeSet<usize>>,
    /// Snapshot → the one beneath, which has a smaller number.
    parents: Vec<Option<usize>>,
    /// Snapshot → blobs, by label.
    snapshots: Vec<BTreeSet<usize>>,
    images: BTreeSet<usize>,
    containers: BTreeSet<usize>,
    /// What a lease holds: blobs and snapshots.
    leased: (BTreeSet<usize>, BTreeSet<usize>),
    flat: bool,
    /// Which images are deleted before the second collection.
    deleted: BTreeSet<usize>,
}

fn some() -> impl Strategy<Value = BTreeSet<usize>> {
    proptest::collection::btree_set(0..OBJECTS, 0..3)
}

fn many() -> impl Strategy<Value = Vec<BTreeSet<usize>>> {
    proptest::collection::vec(some(), OBJECTS)
}

prop_compose! {
    fn graph()(
        blobs in many(), configs in many(), snapshots in many(),
        parents in proptest::collection::vec(proptest::option::of(0..OBJECTS), OBJECTS),
        images in some(), containers in some(), leased in (some(), some()), flat: bool, deleted in some(),
    ) -> Graph {
        let parents = parents.into_iter().enumerate()
            .map(|(child, parent)| parent.filter(|parent| *parent < child)).collect();
        Graph { blobs, configs, parents, snapshots, images, containers, leased, flat, deleted }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Node {
    Blob(usize),
    Snapshot(usize),
}

impl Graph {
    fn reachable(&self, images: &BTreeSet<usize>) -> (BTreeSet<usize>, BTreeSet<usize>) {
        let mut full = BTreeSet::new();
        let mut flat = BTreeSet::new();
        let mut grey: Vec<(Node, bool)> = Vec::new();
        grey.extend(images.iter().map(|&blob| (Node::Blob(blob), true)));
        grey.extend(self.containers.iter().map(|&snapshot| (Node::Snapshot(snapshot), true)));
        grey.extend(self.leased.0.iter().map(|&blob| (Node::Blob(blob), !self.flat)));
        grey.extend(self.leased.1.iter().map(|&snapshot| (Node::Snapshot(snapshot), !self.flat)));
        while let Some((node, follow)) = grey.pop() {
            let seen = if follow { &mut full } else { &mut flat };
            if !seen.insert(node) {
                continue;
            }
            if let Node::Snapshot(snapshot) = node {
                grey.extend(self.parents[snapshot].map(|parent| (Node::Snapshot(parent), follow)));
            }
            if follow {
                match node {
                    Node::Blob(blob) => {
                        grey.extend(self.blobs[blob].iter().map(|&blob| (Node::Blob(blob), true)));
                        grey.extend(
                            self.configs[blob].iter().map(|&snapshot| (Node::Snapshot(snapshot), true)),
                        );
                    }
                    Node::Snapshot(snapshot) => {
                        grey.extend(self.snapshots[snapshot].iter().map(|&blob| (Node::Blob(blob), true)));
                    }
                }
            }
        }
        let all: BTreeSet<Node> = full.union(&flat).copied().collect();
        let blobs =
            all.iter().filter_map(|node| if let Node::Blob(blob) = node { Some(*blob) } else { None });
        let snapshots =
            all.iter().filter_map(|node| if let Node::Snapshot(name) = node { Some(*name) } else { None });
        (blobs.collect(), snapshots.collect())
    }

    async fn build(&self, store: &Store) {
        let here = scope("here");
        let blob_labels = |blob: usize| {
            let mut labels = Labels::new();
            for (index, other) in self.blobs[blob].iter().enumerate() {
                let label = format!("containerd.io/gc.ref.content.{index}");
                labels.insert(label, digest(&format!("blob {other}")).to_string());
            }
            for (index, snapshot) in self.configs[blob].iter().enumerate() {
                let label = format!("containerd.io/gc.ref.snapshot.native/{index}");
                labels.insert(label, format!("snapshot-{snapshot}"));
            }
            labels
        };
        for number in 0..OBJECTS {
            store.blob(&here, &format!("blob {number}"), blob_labels(number)).await.unwrap();
            let references: Vec<(String, String)> = self.snapshots[number]
                .iter()
                .enumerate()
                .map(|(index, blob)| {
                    (
                        format!("containerd.io/gc.ref.content.{index}"),
                        digest(&format!("blob {blob}")).to_string(),
                    )
                })
                .collect();
            let parent = self.parents[number].map(|parent| format!("snapshot-{parent}")).unwrap_or_default();
            store.committed(&here, &format!("snapshot-{number}"), &parent, labels(&references)).await;
        }
        for image in &self.images {
            store
                .image(&here, &format!("image-{image}"), &digest(&format!("blob {image}")), Labels::new())
                .await;
        }
        for container in &self.containers {
            let snapshot = format!("snapshot-{container}");
            store.container(&here, &format!("container-{container}"), &snapshot, Labels::new()).await;
        }
        let flat = if self.flat { labels(&[("containerd.io/gc.flat", "1")]) } else { Labels::new() };
        store.lease(&here, "lease", flat).await;
        let leases = store.metadata.leases(&here);
        let lease = "lease".parse().unwrap();
        for blob in &self.leased.0 {
            let id = digest(&format!("blob {blob}")).to_string();
            leases.add_resource(&lease, LeaseResource { id, kind: "content".into() }).await.unwrap();
        }
        for snapshot in &self.leased.1 {
            let id = format!("snapshot-{snapshot}");
            leases.add_resource(&lease, LeaseResource { id, kind: "snapshots/native".into() }).await.unwrap();
        }
    }

    async fn check(&self, store: &Store, images: &BTreeSet<usize>) {
        let here = scope("here");
        let (blobs, snapshots) = self.reachable(images);
        let mut wanted: Vec<_> = blobs.iter().map(|blob| digest(&format!("blob {blob}"))).collect();
        wanted.sort();
        assert_eq!(store.blobs(&here).await, wanted, "{self:?}");
        let names: Vec<_> = snapshots.iter().map(|snapshot| format!("snapshot-{snapshot}")).collect();
        assert_eq!(store.snapshot_names(&here).await, names, "{self:?}");
        assert_eq!(store.backends().await, (wanted.len(), names.len()), "{self:?}");
        let images = store.metadata.images(&here).list(&Filters::default()).await.unwrap().len();
        let containers = store.metadata.containers(&here).list(&Filters::default()).await.unwrap().len();
        assert_eq!(containers, self.containers.len());
        assert!(images <= self.images.len());
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn what_is_reachable_stays_and_the_rest_goes(graph in graph()) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let scratch = Scratch::new();
            let store = open(scratch.folder());
            graph.build(&store).await;
            store.metadata.collect().await.unwrap();
            graph.check(&store, &graph.images).await;
            let images = store.metadata.images(&scope("here"));
            for image in graph.deleted.intersection(&graph.images) {
                images.delete(&format!("image-{image}").parse().unwrap(), None, Deletion::Later).await.unwrap();
            }
            store.metadata.collect().await.unwrap();
            graph.check(&store, &graph.images.difference(&graph.deleted).copied().collect()).await;
        });
    }
}
