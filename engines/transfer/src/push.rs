//! Images to a registry: blobs first, then documents from the leaves up, the tag last.

use std::collections::HashSet;
use std::sync::Arc;

use berth_core::{BlobReader, Catalog, ContentStore, Scope};
use berth_oci::image::{PlatformMatch, media};
use berth_registry::{Access, BlobSource, Registries, Repository};
use berth_types::{Descriptor, Error, ErrorKind, ImageRef, Result};
use bytes::Bytes;
use futures::future::BoxFuture;
use futures::{FutureExt, StreamExt, TryStreamExt};

use crate::content;
use crate::graph::{self, Limits, Missing, walk};
use crate::hold::Hold;
use crate::image::load;
use crate::platforms::Platforms;
use crate::progress::{Object, Reported, Reporter, State};
use crate::pull::SOURCE;
use crate::recipes::{self, Remakable};

/// How to push.
#[derive(Clone, Debug)]
pub struct Push {
    /// What: an index or a manifest.
    pub target: Descriptor,
    /// To where.
    pub reference: ImageRef,
    /// Only the image for this platform, instead of all.
    pub platform: Option<PlatformMatch>,
    /// Which images of an index, beside that all of it is listed.
    pub platforms: Platforms,
    /// Blobs at once.
    pub parallel: usize,
    /// Where progress goes.
    pub progress: Reporter,
}

impl Push {
    /// A push of everything.
    pub fn new(target: Descriptor, reference: ImageRef) -> Self {
        let platforms = Platforms::All;
        Self { target, reference, platform: None, platforms, parallel: 4, progress: Reporter::none() }
    }
}

/// Pushes an image and answers what the reference stands for from now on. What the registry has is not sent again.
pub async fn push(
    catalog: &dyn Catalog,
    scope: &Scope,
    registries: &Registries,
    request: &Push,
) -> Result<Descriptor> {
    let repository = registries.repository(&request.reference, Access::Push)?;
    let hold = Hold::begin(catalog, scope).await?;
    let pushed = push_held(catalog, hold.scope(), &repository, request).await;
    hold.over(pushed).await
}

async fn push_held(
    catalog: &dyn Catalog,
    scope: &Scope,
    repository: &Repository,
    request: &Push,
) -> Result<Descriptor> {
    let store = catalog.content(scope);
    let root = match &request.platform {
        Some(platform) => load(&*store, &request.target, platform).await?.descriptor,
        None => request.target.clone(),
    };
    Work { catalog, scope, store: &*store, repository, request }.all(&root).await?;
    Ok(root)
}

struct Work<'a> {
    catalog: &'a dyn Catalog,
    scope: &'a Scope,
    store: &'a dyn ContentStore,
    repository: &'a Repository,
    request: &'a Push,
}

impl Work<'_> {
    async fn all(&self, root: &Descriptor) -> Result<()> {
        let limits = Limits::default();
        let nodes = walk(self.store, root, &self.request.platforms, Missing::Refuse, limits).await;
        let nodes = nodes.map_err(|error| incomplete(error, root))?;
        let mut seen = HashSet::new();
        let blobs: Vec<&Descriptor> = nodes
            .iter()
            .flat_map(|node| &node.children)
            .filter(|child| !graph::is_document(&child.media_type) && seen.insert(&child.digest))
            .collect();
        for blob in &blobs {
            self.report(blob).at(State::Waiting, 0);
        }
        let remakable = recipes::find(self.catalog, self.scope, &nodes).await?;
        let mut sends = Vec::with_capacity(blobs.len());
        for blob in blobs {
            sends.push(self.blob(blob, remakable.get(&blob.digest)).boxed());
        }
        futures::stream::iter(sends)
            .buffer_unordered(self.request.parallel.max(1))
            .try_collect::<Vec<()>>()
            .await?;
        for node in nodes.iter().rev() {
            let is_root = node.descriptor.digest == root.digest;
            let tag = self.request.reference.tag().filter(|_| is_root);
            self.document(&node.descriptor, tag, limits.document).await?;
        }
        Ok(())
    }

    fn report(&self, descriptor: &Descriptor) -> Reported {
        let kind = match descriptor.media_type.as_str() {
            kind if graph::is_document(kind) => Object::Document,
            kind if media::is_config(kind) => Object::Config,
            _ => Object::Layer,
        };
        self.request.progress.object(descriptor.digest.as_str(), kind, descriptor.size)
    }

    async fn blob(&self, descriptor: &Descriptor, remakable: Option<&Remakable>) -> Result<()> {
        let report = self.report(descriptor);
        if let Some(remakable) = remakable {
            if self.repository.has_blob(&descriptor.digest).await? {
                report.whole(State::Exists);
                return Ok(());
            }
            remakable.remake().await?;
        }
        let info =
            self.store.info(&descriptor.digest).await.map_err(|error| incomplete(error, descriptor))?;
        let sized = Descriptor { size: info.size, ..descriptor.clone() };
        // A repository of the same registry that has the blob spares the upload.
        let known = info.labels.get(&format!("{SOURCE}{}", self.repository.registry()));
        let from = known.and_then(|paths| {
            paths.split(',').find(|path| !path.is_empty() && *path != self.repository.path())
        });
        let reader = self.store.reader(&descriptor.digest).await?;
        let source = Arc::new(Source { reader, report: report.clone() });
        let sent = self.repository.push_blob(&sized, source, from).await?;
        report.whole(if sent { State::Complete } else { State::Exists });
        Ok(())
    }

    async fn document(&self, descriptor: &Descriptor, tag: Option<&str>, limit: u64) -> Result<()> {
        let report = self.report(descriptor);
        let data = content::document(self.store, descriptor, limit).await?;
        self.repository.push_manifest(descriptor, Bytes::from(data), tag).await?;
        report.whole(State::Complete);
        Ok(())
    }
}

/// A push cannot leave out what an index lists.
fn incomplete(error: Error, part: &Descriptor) -> Error {
    if error.kind() != ErrorKind::NotFound {
        return error;
    }
    let text = format!(
        "the image is not complete here ({} is missing); push one platform with --platform, or pull it again: with --all-platforms, or without --discard",
        part.digest
    );
    Error::failed_precondition(text).caused_by(error)
}

/// A blob of the store as an upload reads it.
struct Source {
    reader: Arc<dyn BlobReader>,
    report: Reported,
}

impl BlobSource for Source {
    fn read_at(&self, offset: u64, length: usize) -> BoxFuture<'_, Result<Bytes>> {
        async move {
            let data = self.reader.read_at(offset, length).await?;
            self.report.at(State::Transferring, offset + data.len() as u64);
            Ok(data)
        }
        .boxed()
    }
}
