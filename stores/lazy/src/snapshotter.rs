//! A snapshotter some of whose snapshots are mounts of layers.

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use berth_core::{NewSnapshot, SnapshotCommit, Snapshotter};
use berth_registry::Registries;
use berth_types::filter::Filters;
use berth_types::{
    Digest, Error, ErrorKind, FieldMask, ImageRef, Labels, Mount, Result, SnapshotInfo, SnapshotKey,
    SnapshotKind, Usage,
};
use serde::{Deserialize, Serialize};
use tokio::task::JoinSet;

use crate::cache::CacheFigures;
use crate::config::Config;
use crate::figures::Figures;
use crate::index::Trust;
use crate::keeper::Keeper;
use crate::keyed::Keyed;
use crate::labels::{self, Wanted};
use crate::layer::{Layer, LayerFigures};
use crate::layers::Layers;

/// Layers of one image whose tables are looked for at once.
const AHEAD: usize = 64;

/// A layer that is mounted, for whoever wants to see how it does.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct LayerStatus {
    /// The layer.
    pub layer: Digest,
    /// Where it is mounted.
    pub point: PathBuf,
    /// Bytes of its files.
    pub bytes: u64,
    /// How many of them are here.
    pub local: u64,
    /// How much of it was used.
    pub figures: LayerFigures,
}

/// How everything does.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Status {
    /// The cache.
    pub cache: CacheFigures,
    /// The layers that are mounted, in the order of their folders.
    pub layers: Vec<LayerStatus>,
}

/// The snapshotter. See the crate's words.
pub struct Lazy {
    below: Arc<dyn Snapshotter>,
    layers: Arc<Layers>,
    /// Who makes a snapshot of a name, one at a time each.
    makers: Keyed<SnapshotKey>,
    /// Manifests whose other layers have been looked for, and those who look.
    looked: Mutex<HashSet<Digest>>,
    looking: Mutex<JoinSet<()>>,
}

impl Lazy {
    /// Stands on `below`, whose snapshots must tell their folder in overlayfs' label `upperdir`, and mounts every
    /// layer again that was mounted when an earlier process ended. One whose registry does not answer is tried again
    /// when it is used. `root` is for the cache and the tables.
    pub async fn open(
        below: Arc<dyn Snapshotter>,
        root: &Path,
        registries: Registries,
        config: Config,
        keeper: Option<Keeper>,
    ) -> Result<Self> {
        let layers = Arc::new(Layers::open(root, registries, config, keeper)?);
        let (makers, looked, looking) = (Keyed::default(), Mutex::default(), Mutex::default());
        let lazy = Self { below, layers, makers, looked, looking };
        let committed =
            |info: &SnapshotInfo| info.kind == SnapshotKind::Committed && labels::is_marked(&info.labels);
        let found: Vec<_> =
            lazy.below.list(&Filters::default()).await?.into_iter().filter(committed).collect();
        let points: HashSet<PathBuf> = found.iter().filter_map(|info| labels::folder(&info.labels)).collect();
        let folder = std::path::absolute(root)
            .map_err(|error| Error::io("cannot tell the folder's full path", error))?;
        lazy.blocking(move |layers| {
            layers.let_go(&folder, &points);
            Ok(())
        })
        .await?;
        let mounting = found.into_iter().map(|info| {
            let lazy = &lazy;
            async move {
                if let Err(error) = lazy.bring_up(&info).await {
                    tracing::warn!(key = %info.key, error = error.chain(), "a layer is not mounted yet");
                }
            }
        });
        futures::future::join_all(mounting).await;
        Ok(lazy)
    }

    /// The layers that are mounted.
    pub fn layers(&self) -> Vec<LayerStatus> {
        let cache = &self.layers.fetcher.cache;
        let status = |(point, layer): (PathBuf, Arc<Layer>)| {
            let (bytes, local) = layer.local(cache);
            LayerStatus { layer: layer.digest().clone(), point, bytes, local, figures: layer.figures() }
        };
        self.layers.mounted().into_iter().map(status).collect()
    }

    /// How everything does.
    pub fn status(&self) -> Status {
        let mut layers = self.layers();
        layers.sort_unstable_by(|one, other| one.point.cmp(&other.point));
        Status { cache: self.cache(), layers }
    }

    /// What has happened since the process began.
    pub fn figures(&self) -> Figures {
        self.layers.fetcher.counters.read(self.layers.mounted().len() as u64)
    }

    /// How the cache does.
    pub fn cache(&self) -> CacheFigures {
        self.layers.fetcher.cache.figures()
    }

    /// Makes a snapshot that is a mount of its layer. Nothing is left of it after a failure.
    async fn make(&self, new: &NewSnapshot, target: &SnapshotKey, wanted: &Wanted) -> Result<()> {
        let maker = self.makers.of(target);
        let _alone = maker.lock().await;
        if self.is_committed(target).await? {
            return Ok(());
        }
        self.look_ahead(wanted);
        let (layer, trust) = self.layers.layer(wanted).await?;
        self.layers.vouch(wanted, &layer, target).await?;
        self.below.prepare(new.clone()).await?;
        let done = self.fill(new, target, layer, (&trust, &wanted.image)).await;
        if done.is_err()
            && let Err(error) = self.below.remove(&new.key).await
        {
            tracing::warn!(key = %new.key, error = error.chain(), "cannot remove a snapshot that came to nothing");
        }
        done
    }

    /// Begins to look for the tables of the image's other layers, which are asked for one after the other.
    fn look_ahead(&self, wanted: &Wanted) {
        let Some(manifest) = &wanted.manifest else { return };
        if !self.looked.lock().unwrap_or_else(PoisonError::into_inner).insert(manifest.clone()) {
            return;
        }
        let mut looking = self.looking.lock().unwrap_or_else(PoisonError::into_inner);
        while looking.try_join_next().is_some() {}
        for layer in wanted.others.iter().filter(|layer| **layer != wanted.layer).take(AHEAD) {
            let other = Wanted { layer: layer.clone(), trust: None, others: Vec::new(), ..wanted.clone() };
            let layers = Arc::clone(&self.layers);
            looking.spawn(async move {
                if let Err(error) = layers.layer(&other).await {
                    tracing::debug!(layer = %other.layer, error = error.chain(), "a layer has no table to be had");
                }
            });
        }
    }

    /// Mounts first: whoever sees the committed snapshot may use its folder at once.
    async fn fill(
        &self,
        new: &NewSnapshot,
        target: &SnapshotKey,
        layer: Arc<Layer>,
        (trust, image): (&Trust, &ImageRef),
    ) -> Result<()> {
        let info = self.below.stat(&new.key).await?;
        let point = folder(&info)?;
        self.mount(point.clone(), layer, image.clone()).await?;
        let mut labels = new.labels.clone();
        labels::mark(&mut labels, trust);
        let done = self.below.commit(target, &new.key, labels).await;
        if done.is_err() {
            self.unmount(point).await?;
        }
        done
    }

    /// Mounts the layer of a snapshot that should be mounted and is not.
    async fn bring_up(&self, info: &SnapshotInfo) -> Result<()> {
        let point = folder(info)?;
        if self.layers.is_mounted(&point) {
            return Ok(());
        }
        let maker = self.makers.of(&info.key);
        let _alone = maker.lock().await;
        if self.layers.is_mounted(&point) {
            return Ok(());
        }
        let wanted = Wanted::of(&info.labels);
        let wanted = wanted.ok_or_else(|| {
            Error::data_loss(format!("snapshot {} does not say which layer it is", info.key))
        })?;
        let (layer, _) = self.layers.layer(&wanted).await?;
        self.blocking(move |layers| layers.bring_up(&point, layer, &wanted.image)).await
    }

    /// Sees to it that every layer below is mounted.
    async fn ready(&self, mut parent: Option<SnapshotKey>) -> Result<()> {
        while let Some(key) = parent {
            let info = self.below.stat(&key).await?;
            if labels::is_marked(&info.labels) {
                self.bring_up(&info).await?;
            }
            parent = info.parent;
        }
        Ok(())
    }

    async fn mount(&self, point: PathBuf, layer: Arc<Layer>, image: ImageRef) -> Result<()> {
        self.blocking(move |layers| layers.mount(&point, layer, &image)).await
    }

    async fn unmount(&self, point: PathBuf) -> Result<()> {
        self.blocking(move |layers| layers.unmount(&point)).await
    }

    async fn blocking(&self, work: impl FnOnce(&Layers) -> Result<()> + Send + 'static) -> Result<()> {
        let layers = Arc::clone(&self.layers);
        tokio::task::spawn_blocking(move || work(&layers))
            .await
            .map_err(|error| Error::internal("work on a mount ended early").caused_by(error))?
    }

    async fn is_committed(&self, key: &SnapshotKey) -> Result<bool> {
        match self.below.stat(key).await {
            Ok(info) => Ok(info.kind == SnapshotKind::Committed),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
            Err(error) => Err(error),
        }
    }
}

fn folder(info: &SnapshotInfo) -> Result<PathBuf> {
    labels::folder(&info.labels).ok_or_else(|| {
        Error::internal(format!("snapshot {} does not tell its folder: set upperdir_label", info.key))
    })
}

#[async_trait]
impl Snapshotter for Lazy {
    async fn stat(&self, key: &SnapshotKey) -> Result<SnapshotInfo> {
        self.below.stat(key).await
    }

    async fn update(&self, key: &SnapshotKey, mut labels: Labels, mask: &FieldMask) -> Result<SnapshotInfo> {
        // What the snapshot is does not change with what is said of it.
        let there = self.below.stat(key).await?.labels;
        labels::keep_mark(&there, &mut labels);
        self.below.update(key, labels, mask).await
    }

    async fn usage(&self, key: &SnapshotKey) -> Result<Usage> {
        self.below.usage(key).await
    }

    async fn mounts(&self, key: &SnapshotKey) -> Result<Vec<Mount>> {
        self.ready(self.below.stat(key).await?.parent).await?;
        self.below.mounts(key).await
    }

    /// AlreadyExists where the layer is there, committed under the name that the labels say.
    async fn prepare(&self, mut new: NewSnapshot) -> Result<Vec<Mount>> {
        labels::unmark(&mut new.labels);
        self.ready(new.parent.clone()).await?;
        if let (Some(target), Some(wanted)) = (labels::target(&new.labels), Wanted::of(&new.labels)) {
            let made = self.make(&new, &target, &wanted).await;
            self.layers.fetcher.counters.offered(made.is_ok());
            match made {
                Ok(()) => return Err(Error::already_exists(format!("snapshot {target} is there"))),
                Err(error) => {
                    tracing::info!(layer = %wanted.layer, error = error.chain(), "the layer has to be unpacked");
                }
            }
        }
        self.below.prepare(new).await
    }

    async fn view(&self, mut new: NewSnapshot) -> Result<Vec<Mount>> {
        labels::unmark(&mut new.labels);
        self.ready(new.parent.clone()).await?;
        self.below.view(new).await
    }

    async fn commit(&self, name: &SnapshotKey, key: &SnapshotKey, mut labels: Labels) -> Result<()> {
        labels::unmark(&mut labels);
        self.below.commit(name, key, labels).await
    }

    async fn commit_onto(
        &self,
        name: &SnapshotKey,
        key: &SnapshotKey,
        parent: &SnapshotKey,
        mut labels: Labels,
    ) -> Result<()> {
        labels::unmark(&mut labels);
        self.below.commit_onto(name, key, parent, labels).await
    }

    async fn commit_all(&self, mut commits: Vec<SnapshotCommit>) -> Result<()> {
        commits.iter_mut().for_each(|commit| labels::unmark(&mut commit.labels));
        self.below.commit_all(commits).await
    }

    async fn remove(&self, key: &SnapshotKey) -> Result<()> {
        let info = self.below.stat(key).await?;
        self.below.remove(key).await?;
        // Also of one that is not marked: a process may have ended between mount and commit.
        self.unmount(folder(&info)?).await
    }

    async fn list(&self, filters: &Filters) -> Result<Vec<SnapshotInfo>> {
        self.below.list(filters).await
    }

    async fn cleanup(&self) -> Result<()> {
        self.below.cleanup().await?;
        self.looked.lock().unwrap_or_else(PoisonError::into_inner).clear();
        let all = self.below.list(&Filters::default()).await?;
        let wanted = all.iter().filter_map(|info| Wanted::of(&info.labels)).collect();
        self.blocking(move |layers| layers.remove_tables_except(wanted)).await
    }
}
