//! A new image from what a container changed.

use std::time::SystemTime;

use berth_core::{Catalog, CompareRequest, ContentStore, NewSnapshot, Scope};
use berth_oci::image::{History, ImageConfig, Manifest, ProcessConfig, media};
use berth_types::{
    Descriptor, Digest, Error, ErrorKind, Image, ImageName, Labels, Mount, Result, SnapshotKey,
    SnapshotterName,
};

use crate::content::UNCOMPRESSED;
use crate::hold::{Hold, unique};
use crate::image::parts::Loaded;
use crate::image::publish;
use crate::{content, graph};

/// A container's snapshot that is to become an image.
#[derive(Clone, Debug)]
pub struct Commit {
    /// The image that the container was made from.
    pub base: Loaded,
    /// Where its snapshot is.
    pub snapshotter: SnapshotterName,
    /// Its snapshot.
    pub snapshot: SnapshotKey,
    /// What the new image runs.
    pub config: ProcessConfig,
    /// Who made it.
    pub author: Option<String>,
    /// Why.
    pub comment: Option<String>,
    /// The command that made the changes, for the history.
    pub created_by: Option<String>,
    /// When.
    pub created: SystemTime,
    /// Its name; without one nothing is published, and the manifest is only described.
    pub name: Option<ImageName>,
}

/// Stores the changes as a layer, on top of the base's, and publishes the new image. Answers its manifest.
///
/// The container's processes may go on writing; whoever wants a consistent picture pauses them before.
pub async fn commit(catalog: &dyn Catalog, scope: &Scope, request: Commit) -> Result<Descriptor> {
    let hold = Hold::begin(catalog, scope).await?;
    let committed = commit_held(catalog, hold.scope(), request).await;
    hold.over(committed).await
}

async fn commit_held(catalog: &dyn Catalog, scope: &Scope, request: Commit) -> Result<Descriptor> {
    let store = catalog.content(scope);
    let (layer, diff_id) = layer(catalog, scope, &*store, &request).await?;
    let config = changed(&request, diff_id)?;
    let target = write(&*store, &request, config, layer).await?;
    if let Some(name) = request.name {
        publish(&*catalog.images(scope), Image::new(name, target.clone())).await?;
    }
    Ok(target)
}

async fn layer(
    catalog: &dyn Catalog,
    scope: &Scope,
    store: &dyn ContentStore,
    request: &Commit,
) -> Result<(Descriptor, Digest)> {
    let snapshots = catalog.snapshotter(&request.snapshotter, scope)?;
    let info = snapshots.stat(&request.snapshot).await?;
    let view: SnapshotKey = format!("{}-view", unique("commit")).parse()?;
    let lower = match info.parent {
        Some(parent) => {
            let new = NewSnapshot { key: view.clone(), parent: Some(parent), labels: Labels::new() };
            Some(snapshots.view(new).await?)
        }
        None => None,
    };
    let compared = async {
        let upper = snapshots.mounts(&request.snapshot).await?;
        compare(catalog, scope, lower.clone().unwrap_or_default(), upper).await
    }
    .await;
    if lower.is_some() {
        match snapshots.remove(&view).await {
            Err(error) if compared.is_ok() && error.kind() != ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    let layer = compared?;
    let labels = store.info(&layer.digest).await?.labels;
    let diff_id = labels.get(UNCOMPRESSED).ok_or_else(|| {
        Error::internal(format!("the new layer {} does not say what it holds", layer.digest))
    })?;
    Ok((layer, diff_id.parse()?))
}

async fn compare(
    catalog: &dyn Catalog,
    scope: &Scope,
    lower: Vec<Mount>,
    upper: Vec<Mount>,
) -> Result<Descriptor> {
    let request = CompareRequest {
        lower,
        upper,
        media_type: media::OCI_LAYER_GZIP.to_owned(),
        reference: Some(unique("commit").parse()?),
        ..CompareRequest::default()
    };
    catalog.differ(scope).compare(request).await
}

/// The base's configuration with one more layer.
fn changed(request: &Commit, diff_id: Digest) -> Result<ImageConfig> {
    let created = jiff::Timestamp::try_from(request.created)
        .map_err(|source| Error::invalid_argument("the time is out of range").caused_by(source))?
        .to_string();
    let mut config = request.base.config.clone();
    config.rootfs.diff_ids.push(diff_id);
    config.config = request.config.clone();
    config.created = Some(created.clone());
    if request.author.is_some() {
        config.author.clone_from(&request.author);
    }
    config.history.push(History {
        created: Some(created),
        created_by: request.created_by.clone(),
        author: request.author.clone(),
        comment: request.comment.clone(),
        empty_layer: false,
    });
    Ok(config)
}

async fn write(
    store: &dyn ContentStore,
    request: &Commit,
    config: ImageConfig,
    layer: Descriptor,
) -> Result<Descriptor> {
    let docker = request.base.manifest.media_type == media::DOCKER_MANIFEST;
    let (config_type, manifest_type) = if docker {
        (media::DOCKER_CONFIG, media::DOCKER_MANIFEST)
    } else {
        (media::OCI_CONFIG, media::OCI_MANIFEST)
    };
    let config = content::write_document(store, "config", config_type, &config, Labels::new()).await?;
    let layer_type = if docker { media::DOCKER_LAYER_GZIP } else { media::OCI_LAYER_GZIP };
    let mut layers = request.base.manifest.layers.clone();
    layers.push(Descriptor::new(layer_type, layer.digest, layer.size));
    let manifest = Manifest {
        schema_version: 2,
        media_type: manifest_type.to_owned(),
        artifact_type: None,
        config: config.clone(),
        layers,
        subject: None,
        annotations: std::collections::BTreeMap::new(),
    };
    let children: Vec<Descriptor> = std::iter::once(config).chain(manifest.layers.iter().cloned()).collect();
    let labels = graph::gc_labels(&children);
    content::write_document(store, "manifest", manifest_type, &manifest, labels).await
}
