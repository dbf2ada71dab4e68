//! Snapshotters that fail, or have already what is asked for.

#![expect(clippy::unwrap_used, reason = "what fails in a test has failed the test")]

mod common;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use berth_core::{NewSnapshot, Scope, Snapshotter};
use berth_metadata::Metadata;
use berth_types::filter::Filters;
use berth_types::{Error, ErrorKind, FieldMask, Labels, Mount, Result, SnapshotInfo, SnapshotKey, Usage};
use common::objects::labels;
use common::{Store, scope};
use testkit::Scratch;

const REFERENCE: &str = "containerd.io/snapshot.ref";

/// A snapshotter that fails when it is told to, and has targets like a remote one.
struct Moody {
    inner: Arc<dyn Snapshotter>,
    prepares: AtomicBool,
    commits: AtomicBool,
    removes: AtomicBool,
    /// Targets that it has: reference → its own key.
    targets: Mutex<BTreeMap<String, SnapshotKey>>,
}

impl Moody {
    fn check(flag: &AtomicBool) -> Result<()> {
        if flag.load(Ordering::Relaxed) { Ok(()) } else { Err(Error::unavailable("not in the mood")) }
    }
}

#[async_trait]
impl Snapshotter for Moody {
    async fn stat(&self, key: &SnapshotKey) -> Result<SnapshotInfo> {
        self.inner.stat(key).await
    }

    async fn update(&self, key: &SnapshotKey, labels: Labels, mask: &FieldMask) -> Result<SnapshotInfo> {
        self.inner.update(key, labels, mask).await
    }

    async fn usage(&self, key: &SnapshotKey) -> Result<Usage> {
        self.inner.usage(key).await
    }

    async fn mounts(&self, key: &SnapshotKey) -> Result<Vec<Mount>> {
        self.inner.mounts(key).await
    }

    async fn prepare(&self, new: NewSnapshot) -> Result<Vec<Mount>> {
        Self::check(&self.prepares)?;
        let target = new.labels.get(REFERENCE).cloned().unwrap_or_default();
        if self.targets.lock().unwrap().contains_key(&target) {
            return Err(Error::already_exists("the target is here"));
        }
        self.inner.prepare(new).await
    }

    async fn view(&self, new: NewSnapshot) -> Result<Vec<Mount>> {
        self.inner.view(new).await
    }

    async fn commit(&self, name: &SnapshotKey, key: &SnapshotKey, labels: Labels) -> Result<()> {
        Self::check(&self.commits)?;
        self.inner.commit(name, key, labels).await
    }

    async fn remove(&self, key: &SnapshotKey) -> Result<()> {
        Self::check(&self.removes)?;
        self.inner.remove(key).await
    }

    async fn list(&self, filters: &Filters) -> Result<Vec<SnapshotInfo>> {
        let mut all = self.inner.list(&Filters::default()).await?;
        for (target, key) in self.targets.lock().unwrap().iter() {
            for info in all.iter_mut().filter(|info| info.key == *key) {
                info.labels.insert(REFERENCE.to_owned(), target.clone());
            }
        }
        all.retain(|info| filters.matches(info));
        Ok(all)
    }

    async fn cleanup(&self) -> Result<()> {
        Err(Error::not_implemented("nothing to clean up"))
    }
}

fn open(scratch: &Scratch) -> (Store, Arc<Moody>, Scope) {
    let mut parts = common::parts(scratch.folder());
    let inner = Arc::clone(&parts.snapshotters[&common::native()]);
    let yes = || AtomicBool::new(true);
    let moody = Arc::new(Moody {
        inner: Arc::clone(&inner),
        prepares: yes(),
        commits: yes(),
        removes: yes(),
        targets: Mutex::default(),
    });
    parts.snapshotters.insert(common::native(), Arc::clone(&moody) as Arc<dyn Snapshotter>);
    let events = Arc::new(common::Told::default());
    parts.events = Arc::clone(&events) as Arc<dyn berth_core::Events>;
    let content = Arc::clone(&parts.content);
    let metadata = Metadata::open(&scratch.path("meta.redb"), parts).unwrap();
    (Store { metadata, content, native: inner, events }, moody, scope("here"))
}

fn key(text: &str) -> SnapshotKey {
    text.parse().unwrap()
}

#[tokio::test]
async fn a_failed_preparation_leaves_nothing() {
    let scratch = Scratch::new();
    let (store, moody, here) = open(&scratch);
    moody.prepares.store(false, Ordering::Relaxed);
    let error = store.active(&here, "a", "", Labels::new()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert!(store.snapshot_names(&here).await.is_empty());
    assert!(store.events.topics(&here.namespace).is_empty());
    moody.prepares.store(true, Ordering::Relaxed);
    store.active(&here, "a", "", Labels::new()).await.unwrap();
    let error = store.active(&here, "b", "nowhere", Labels::new()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
    let error = store.active(&here, "a", "", Labels::new()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::AlreadyExists);
    // A lease that isn't there is found out last, and what was made goes again.
    let leased = here.with_lease("nowhere".parse().unwrap());
    let error = store.active(&leased, "c", "", Labels::new()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
    store.container(&here, "holds", "a", Labels::new()).await;
    store.metadata.collect().await.unwrap();
    assert_eq!(store.backends().await.1, 1);
}

#[tokio::test]
async fn a_failed_commit_can_be_tried_again() {
    let scratch = Scratch::new();
    let (store, moody, here) = open(&scratch);
    store.active(&here, "a", "", Labels::new()).await.unwrap();
    moody.commits.store(false, Ordering::Relaxed);
    let snapshots = store.snapshots(&here);
    let error = snapshots.commit(&key("c"), &key("a"), Labels::new()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert_eq!(store.snapshot_names(&here).await, ["a"]);
    snapshots.mounts(&key("a")).await.unwrap();
    moody.commits.store(true, Ordering::Relaxed);
    snapshots.commit(&key("c"), &key("a"), Labels::new()).await.unwrap();
    assert_eq!(store.snapshot_names(&here).await, ["c"]);
    let topics = store.events.topics(&here.namespace);
    assert_eq!(topics, ["/snapshot/prepare", "/snapshot/commit"]);
}

#[tokio::test]
async fn what_the_backend_will_not_remove_is_tried_again() {
    let scratch = Scratch::new();
    let (store, moody, here) = open(&scratch);
    store.committed(&here, "base", "", Labels::new()).await;
    store.active(&here, "top", "base", Labels::new()).await.unwrap();
    let snapshots = store.snapshots(&here);
    let error = snapshots.remove(&key("base")).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::FailedPrecondition);
    moody.removes.store(false, Ordering::Relaxed);
    snapshots.remove(&key("top")).await.unwrap();
    snapshots.remove(&key("base")).await.unwrap();
    assert!(store.snapshot_names(&here).await.is_empty());
    assert_eq!(store.metadata.collect().await.unwrap().snapshots_freed, 0);
    assert_eq!(store.backends().await.1, 2);
    moody.removes.store(true, Ordering::Relaxed);
    assert_eq!(store.metadata.collect().await.unwrap().snapshots_freed, 2);
    assert_eq!(store.backends().await.1, 0);
}

#[tokio::test]
async fn a_target_that_the_backend_has_is_recorded_and_said_to_exist() {
    let scratch = Scratch::new();
    let (store, moody, here) = open(&scratch);
    // As a remote snapshotter brings it about by itself.
    let new = NewSnapshot { key: key("remote-active"), parent: None, labels: Labels::new() };
    moody.inner.prepare(new).await.unwrap();
    moody.inner.commit(&key("remote"), &key("remote-active"), Labels::new()).await.unwrap();
    moody.targets.lock().unwrap().insert("chain".to_owned(), key("remote"));
    for namespace in ["here", "there"] {
        let scope = scope(namespace);
        let target = labels(&[(REFERENCE, "chain"), ("containerd.io/gc.root", "1")]);
        for _ in 0..2 {
            let error = store.active(&scope, "extract", "", target.clone()).await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::AlreadyExists, "{}", error.chain());
            assert_eq!(store.snapshot_names(&scope).await, ["chain"]);
        }
        // And others build on it.
        store.active(&scope, "top", "chain", labels(&[("containerd.io/gc.root", "1")])).await.unwrap();
    }
    // As long as one namespace has it, it stays.
    let snapshots = store.snapshots(&here);
    snapshots.remove(&key("top")).await.unwrap();
    snapshots.remove(&key("chain")).await.unwrap();
    store.metadata.collect().await.unwrap();
    moody.inner.stat(&key("remote")).await.unwrap();
    assert_eq!(store.snapshot_names(&scope("there")).await, ["chain", "top"]);
}

#[tokio::test]
async fn labels_for_the_snapshotter_reach_it_and_others_do_not() {
    let scratch = Scratch::new();
    let (store, moody, here) = open(&scratch);
    let both = labels(&[("containerd.io/snapshot/x", "1"), ("mine", "2")]);
    store.active(&here, "a", "", both.clone()).await.unwrap();
    let snapshots = store.snapshots(&here);
    assert_eq!(snapshots.stat(&key("a")).await.unwrap().labels, both);
    let [held] = &moody.inner.list(&Filters::default()).await.unwrap()[..] else { panic!("one snapshot") };
    assert_eq!(held.labels, labels(&[("containerd.io/snapshot/x", "1")]));
    assert!(held.key.as_str().starts_with("here/") && held.key.as_str().ends_with("/a"), "{:?}", held.key);
    let mask = FieldMask::new(["labels.mine", "labels.containerd.io/snapshot/x"]);
    let new = labels(&[("containerd.io/snapshot/x", "3")]);
    let info = snapshots.update(&key("a"), new.clone(), &mask).await.unwrap();
    assert_eq!(info.labels, new);
    assert_eq!(moody.inner.stat(&held.key).await.unwrap().labels, new);
    let error = snapshots.update(&key("a"), new, &FieldMask::new(["parent"])).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidArgument);
}
