//! Activated mounts, which somebody else keeps and the collector knows by their names.

#![expect(clippy::unwrap_used, reason = "what fails in a test has failed the test")]

mod common;

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use berth_core::{Deletion, HeldMount, MountKeeper};
use berth_types::Labels;
use common::objects::{digest, labels};
use common::{Store, open_over, scope};
use testkit::Scratch;

/// Keeps names and nothing else.
#[derive(Default)]
struct Kept(Mutex<Vec<HeldMount>>);

impl Kept {
    fn add(&self, name: &str, lease: &str, labels: Labels) {
        let mut kept = self.0.lock().unwrap();
        let number = kept.len() as u64;
        kept.push(HeldMount {
            number,
            namespace: "here".parse().unwrap(),
            name: name.to_owned(),
            lease: (!lease.is_empty()).then(|| lease.parse().unwrap()),
            labels,
        });
    }

    fn names(&self) -> BTreeSet<String> {
        self.0.lock().unwrap().iter().map(|held| held.name.clone()).collect()
    }
}

#[async_trait]
impl MountKeeper for Kept {
    fn held(&self) -> Vec<HeldMount> {
        self.0.lock().unwrap().clone()
    }

    async fn let_go(&self, numbers: Vec<u64>) {
        self.0.lock().unwrap().retain(|held| !numbers.contains(&held.number));
    }
}

fn world(scratch: &Scratch) -> (Arc<Kept>, Store) {
    let kept = Arc::new(Kept::default());
    let store = open_over(scratch.folder(), Arc::clone(&kept) as Arc<dyn MountKeeper>);
    (kept, store)
}

fn set(names: &[&str]) -> BTreeSet<String> {
    names.iter().map(|&name| name.to_owned()).collect()
}

#[tokio::test]
async fn mounts_are_held_by_leases_and_by_labels_on_either_side() {
    let scratch = Scratch::new();
    let (kept, store) = world(&scratch);
    let here = scope("here");
    store.lease(&here, "lease", Labels::new()).await;
    let past = labels(&[("containerd.io/gc.expire", "2020-01-01T00:00:00Z")]);
    store.lease(&here, "expired", past).await;
    let reference = labels(&[("containerd.io/gc.ref.mount.root", "referred")]);
    store.container(&here, "c", "", reference).await;
    let root = labels(&[("containerd.io/gc.root", "now")]);
    store.blob(&here, "kept", root).await.unwrap();
    kept.add("leased", "lease", Labels::new());
    kept.add("late", "expired", Labels::new());
    kept.add("unknown", "absent", Labels::new());
    kept.add("referred", "", Labels::new());
    kept.add("loose", "", Labels::new());
    kept.add("container's", "", labels(&[("containerd.io/gc.bref.container", "c")]));
    kept.add("blob's", "", labels(&[("containerd.io/gc.bref.content.x", digest("kept").as_str())]));
    kept.add("nobody's", "", labels(&[("containerd.io/gc.bref.container", "gone")]));
    let done = store.metadata.collect().await.unwrap();
    assert_eq!(kept.names(), set(&["leased", "referred", "container's", "blob's"]));
    assert_eq!(done.mounts, 4);

    store.metadata.containers(&here).delete(&"c".parse().unwrap()).await.unwrap();
    store.metadata.leases(&here).delete(&"lease".parse().unwrap(), Deletion::Synchronous).await.unwrap();
    assert_eq!(kept.names(), set(&["blob's"]));
}

#[tokio::test]
async fn a_mount_of_another_namespace_is_not_held_by_what_is_here() {
    let scratch = Scratch::new();
    let (kept, store) = world(&scratch);
    store.container(&scope("there"), "c", "", labels(&[("containerd.io/gc.ref.mount", "one")])).await;
    store.lease(&scope("there"), "lease", Labels::new()).await;
    kept.add("one", "lease", labels(&[("containerd.io/gc.bref.container", "c")]));
    store.metadata.collect().await.unwrap();
    assert_eq!(kept.names(), set(&[]));
}
