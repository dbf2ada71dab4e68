//! Power cuts and kills at every write of the database.
//!
//! A disk that remembers what was synced: when the power goes, what was written since is there in
//! part, in any choice of whole writes. When the process is killed, all of it is there.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use berth_core::{EventStream, Events, NewSnapshot, Scope, SnapshotCommit, Snapshotter};
use berth_types::filter::Filters;
use berth_types::{
    Any, Container, ContainerId, Descriptor, Digest, Envelope, Event, Image, Labels, Namespace, Result,
    RuntimeInfo, SnapshotKey, SnapshotKind,
};
use testkit::Scratch;

use crate::opening;
use crate::storage::Redb;
use crate::{GcConfig, Metadata, Opening, Parts, Sharing};

/// What is on the disk, and what is only on its way.
#[derive(Debug, Default)]
struct Platter {
    synced: Vec<u8>,
    now: Vec<u8>,
    /// Since the last sync, in order: where, and what. `None` cuts or grows to the length.
    pending: Vec<(u64, Option<Vec<u8>>)>,
    /// How many more operations there are before everything stops.
    left: Option<usize>,
    done: usize,
}

#[derive(Clone, Debug, Default)]
struct Disk(Arc<Mutex<Platter>>);

impl Platter {
    fn step(&mut self) -> io::Result<()> {
        self.done += 1;
        match &mut self.left {
            Some(0) => Err(io::Error::other("the power is off")),
            Some(left) => {
                *left -= 1;
                Ok(())
            }
            None => Ok(()),
        }
    }
}

fn put(image: &mut Vec<u8>, offset: u64, data: Option<&[u8]>) {
    let offset = offset as usize;
    match data {
        None => image.resize(offset, 0),
        Some(data) => {
            if image.len() < offset + data.len() {
                image.resize(offset + data.len(), 0);
            }
            image[offset..offset + data.len()].copy_from_slice(data);
        }
    }
}

impl Disk {
    fn stopping_after(image: Vec<u8>, left: Option<usize>) -> Self {
        Self(Arc::new(Mutex::new(Platter { synced: image.clone(), now: image, left, ..Platter::default() })))
    }

    /// What is found after a kill of the process.
    fn after_kill(&self) -> Vec<u8> {
        self.0.lock().unwrap().now.clone()
    }

    /// What is found after a power cut; `choice` says which of the writes on their way arrived.
    fn after_power_cut(&self, mut choice: u64) -> Vec<u8> {
        let platter = self.0.lock().unwrap();
        let mut image = platter.synced.clone();
        for (offset, data) in &platter.pending {
            choice = choice.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            if choice >> 63 == 0 {
                put(&mut image, *offset, data.as_deref());
            }
        }
        image
    }

    fn operations(&self) -> usize {
        self.0.lock().unwrap().done
    }
}

impl redb::StorageBackend for Disk {
    fn len(&self) -> io::Result<u64> {
        Ok(self.0.lock().unwrap().now.len() as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let platter = self.0.lock().unwrap();
        let offset = offset as usize;
        let data = platter.now.get(offset..offset + out.len());
        out.copy_from_slice(data.ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }

    fn set_len(&self, length: u64) -> io::Result<()> {
        let mut platter = self.0.lock().unwrap();
        platter.step()?;
        put(&mut platter.now, length, None);
        platter.pending.push((length, None));
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        let mut platter = self.0.lock().unwrap();
        platter.step()?;
        platter.synced = platter.now.clone();
        platter.pending.clear();
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let mut platter = self.0.lock().unwrap();
        platter.step()?;
        put(&mut platter.now, offset, Some(data));
        platter.pending.push((offset, Some(data.to_vec())));
        Ok(())
    }
}

struct Nobody;

#[async_trait]
impl Events for Nobody {
    async fn publish(&self, _: &Namespace, _: Event) -> Result<()> {
        Ok(())
    }

    async fn forward(&self, _: Envelope) -> Result<()> {
        Ok(())
    }

    async fn subscribe(&self, _: Filters) -> Result<EventStream> {
        Ok(Box::pin(futures::stream::empty()))
    }
}

/// A store whose database is on `disk` and whose backends are in `root`.
fn open(root: &Path, disk: &Disk) -> Result<(Arc<Metadata>, Arc<dyn Snapshotter>)> {
    let native = berth_snapshot::native::open(&root.join("native"), Default::default())
        .unwrap_or_else(|_| panic!("the native snapshotter opens everywhere"));
    let parts = Parts {
        content: Arc::new(berth_content::Store::open(&root.join("content"))?),
        snapshotters: BTreeMap::from([("native".parse()?, Arc::clone(&native))]),
        mounts: None,
        events: Arc::new(Nobody),
        gc: GcConfig { startup_delay: std::time::Duration::from_hours(1), ..GcConfig::default() },
        sharing: Sharing::Shared,
    };
    let disk = disk.clone();
    let storage = Redb::on(Path::new("disk"), move || disk.clone())?;
    opening::prepare(&storage)?;
    Ok((Metadata::on(Arc::new(storage), Opening::Existing, None, parts)?, native))
}

/// What was answered before the end.
#[derive(Debug, Default)]
struct Answered {
    containers: BTreeSet<String>,
    removed: BTreeSet<String>,
    images: BTreeSet<String>,
    committed: BTreeSet<String>,
    /// Of them, those that were committed together with another.
    pairs: BTreeSet<String>,
    /// Commits that were begun.
    begun: BTreeSet<String>,
}

/// Starts and removes containers until the disk stops.
async fn work(metadata: &Metadata, answered: &mut Answered) -> Result<()> {
    let scope = Scope::new("here".parse()?);
    let snapshots = metadata.snapshotter(&"native".parse()?, &scope)?;
    for number in 0..4 {
        let name = format!("n{number}");
        let lease = metadata.leases(&scope).create(None, Labels::new()).await?;
        let (active, base): (SnapshotKey, SnapshotKey) =
            (format!("{name}-active").parse()?, format!("{name}-base").parse()?);
        snapshots.prepare(NewSnapshot { key: active.clone(), parent: None, labels: root() }).await?;
        answered.begun.insert(name.clone());
        if number % 2 == 0 {
            snapshots.commit(&base, &active, root()).await?;
        } else {
            let beside: SnapshotKey = format!("{name}-beside-active").parse()?;
            let second = NewSnapshot { key: beside.clone(), parent: None, labels: root() };
            snapshots.prepare(second).await?;
            let commit = |name: &SnapshotKey, key| SnapshotCommit {
                name: name.clone(),
                key,
                parent: None,
                labels: root(),
            };
            let second = format!("{name}-beside").parse()?;
            snapshots.commit_all(vec![commit(&base, active), commit(&second, beside)]).await?;
            answered.pairs.insert(name.clone());
        }
        answered.committed.insert(name.clone());
        snapshots
            .prepare(NewSnapshot { key: name.parse()?, parent: Some(base), labels: Labels::new() })
            .await?;
        let runtime = RuntimeInfo { name: "runtime".into(), options: None };
        let mut container = Container::new(name.parse()?, runtime);
        container.spec = Some(Any::new("spec", vec![b' '; 3000]));
        container.snapshotter = "native".into();
        container.snapshot_key.clone_from(&name);
        metadata.containers(&scope).create(container).await?;
        answered.containers.insert(name.clone());
        let target = Descriptor::new("type", Digest::sha256([number; 32]), 1);
        metadata.images(&scope).create(Image::new(name.parse()?, target)).await?;
        answered.images.insert(name.clone());
        metadata.leases(&scope).delete(&lease.id, Default::default()).await?;
        if number % 2 == 1 {
            let id: ContainerId = name.parse()?;
            answered.containers.remove(&name);
            metadata.containers(&scope).delete(&id).await?;
            answered.removed.insert(name);
            metadata.collect().await?;
        }
    }
    Ok(())
}

fn root() -> Labels {
    Labels::from([("containerd.io/gc.root".to_owned(), "1".to_owned())])
}

/// Everything that was answered is so, and everything fits together.
async fn check(root: &Path, image: Vec<u8>, answered: &Answered, what: &str) {
    let disk = Disk::stopping_after(image, None);
    let (metadata, native) = open(root, &disk).unwrap_or_else(|error| panic!("{what}: {}", error.chain()));
    let scope = Scope::new("here".parse().unwrap());
    let snapshots = metadata.snapshotter(&"native".parse().unwrap(), &scope).unwrap();
    for collected in [false, true] {
        if collected {
            metadata.collect().await.unwrap();
        }
        let what = format!("{what}, collected: {collected}, {answered:?}");
        let containers = metadata.containers(&scope).list(&Filters::default()).await.unwrap();
        let ids: BTreeSet<String> = containers.iter().map(|container| container.id.to_string()).collect();
        assert!(answered.containers.is_subset(&ids), "{what}: {ids:?}");
        assert!(answered.removed.is_disjoint(&ids), "{what}: {ids:?}");
        for container in containers {
            let key: SnapshotKey = container.snapshot_key.parse().unwrap();
            let info = snapshots.stat(&key).await.unwrap_or_else(|error| panic!("{what}: {}", error.chain()));
            snapshots.stat(&info.parent.unwrap()).await.unwrap();
            snapshots.mounts(&key).await.unwrap();
        }
        let images = metadata.images(&scope).list(&Filters::default()).await.unwrap();
        let names: BTreeSet<String> = images.into_iter().map(|image| image.name.to_string()).collect();
        assert!(answered.images.is_subset(&names), "{what}: {names:?}");
        for name in &answered.begun {
            let base = snapshots.stat(&format!("{name}-base").parse().unwrap()).await;
            if answered.committed.contains(name) {
                assert_eq!(base.unwrap().kind, SnapshotKind::Committed, "{what}");
                if answered.pairs.contains(name) {
                    let beside = snapshots.stat(&format!("{name}-beside").parse().unwrap()).await;
                    assert_eq!(beside.unwrap().kind, SnapshotKind::Committed, "{what}");
                }
            } else if base.is_err() {
                // Not committed: then it is still what it was, or was never on disk, and can be
                // made again.
                let active: SnapshotKey = format!("{name}-active").parse().unwrap();
                if snapshots.stat(&active).await.is_ok() {
                    snapshots.mounts(&active).await.unwrap();
                }
            }
        }
    }
    let recorded = snapshots.list(&Filters::default()).await.unwrap().len();
    let held = native.list(&Filters::default()).await.unwrap().len();
    assert_eq!(recorded, held, "{what}");
    let probe: SnapshotKey = "probe".parse().unwrap();
    snapshots.prepare(NewSnapshot { key: probe, parent: None, labels: Labels::new() }).await.unwrap();
    metadata.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_answered_is_true_after_any_kill_and_any_power_cut() {
    let (made, whole) = {
        let scratch = Scratch::new();
        let disk = Disk::default();
        let (metadata, _native) = open(scratch.folder(), &disk).unwrap();
        let made = disk.operations();
        work(&metadata, &mut Answered::default()).await.unwrap();
        metadata.close().await.unwrap();
        (made, disk.operations())
    };
    // A database gets its name only once it is made, see `opening`.
    let (mut cuts, step) = (0, 1 + whole / 120);
    for stop in (made..whole).step_by(step) {
        for power in [false, true] {
            let scratch = Scratch::new();
            let disk = Disk::stopping_after(Vec::new(), Some(stop));
            let mut answered = Answered::default();
            if let Ok((metadata, native)) = open(scratch.folder(), &disk) {
                let ended = work(&metadata, &mut answered).await;
                drop(metadata.close().await);
                drop((metadata, native));
                cuts += usize::from(ended.is_err());
            }
            let image = if power { disk.after_power_cut(stop as u64) } else { disk.after_kill() };
            check(scratch.folder(), image, &answered, &format!("stop {stop} of {whole}, power: {power}"))
                .await;
        }
    }
    assert!(cuts > 40, "only {cuts} runs were cut off in the middle");
}
