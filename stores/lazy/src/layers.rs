//! The layers that are mounted.

use std::collections::{HashMap, HashSet};
use std::fs;
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use berth_fuse::Device;
use berth_registry::Registries;
use berth_types::{Digest, Error, ImageRef, Result, SnapshotKey};
use tokio::runtime::Handle;
use tokio::sync::Semaphore;
use tokio::task::AbortHandle;

use crate::cache::Cache;
use crate::config::Config;
use crate::fetch::Fetcher;
use crate::figures::Reason;
use crate::filesystem::Mounted;
use crate::index::{self, Manifests, Trust};
use crate::keeper::Keeper;
use crate::keyed::Keyed;
use crate::labels::Wanted;
use crate::layer::Layer;
use crate::plain::{self, Confirming, Found, Published};
use crate::reads::{self, Learner};
use crate::soci;
use crate::source::{RegistrySource, Source};

/// Bytes of a layer that are fetched at once while nobody waits for them.
const AHEAD: u64 = 2 << 20;
/// Layers that are fetched ahead at the same time.
const AHEAD_AT_ONCE: usize = 2;
/// Layers without tables that are fetched whole at the same time.
const RECORDERS: usize = 4;
/// How long a fetch ahead rests after a failure.
const REST: Duration = Duration::from_secs(30);

/// Layers, those that are mounted and where.
pub(crate) struct Layers {
    tables: PathBuf,
    /// Indexes of layers that have no tables. They stay when their layers go.
    indexes: PathBuf,
    registries: Registries,
    pub(crate) fetcher: Fetcher,
    config: Config,
    runtime: Handle,
    ahead: Arc<Semaphore>,
    known: Mutex<HashMap<Identity, Weak<Layer>>>,
    /// How many layers without tables are fetched at once, and those that cannot have an index.
    recorders: Semaphore,
    unfit: Mutex<HashSet<Digest>>,
    manifests: Manifests,
    /// Indexes that others have published.
    published: Published,
    /// Lists of what is read first.
    reads: PathBuf,
    /// Who looks for a table, one at a time each.
    finders: Keyed<Identity>,
    keeper: Option<Arc<Mutex<Keeper>>>,
    /// Mounts of an earlier process that nobody serves yet.
    orphans: Mutex<HashMap<PathBuf, OwnedFd>>,
    mounts: Mutex<HashMap<PathBuf, Mount>>,
}

/// A layer and its table: images may name different tables for the same layer, and only vouch for their own.
type Identity = String;

struct Mount {
    layer: Arc<Layer>,
    ahead: AbortHandle,
}

impl Drop for Mount {
    fn drop(&mut self) {
        self.ahead.abort();
    }
}

impl Layers {
    /// Opens the cache and the tables below `root`. To be called within the runtime that is to do the fetching.
    pub(crate) fn open(
        root: &Path,
        registries: Registries,
        config: Config,
        keeper: Option<Keeper>,
    ) -> Result<Self> {
        let tables = root.join("tables");
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&tables)
            .map_err(|error| Error::io(format!("cannot make {}", tables.display()), error))?;
        let (indexes, reads) = (root.join("indexes"), reads::folder(root));
        for (folder, trim) in [(&indexes, plain::trim as fn(&Path) -> _), (&reads, reads::trim)] {
            let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(folder);
            made.and_then(|()| trim(folder))
                .map_err(|error| Error::io(format!("cannot open {}", folder.display()), error))?;
        }
        let orphans = keeper.as_ref().map_or(Ok(HashMap::new()), Keeper::all);
        let orphans = orphans.map_err(|error| Error::io("cannot ask for the mounts that are kept", error))?;
        let cache = Arc::new(Cache::open(root, config.cache_bytes)?);
        let fetcher = Fetcher::new(cache, config.deadline(), config.span_bytes);
        Ok(Self {
            tables,
            indexes,
            registries,
            fetcher,
            config,
            runtime: Handle::current(),
            ahead: Arc::new(Semaphore::new(AHEAD_AT_ONCE)),
            known: Mutex::default(),
            recorders: Semaphore::new(RECORDERS),
            unfit: Mutex::default(),
            manifests: Manifests::default(),
            published: Published::default(),
            reads,
            finders: Keyed::default(),
            keeper: keeper.map(|keeper| Arc::new(Mutex::new(keeper))),
            orphans: Mutex::new(orphans),
            mounts: Mutex::default(),
        })
    }

    /// A layer with its table, and by what that is trusted: one that is in use, one whose table is on disk, or one that
    /// the registry has. Bounded in time, but for a layer without a table that comes for the first time: that takes as
    /// long as the layer does.
    pub(crate) async fn layer(&self, wanted: &Wanted) -> Result<(Arc<Layer>, Trust)> {
        self.search(wanted).await.inspect_err(|error| self.fetcher.counters.failed(error))
    }

    async fn search(&self, wanted: &Wanted) -> Result<(Arc<Layer>, Trust)> {
        let late = |_| {
            let seconds = self.config.deadline().as_secs();
            Error::deadline_exceeded(format!(
                "the table of layer {} did not come within {seconds} s",
                wanted.layer
            ))
        };
        let limit = self.config.deadline();
        let trust = self.manifests.trust(&self.registries, wanted, &self.config);
        let trust = tokio::time::timeout(limit, trust);
        let trust = trust.await.map_err(late)??;
        if trust != Trust::Own {
            let found = tokio::time::timeout(limit, self.found(wanted, &trust)).await.map_err(late)?;
            return Ok((found?, trust));
        }
        Ok((self.found(wanted, &trust).await?, trust))
    }

    /// Sees to it that a layer without a table is what its image says of it.
    pub(crate) async fn vouch(&self, wanted: &Wanted, layer: &Layer, target: &SnapshotKey) -> Result<()> {
        let Some(diff_id) = layer.diff_id() else { return Ok(()) };
        self.manifests.vouch(&self.registries, wanted, diff_id, target).await
    }

    async fn found(&self, wanted: &Wanted, trust: &Trust) -> Result<Arc<Layer>> {
        let identity = trust.name(&wanted.layer);
        let finder = self.finders.of(&identity);
        let _alone = finder.lock().await;
        if let Some(layer) = self.known().get(&identity).and_then(Weak::upgrade) {
            return Ok(layer);
        }
        let found = match trust {
            Trust::Own => self.find_plain(wanted).await?,
            Trust::Ztoc { digest, size } => {
                let path = self.tables.join(trust.name(&wanted.layer));
                soci::layer(&self.registries, wanted, (digest, *size), &path).await?
            }
            Trust::Document(_) | Trust::Compressed { .. } => self.find(wanted, trust).await?,
        };
        let layer = Arc::new(found);
        self.known().insert(identity, Arc::downgrade(&layer));
        Ok(layer)
    }

    /// A layer without a table.
    async fn find_plain(&self, wanted: &Wanted) -> Result<Layer> {
        let Wanted { image, layer: digest, .. } = wanted;
        let path = self.indexes.join(Trust::Own.name(digest));
        let kept = {
            let (path, digest) = (path.clone(), digest.clone());
            tokio::task::spawn_blocking(move || plain::kept(&path, &digest)).await.ok().flatten()
        };
        if let Some(index) = kept {
            let source = RegistrySource::known(&self.registries, image, digest, index.size)?;
            return Ok(Layer::new(digest.clone(), index.layer, Arc::new(source)).holding(index.diff_id));
        }
        if let Some(layer) = self.find_published(wanted).await {
            return Ok(layer);
        }
        let unfit = || self.unfit.lock().unwrap_or_else(PoisonError::into_inner);
        if unfit().contains(digest) {
            return Err(Error::failed_precondition(format!("layer {digest} cannot have an index")));
        }
        let turn = self.recorders.acquire().await;
        let _turn = turn.map_err(|error| Error::cancelled("nothing is fetched any more").caused_by(error))?;
        let source = RegistrySource::open(&self.registries, image, digest).await?;
        let index = plain::fetch(&source, digest, &self.fetcher.cache, &path).await.map_err(|refused| {
            if refused.for_good {
                unfit().insert(digest.clone());
            }
            refused.error
        })?;
        let layer = Layer::new(digest.clone(), index.layer, Arc::new(source)).holding(index.diff_id);
        layer.count_fetched(index.size);
        self.fetcher.counters.fetched(Reason::Whole, index.size);
        tracing::info!(layer = %digest, bytes = index.size, "a layer without a table has come and has an index");
        Ok(layer)
    }

    /// A layer without a table whose index somebody trusted has published.
    async fn find_published(&self, wanted: &Wanted) -> Option<Layer> {
        let Wanted { image, layer: digest, .. } = wanted;
        if !self.config.trusts(image) {
            return None;
        }
        let path = self.published_at(digest);
        let kept = {
            let (path, digest) = (path.clone(), digest.clone());
            tokio::task::spawn_blocking(move || plain::kept(&path, &digest)).await.ok().flatten()
        };
        if let Some(index) = kept {
            let source = RegistrySource::known(&self.registries, image, digest, index.size).ok()?;
            return Some(plain::published(digest, index, source, image));
        }
        let finding = async {
            let Some(found) = self.published.find(&self.registries, wanted, &path).await? else {
                return Ok(None);
            };
            let Found { index, reads } = found;
            let source = RegistrySource::known(&self.registries, image, digest, index.size)?;
            source.gives_ranges().await?;
            if let Some(reads) = reads {
                let to = reads::file(&self.reads, image, digest);
                let adopted = tokio::task::spawn_blocking(move || reads::adopt(&reads, &to)).await;
                if let Ok(Err(error)) = adopted {
                    tracing::warn!(layer = %digest, %error, "what is read first is not kept");
                }
            }
            tracing::info!(layer = %digest, %image, "a layer without a table has a published index");
            Ok(Some(plain::published(digest, index, source, image)))
        };
        match tokio::time::timeout(self.config.deadline(), finding).await {
            Ok(Ok(found)) => found,
            Ok::<Result<_>, _>(Err(error)) => {
                tracing::info!(layer = %digest, error = error.chain(), "no published index is to be had");
                None
            }
            Err(_) => {
                tracing::info!(layer = %digest, "no published index came in time");
                None
            }
        }
    }

    /// Where a published index is, as long as it has not been confirmed.
    fn published_at(&self, layer: &Digest) -> PathBuf {
        self.indexes.join(format!("published-{}", layer.hex()))
    }

    async fn find(&self, wanted: &Wanted, trust: &Trust) -> Result<Layer> {
        let Wanted { image, layer: digest, .. } = wanted;
        let path = self.tables.join(trust.name(digest));
        let kept = {
            let (path, trust) = (path.clone(), trust.clone());
            tokio::task::spawn_blocking(move || index::kept(&path, &trust)).await.ok().flatten()
        };
        if let Some((index, size)) = kept {
            let source = RegistrySource::known(&self.registries, image, digest, size)?;
            return Ok(Layer::new(digest.clone(), index, Arc::new(source)));
        }
        let source: Arc<dyn Source> = Arc::new(RegistrySource::open(&self.registries, image, digest).await?);
        let index = index::fetch(&*source, digest, trust.clone(), &path).await?;
        Ok(Layer::new(digest.clone(), index, source))
    }

    /// Removes the tables of layers that no snapshot wants and nobody uses. Blocking.
    pub(crate) fn remove_tables_except(&self, wanted: Vec<Wanted>) -> Result<()> {
        let failed = |error| Error::io(format!("cannot clean up {}", self.tables.display()), error);
        let named = |wanted: &Wanted| Some(wanted.trust.as_ref()?.name(&wanted.layer));
        let mut names: HashSet<String> = wanted.iter().filter_map(named).collect();
        self.known().retain(|_, layer| layer.strong_count() > 0);
        names.extend(self.known().keys().cloned());
        for entry in fs::read_dir(&self.tables).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            if !names.contains(&*entry.file_name().to_string_lossy()) {
                fs::remove_file(entry.path()).map_err(failed)?;
            }
        }
        self.published.forget();
        plain::trim(&self.indexes).and_then(|()| reads::trim(&self.reads)).map_err(failed)
    }

    /// Mounts a layer of an image at a folder and begins to fetch ahead. Blocking.
    pub(crate) fn mount(&self, point: &Path, layer: Arc<Layer>, image: &ImageRef) -> Result<()> {
        let failed = |error| Error::failed_precondition("cannot mount a layer").caused_by(error);
        let device = Device::mount(point, layer.digest().as_str()).map_err(failed)?;
        if let Some(Err(error)) = self.keeper().map(|keeper| keeper.keep(point, device.as_fd())) {
            tracing::warn!(point = %point.display(), %error, "a mount will not outlive this process");
        }
        let period = Duration::from_secs(self.config.learn_seconds);
        let list = reads::file(&self.reads, image, layer.digest());
        let first = reads::known(&list).chunks(layer.index());
        let first = first.into_iter().map(|chunk| layer.place(chunk)).collect();
        let learner = (!period.is_zero()).then(|| Arc::new(Learner::new(list, period)));
        let served = self.serve(device, layer, point, (first, learner));
        if served.is_err() {
            self.unmount(point)?;
        }
        served
    }

    /// Goes on serving the mount that an earlier process left at a folder, or makes a new one. Blocking.
    pub(crate) fn bring_up(&self, point: &Path, layer: Arc<Layer>, image: &ImageRef) -> Result<()> {
        let orphan = self.orphans().remove(point);
        if let Some(device) = orphan
            && is_mount(point)
        {
            tracing::info!(point = %point.display(), "goes on serving a mount");
            // The kernel has what was read first, and does not ask for it again.
            return self.serve(Device::adopt(device), layer, point, (Vec::new(), None));
        }
        // What a process left that has ended is of no use to anybody new.
        self.unmount(point)?;
        self.mount(point, layer, image)
    }

    /// Unmounts what earlier processes mounted below a folder and where no snapshot is any more. Blocking.
    pub(crate) fn let_go(&self, folder: &Path, except: &HashSet<PathBuf>) {
        let mounted = berth_sys::mount::info::own().unwrap_or_default().into_iter();
        let mounted = mounted.filter(|mount| mount.kind.starts_with("fuse")).map(|mount| mount.point);
        let mut strays: HashSet<PathBuf> = mounted.filter(|point| point.starts_with(folder)).collect();
        strays.extend(self.orphans().keys().cloned());
        for point in strays.difference(except) {
            if let Err(error) = self.unmount(point) {
                tracing::warn!(point = %point.display(), error = error.chain(), "a mount of nobody stays");
            }
        }
    }

    fn serve(
        &self,
        device: Device,
        layer: Arc<Layer>,
        point: &Path,
        (first, learner): (Vec<usize>, Option<Arc<Learner>>),
    ) -> Result<()> {
        let device = Arc::new(device);
        let mounted = Mounted::new(Arc::clone(&layer), self.fetcher.clone(), self.runtime.clone(), learner);
        let shown = layer.digest().clone();
        let serving = move || {
            if let Err(error) = device.serve(&mounted) {
                tracing::error!(layer = %shown, %error, "a mount is not served any more");
            }
        };
        // It ends when the mount does, which may have users after it was unmounted here.
        std::thread::Builder::new()
            .name(format!("layer {}", layer.digest().short()))
            .spawn(serving)
            .map_err(|error| Error::io("cannot start the thread that serves a mount", error))?;
        let ahead = self.fetch_ahead(&layer, point, first);
        self.mounts().insert(point.to_owned(), Mount { layer, ahead });
        Ok(())
    }

    /// Fetches what was read first the last time, and what the layer's maker wants fetched, then the rest, for as long
    /// as the layer is mounted.
    fn fetch_ahead(&self, layer: &Arc<Layer>, point: &Path, first: Vec<usize>) -> AbortHandle {
        let (layer, fetcher, turns) = (Arc::clone(layer), self.fetcher.clone(), Arc::clone(&self.ahead));
        self.fetcher.demand.expect();
        let ends = [(layer.prefetch(), false), (if self.config.background { u64::MAX } else { 0 }, true)];
        let confirming = layer.unconfirmed().filter(|_| self.config.background).map(|image| Confirming {
            registries: self.registries.clone(),
            image: image.clone(),
            own: self.indexes.join(Trust::Own.name(layer.digest())),
            published: self.published_at(layer.digest()),
            point: point.to_owned(),
            keeper: self.keeper.clone(),
        });
        let fetching = async move {
            if let Err(error) = fetcher.first(&layer, first).await {
                tracing::info!(layer = %layer.digest(), %error, "what was read first is not all here");
            }
            if let Some(confirming) = confirming {
                confirming.run(&layer, &fetcher, &turns).await;
            }
            for (end, is_patient) in ends.into_iter().filter(|(end, _)| *end > 0) {
                loop {
                    // Whoever is wanted at once waits for nobody.
                    let turn = if is_patient { Some(turns.acquire().await) } else { None };
                    if matches!(turn, Some(Err(_))) {
                        return;
                    }
                    match fetcher.ahead(&layer, end, AHEAD, is_patient).await {
                        Ok(()) => break,
                        Err(error) => tracing::info!(layer = %layer.digest(), %error, "fetching ahead rests"),
                    }
                    drop(turn);
                    tokio::time::sleep(REST).await;
                }
            }
            tracing::debug!(layer = %layer.digest(), "nothing is left to be fetched");
        };
        self.runtime.spawn(fetching).abort_handle()
    }

    /// Whether a layer is mounted at a folder.
    pub(crate) fn is_mounted(&self, point: &Path) -> bool {
        self.mounts().contains_key(point)
    }

    /// Unmounts what is at a folder; whoever uses it keeps it. Blocking; fine where nothing is.
    pub(crate) fn unmount(&self, point: &Path) -> Result<()> {
        let (mount, orphan) = (self.mounts().remove(point), self.orphans().remove(point));
        if (mount.is_some() || orphan.is_some())
            && let Some(Err(error)) = self.keeper().map(|keeper| keeper.forget(point))
        {
            tracing::warn!(point = %point.display(), %error, "the keeper keeps a mount of nobody");
        }
        berth_sys::mount::unmount_all(point)
            .map_err(|error| Error::failed_precondition("cannot unmount a layer").caused_by(error))
    }

    /// What is mounted where.
    pub(crate) fn mounted(&self) -> Vec<(PathBuf, Arc<Layer>)> {
        self.mounts().iter().map(|(point, mount)| (point.clone(), Arc::clone(&mount.layer))).collect()
    }

    fn known(&self) -> MutexGuard<'_, HashMap<Identity, Weak<Layer>>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn keeper(&self) -> Option<MutexGuard<'_, Keeper>> {
        self.keeper.as_ref().map(|keeper| keeper.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn orphans(&self) -> MutexGuard<'_, HashMap<PathBuf, OwnedFd>> {
        self.orphans.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn mounts(&self) -> MutexGuard<'_, HashMap<PathBuf, Mount>> {
        self.mounts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether something of this kind is mounted at a folder. The table is read, for a mount that nobody serves answers
/// nothing.
fn is_mount(point: &Path) -> bool {
    let mounts = berth_sys::mount::info::own().unwrap_or_default();
    mounts.iter().any(|mount| mount.point == point && mount.kind.starts_with("fuse"))
}
