//! Images from a registry.
//!
//! ```text
//!   resolve → documents, from the top ─┬▶ config and layers, several at once → labels ─┬▶ record
//!                                      └▶ each layer, as it comes: unpack ─────────────┘
//! ```
//! A snapshotter that can do without a layer's bytes is asked first, once the configuration is there; what it has is not
//! fetched. The record comes last: an image that has a name is whole.
//!
//! Every ingest is named as containerd names it (`layer-sha256:…`), so a pull that was broken off, by whomever, is
//! taken up where it stopped, and two pulls of one layer make one download.

use std::collections::HashSet;
use std::pin::pin;
use std::time::Duration;

use berth_core::{Catalog, CommitRequest, ContentStore, Ingest, IngestRequest, Scope, UnpackedBlobs};
use berth_oci::image::{Document, PlatformMatch, media};
use berth_registry::{Access, Registries, Repository};
use berth_types::{
    Descriptor, Digest, Error, ErrorKind, FieldMask, Image, ImageName, ImageRef, IngestRef, Labels, Result,
    SnapshotterName,
};
use bytes::{Bytes, BytesMut};
use futures::stream::FuturesUnordered;
use futures::{FutureExt, StreamExt};
use tokio::time::Instant;

use crate::content::{self, Opened};
use crate::graph::{self, Budget, Limits};
use crate::hold::{Hold, Rest};
use crate::image::publish;
use crate::platforms::Platforms;
use crate::progress::{Object, Reported, Reporter, State};
use crate::recipes::{self, LetGo};
use crate::tar::CHUNK;
use crate::unpack::{Arrival, Arrivals, Unpack, Unpacked, arriving, offer, wants_labels};
use crate::verify::Verifiers;

/// The label that says where content came from, followed by the registry.
pub(crate) const SOURCE: &str = "containerd.io/distribution.source.";

/// containerd's limit of a label's key and value together.
const LABEL_LIMIT: usize = 4096;

/// Another writer of the same ingest that makes no progress for so long is not waited for.
const STALLED: Duration = Duration::from_mins(1);

/// How often another writer's progress is looked at.
const LOOK: Duration = Duration::from_millis(100);

/// How to pull.
#[derive(Clone, Debug)]
pub struct Pull {
    /// What.
    pub reference: ImageRef,
    /// The name of the record; the reference itself if none is given.
    pub name: Option<ImageName>,
    /// Which images of an index.
    pub platforms: Platforms,
    /// Of which platforms manifests and configurations are fetched.
    pub metadata: Metadata,
    /// Whether and where to unpack, and for which platform.
    pub unpack: Option<(PlatformMatch, SnapshotterName)>,
    /// What becomes of the layers' blobs once they are unpacked.
    pub blobs: UnpackedBlobs,
    /// Labels of the record.
    pub labels: Labels,
    /// Bounds of the documents.
    pub limits: Limits,
    /// Blobs at once.
    pub parallel: usize,
    /// Where progress goes.
    pub progress: Reporter,
}

impl Pull {
    /// A pull of the best image for this machine, without unpacking.
    pub fn new(reference: ImageRef) -> Self {
        Self {
            reference,
            name: None,
            platforms: Platforms::host(),
            metadata: Metadata::Wanted,
            unpack: None,
            blobs: UnpackedBlobs::Kept,
            labels: Labels::new(),
            limits: Limits::default(),
            parallel: 4,
            progress: Reporter::none(),
        }
    }
}

impl Pull {
    /// What is to be unpacked, if anything is.
    fn unpacking(&self, target: &Descriptor) -> Option<Unpack> {
        let (platform, snapshotter) = self.unpack.as_ref()?;
        Some(Unpack {
            target: target.clone(),
            platform: platform.clone(),
            snapshotter: snapshotter.clone(),
            progress: self.progress.clone(),
        })
    }
}

/// Of which platforms manifests and configurations are fetched.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Metadata {
    /// Of those whose layers are.
    #[default]
    Wanted,
    /// Of every one: others can then be told what there is.
    All,
}

/// What a pull made.
#[derive(Clone, Debug)]
pub struct Pulled {
    /// The record.
    pub image: Image,
    /// Whether the name stood for something else before, or for nothing.
    pub changed: bool,
    /// The snapshots, if they were asked for.
    pub unpacked: Option<Unpacked>,
    /// Layers whose blobs were to be let go and are kept, and why.
    pub kept: Vec<(Digest, String)>,
}

/// Pulls an image, publishes it and unpacks it. Content that is here is not fetched again.
pub async fn pull(
    catalog: &dyn Catalog,
    scope: &Scope,
    registries: &Registries,
    request: &Pull,
) -> Result<Pulled> {
    let repository = registries.repository(&request.reference, Access::Pull)?;
    let name = match &request.name {
        Some(name) => name.clone(),
        None => request.reference.to_string().parse()?,
    };
    let report = request.progress.object(name.as_str(), Object::Reference, 0);
    report.whole(State::Transferring);
    let target = repository.resolve(&request.reference).await?;
    report.whole(State::Complete);
    if let Some(verifiers) = Verifiers::of(catalog).await? {
        verifiers.judge(&request.reference, &target).await?;
    }
    let hold = Hold::begin(catalog, scope).await?;
    let rest = Rest::of(catalog, scope, &name)?;
    let pulled = pull_held(catalog, hold.scope(), &repository, request, name, target).await;
    let kept = match &pulled {
        Ok(_) => rest.forget().await,
        // A full disk needs the room more than the next pull needs the bytes.
        Err(error) if error.kind() == ErrorKind::ResourceExhausted => Ok(()),
        Err(_) => hold.keep(&rest).await,
    };
    hold.over(pulled.and_then(|pulled| kept.map(|()| pulled))).await
}

async fn pull_held(
    catalog: &dyn Catalog,
    scope: &Scope,
    repository: &Repository,
    request: &Pull,
    name: ImageName,
    target: Descriptor,
) -> Result<Pulled> {
    let store = catalog.content(scope);
    let fetch = Fetch { store: &*store, repository, request };
    let (nodes, mut blobs) = fetch.manifests(&target).await?;
    let spared = spared(catalog, scope, request, &target).await?;
    blobs.retain(|blob| !spared.contains(&blob.digest));
    let arrivals = Arrivals::new();
    let waiting = arrivals.waiting();
    let unpack = request.unpacking(&target);
    let (configs_first, mut blobs): (Vec<_>, Vec<_>) = match &unpack {
        Some(unpack) if wants_labels(catalog, unpack).await => {
            blobs.into_iter().partition(|blob| media::is_config(&blob.media_type))
        }
        _ => (Vec::new(), blobs),
    };
    if let Some(unpack) = unpack.as_ref().filter(|_| !configs_first.is_empty()) {
        fetch.blobs(&configs_first, &arrivals).await?;
        let there = offer(catalog, scope, unpack, &request.reference).await?;
        blobs.retain(|blob| !there.contains(&blob.digest));
    }
    let unpacking = async {
        let Some(unpack) = &unpack else { return Ok(None) };
        for config in configs(&nodes) {
            waiting.there(&config.digest).await?;
        }
        arriving(catalog, scope, unpack, &waiting).await.map(Some)
    };
    let fetching = async {
        // What has not come when this ends will not come.
        let arrivals = arrivals;
        fetch.blobs(&blobs, &arrivals).await
    };
    let unpacked = both(fetching, unpacking).await?;
    let let_go = match (request.blobs, &unpacked, &unpack) {
        (UnpackedBlobs::Recipes, Some(unpacked), Some(unpack)) => {
            recipes::make(catalog, scope, &unpacked.image, &unpack.snapshotter).await?
        }
        (UnpackedBlobs::LetGo, Some(unpacked), _) => LetGo::all(&unpacked.image),
        _ => LetGo::default(),
    };
    fetch.link(&nodes, &let_go).await?;
    let images = catalog.images(scope);
    let before = match images.image(&name).await {
        Ok(image) => Some(image.target.digest),
        Err(error) if error.kind() == ErrorKind::NotFound => None,
        Err(error) => return Err(error),
    };
    let record = Image { labels: request.labels.clone(), ..Image::new(name, target.clone()) };
    let image = publish(&*images, record).await?;
    Ok(Pulled { changed: before.as_ref() != Some(&target.digest), image, unpacked, kept: let_go.kept })
}

/// The layers that need not be fetched: they are unpacked, and their blobs are not to be kept.
async fn spared(
    catalog: &dyn Catalog,
    scope: &Scope,
    request: &Pull,
    target: &Descriptor,
) -> Result<HashSet<Digest>> {
    let Some(unpack) = request.unpacking(target).filter(|_| request.blobs != UnpackedBlobs::Kept) else {
        return Ok(HashSet::new());
    };
    crate::unpack::spared(catalog, scope, &unpack).await
}

/// Fetches and unpacks at the same time. When fetching fails, unpacking comes to its end by itself and leaves nothing
/// half done; when unpacking fails, no more is fetched.
async fn both<T>(
    fetching: impl Future<Output = Result<()>>,
    unpacking: impl Future<Output = Result<T>>,
) -> Result<T> {
    let (mut fetching, mut unpacking) = (pin!(fetching), pin!(unpacking));
    tokio::select! {
        fetched = &mut fetching => {
            let unpacked = unpacking.await;
            fetched.and(unpacked)
        }
        unpacked = &mut unpacking => {
            let unpacked = unpacked?;
            fetching.await?;
            Ok(unpacked)
        }
    }
}

/// The configurations of the manifests, which say what layers have to be.
fn configs(nodes: &[Node]) -> impl Iterator<Item = &Descriptor> {
    nodes.iter().flat_map(|(_, children)| children).filter(|child| media::is_config(&child.media_type))
}

/// A document with those of its children that are wanted.
type Node = (Descriptor, Vec<Descriptor>);

/// A blob all of whose bytes are in its ingest, or why they are not.
struct Fetched<'a> {
    blob: &'a Descriptor,
    name: IngestRef,
    report: Reported,
    ingest: Box<dyn Ingest>,
    /// How many bytes were there before.
    resumed: u64,
    done: Result<()>,
}

struct Fetch<'a> {
    store: &'a dyn ContentStore,
    repository: &'a Repository,
    request: &'a Pull,
}

impl Fetch<'_> {
    /// Fetches the documents from `root` on; answers them, and which blobs they need: configurations first.
    async fn manifests(&self, root: &Descriptor) -> Result<(Vec<Node>, Vec<Descriptor>)> {
        if !graph::is_document(&root.media_type) {
            return Err(Error::invalid_argument(format!(
                "{} is no image but a {}",
                self.request.reference, root.media_type
            )));
        }
        let nodes = self.documents(root).await?;
        let mut seen = HashSet::new();
        let mut blobs: Vec<Descriptor> = nodes
            .iter()
            .flat_map(|(_, children)| children)
            .filter(|child| !graph::is_document(&child.media_type) && seen.insert(child.digest.clone()))
            .cloned()
            .collect();
        blobs.sort_by_key(|blob| !media::is_config(&blob.media_type));
        Ok((nodes, blobs))
    }

    /// Fetches blobs, several at once, and tells of each that begins to come and that is there. To be put into the
    /// store keeps no blob from being fetched: those that are put there at the same time cost one flush.
    async fn blobs(&self, blobs: &[Descriptor], arrivals: &Arrivals) -> Result<()> {
        for blob in blobs {
            self.report(blob).at(State::Waiting, 0);
        }
        let fetches: Vec<_> = blobs.iter().map(|blob| self.fetch(blob, arrivals).boxed()).collect();
        let mut fetches = futures::stream::iter(fetches).buffer_unordered(self.request.parallel.max(1));
        let mut keeping = FuturesUnordered::new();
        loop {
            tokio::select! {
                Some(fetched) = fetches.next() => {
                    if let Some(fetched) = fetched? {
                        keeping.push(self.keep(fetched, arrivals).boxed());
                    }
                }
                Some(kept) = keeping.next() => kept?,
                else => return Ok(()),
            }
        }
    }

    /// Lets each document keep its children; in place of layers that are let go, their recipes.
    async fn link(&self, nodes: &[Node], let_go: &LetGo) -> Result<()> {
        for (descriptor, children) in nodes.iter().rev() {
            let mut labels = graph::gc_labels(children);
            if labels.is_empty() {
                continue;
            }
            let layers = || children.iter().filter(|child| media::is_layer(&child.media_type));
            let keys = labels.keys().cloned().chain(layers().map(|layer| recipes::label(&layer.digest)));
            let mask = FieldMask::new(keys.map(|key| format!("labels.{key}")));
            for layer in layers() {
                if let Some(recipe) = let_go.layers.get(&layer.digest) {
                    labels.retain(|_, value| value.as_str() != layer.digest.as_str());
                    let recipe = recipe.as_ref();
                    labels.extend(recipe.map(|recipe| (recipes::label(&layer.digest), recipe.to_string())));
                }
            }
            // What the mask names and the labels do not have goes.
            self.store.update(&descriptor.digest, labels, &mask).await?;
        }
        Ok(())
    }

    /// Fetches the documents, parents before children, with those of their children that are wanted.
    async fn documents(&self, root: &Descriptor) -> Result<Vec<Node>> {
        let mut budget = Budget::new(self.request.limits);
        let mut nodes = Vec::new();
        let mut level = vec![root.clone()];
        for depth in 0.. {
            if level.is_empty() {
                break;
            }
            budget.descend(depth, root)?;
            let mut next = Vec::new();
            for descriptor in std::mem::take(&mut level) {
                if !budget.admit(&descriptor)? {
                    continue;
                }
                let data = self.document(&descriptor).await?;
                budget.spend(data.len() as u64)?;
                let document = Document::parse(&descriptor.media_type, &data)?;
                let is_index = matches!(document, Document::Index(_));
                let mut children = graph::children(document);
                if is_index {
                    let selected = graph::selected(&descriptor, children.clone(), &self.request.platforms)?;
                    if self.request.metadata == Metadata::Wanted {
                        children = selected;
                    }
                } else if !self.request.platforms.includes(&descriptor) {
                    children.retain(|child| media::is_config(&child.media_type));
                }
                next.extend(children.iter().filter(|child| graph::is_document(&child.media_type)).cloned());
                nodes.push((descriptor, children));
            }
            level = next;
        }
        Ok(nodes)
    }

    async fn document(&self, descriptor: &Descriptor) -> Result<Bytes> {
        let report = self.report(descriptor);
        let limit = self.request.limits.document;
        if descriptor.size > limit {
            return Err(Error::resource_exhausted(format!(
                "the document {} has {} bytes, more than the {limit} allowed here",
                descriptor.digest, descriptor.size
            )));
        }
        let Some((mut ingest, offset)) = self.open(descriptor, &reference(descriptor)?, &report).await?
        else {
            self.source(&descriptor.digest).await?;
            report.whole(State::Exists);
            return content::document(self.store, descriptor, limit).await.map(Bytes::from);
        };
        report.at(State::Transferring, 0);
        let data = self.repository.manifest(descriptor).await?;
        if offset > 0 {
            ingest.truncate(0).await?;
        }
        ingest.write(0, data.clone()).await?;
        self.commit(descriptor, &mut *ingest, data.len() as u64).await?;
        report.whole(State::Complete);
        Ok(data)
    }

    fn report(&self, descriptor: &Descriptor) -> Reported {
        let kind = match descriptor.media_type.as_str() {
            kind if graph::is_document(kind) => Object::Document,
            kind if media::is_config(kind) => Object::Config,
            _ => Object::Layer,
        };
        self.request.progress.object(descriptor.digest.as_str(), kind, descriptor.size)
    }

    fn own_source(&self) -> (String, String) {
        (format!("{SOURCE}{}", self.repository.registry()), self.repository.path().to_owned())
    }

    /// Remembers that content which was here already is in this repository too.
    async fn source(&self, digest: &Digest) -> Result<()> {
        let (key, path) = self.own_source();
        let labels = self.store.info(digest).await?.labels;
        let known = labels.get(&key).map_or("", String::as_str);
        if known.split(',').any(|known| known == path) {
            return Ok(());
        }
        let value = if known.is_empty() { path } else { format!("{known},{path}") };
        if key.len() + value.len() > LABEL_LIMIT {
            return Ok(());
        }
        content::add_labels(self.store, digest, Labels::from([(key, value)])).await
    }

    /// Fetches a blob, or waits for whoever is fetching it; nothing if it is there.
    async fn fetch<'b>(&self, blob: &'b Descriptor, arrivals: &Arrivals) -> Result<Option<Fetched<'b>>> {
        let report = self.report(blob);
        let name = reference(blob)?;
        let Some((mut ingest, resumed)) = self.open(blob, &name, &report).await? else {
            self.source(&blob.digest).await?;
            report.whole(State::Exists);
            arrivals.tell(&blob.digest, Arrival::There);
            return Ok(None);
        };
        arrivals.tell(&blob.digest, Arrival::Coming(name.clone()));
        let done = self.fill(blob, &mut *ingest, resumed, &report).await;
        Ok(Some(Fetched { blob, name, report, ingest, resumed, done }))
    }

    /// Verifies a blob and puts it into the store. One that was begun by somebody else and turns out wrong is begun
    /// anew, once.
    async fn keep(&self, fetched: Fetched<'_>, arrivals: &Arrivals) -> Result<()> {
        let Fetched { blob, name, report, mut ingest, resumed, done } = fetched;
        let mut done = match done {
            Ok(()) => self.commit(blob, &mut *ingest, blob.size).await,
            failed => failed,
        };
        // After a commit that was refused a writer is of no more use; the ingest itself is still there.
        drop(ingest);
        if resumed > 0 && matches!(&done, Err(error) if error.kind() == ErrorKind::FailedPrecondition) {
            self.store.abort(&name).await?;
            done = match self.open(blob, &name, &report).await? {
                Some((mut ingest, offset)) => match self.fill(blob, &mut *ingest, offset, &report).await {
                    Ok(()) => self.commit(blob, &mut *ingest, blob.size).await,
                    failed => failed,
                },
                None => Ok(()),
            };
        }
        if let Err(error) = done {
            if error.kind() == ErrorKind::FailedPrecondition {
                // Bytes that are wrong must not be gone on from.
                self.store.abort(&name).await.ok();
            }
            return Err(error.context(format!("cannot pull layer or config {}", blob.digest)));
        }
        report.whole(State::Complete);
        arrivals.tell(&blob.digest, Arrival::There);
        Ok(())
    }

    /// The ingest, once nobody else has it; nothing when the blob is there. That it is asked for by its digest puts
    /// a blob that is there under the lease, which merely looking at it would not.
    async fn open(
        &self,
        descriptor: &Descriptor,
        name: &IngestRef,
        report: &Reported,
    ) -> Result<Option<(Box<dyn Ingest>, u64)>> {
        let mut last = (0, Instant::now());
        loop {
            let expected = Some(descriptor.digest.clone());
            let request = IngestRequest { reference: name.clone(), total: descriptor.size, expected };
            let busy = match content::open(self.store, request).await {
                Ok(Opened::Exists) => return Ok(None),
                Ok(Opened::Writing(ingest, offset)) => return Ok(Some((ingest, offset))),
                Err(error) if error.kind() == ErrorKind::Unavailable => error,
                Err(error) => return Err(error),
            };
            let offset = self.store.ingest(name).await.map_or(last.0, |status| status.offset);
            report.at(State::Transferring, offset);
            if offset != last.0 {
                last = (offset, Instant::now());
            } else if last.1.elapsed() > STALLED {
                let text = format!("somebody else is fetching {} and does not go on", descriptor.digest);
                return Err(busy.context(text));
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    async fn fill(
        &self,
        descriptor: &Descriptor,
        ingest: &mut dyn Ingest,
        resumed: u64,
        report: &Reported,
    ) -> Result<()> {
        let mut offset = resumed;
        if offset > descriptor.size {
            ingest.truncate(0).await?;
            offset = 0;
        }
        report.at(State::Transferring, offset);
        if offset < descriptor.size {
            let mut blob = self.repository.blob(descriptor, offset).await?;
            let mut buffer = BytesMut::with_capacity(CHUNK);
            while let Some(next) = blob.next().await? {
                // A part that came whole is written as it is.
                let data = if buffer.is_empty() && next.len() >= CHUNK / 2 {
                    next
                } else {
                    buffer.extend_from_slice(&next);
                    if buffer.len() < CHUNK / 2 {
                        continue;
                    }
                    buffer.split().freeze()
                };
                write(ingest, &mut offset, data, report).await?;
            }
            write(ingest, &mut offset, buffer.freeze(), report).await?;
        }
        Ok(())
    }

    async fn commit(&self, descriptor: &Descriptor, ingest: &mut dyn Ingest, size: u64) -> Result<()> {
        let labels = Labels::from([self.own_source()]);
        let commit = CommitRequest { size: Some(size), expected: Some(descriptor.digest.clone()), labels };
        content::commit(self.store, ingest, commit).await
    }
}

async fn write(ingest: &mut dyn Ingest, offset: &mut u64, data: Bytes, report: &Reported) -> Result<()> {
    if data.is_empty() {
        return Ok(());
    }
    let length = data.len() as u64;
    ingest.write(*offset, data).await?;
    *offset += length;
    report.at(State::Transferring, *offset);
    Ok(())
}

/// The name of an ingest, containerd's (`remotes.MakeRefKey`).
pub(crate) fn reference(descriptor: &Descriptor) -> Result<IngestRef> {
    let kind = match descriptor.media_type.as_str() {
        kind if media::is_index(kind) => "index",
        kind if media::is_manifest(kind) => "manifest",
        kind if media::is_layer(kind) => "layer",
        kind if media::is_config(kind) => "config",
        _ => "unknown",
    };
    format!("{kind}-{}", descriptor.digest).parse()
}
