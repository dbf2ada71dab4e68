//! Layers whose blobs an image does not keep, and that are made again when something needs them.
//!
//! ```text
//!   manifest ─ containerd.io/gc.ref.content.recipe.HEX-OF-LAYER ─▶ recipe ┐
//!   config ─ containerd.io/gc.ref.snapshot.NAME ─▶ snapshots ─────────────┴▶ the layer's blob, verified
//! ```
//! The manifest lets go of a layer and gets hold of its recipe in one step, once the recipe is there and was tried. So
//! the collector finds either the blob or the recipe, whatever is killed when; and the recipe goes with the image.
//! What is made again belongs to the operation that needs it, and goes with its lease.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use berth_core::{Catalog, CompareRequest, ContentStore, Differ, NewSnapshot, Scope, Snapshotter, recipe};
use berth_oci::image::{Document, chain_ids, media};
use berth_types::{Descriptor, Digest, Error, ErrorKind, Labels, Result, SnapshotKey, SnapshotterName};

use crate::content::{self, UNCOMPRESSED};
use crate::graph::{Limits, Node};
use crate::hold::unique;
use crate::image::{Loaded, config_of};
use crate::unpack::{GC_SNAPSHOT, can_differ, exists};

/// The capability of a differ that makes recipes.
const RECIPES: &str = "berth.recipes";

/// By this label, and the layer's digest in hexadecimal, a manifest keeps a recipe.
const LABEL: &str = "containerd.io/gc.ref.content.recipe.";

/// The label of a manifest for the recipe of a layer.
pub(crate) fn label(layer: &Digest) -> String {
    format!("{LABEL}{}", layer.hex())
}

/// What an image does without.
#[derive(Debug, Default)]
pub(crate) struct LetGo {
    /// Layers, with the recipes that are kept in their place; none where the layer never was here, where nobody wants
    /// recipes, or the daemon makes none.
    pub(crate) layers: HashMap<Digest, Option<Digest>>,
    /// Layers whose blobs are kept after all, and why.
    pub(crate) kept: Vec<(Digest, String)>,
}

impl LetGo {
    /// Every layer of an image, without recipes.
    pub(crate) fn all(image: &Loaded) -> Self {
        let layers = image.manifest.layers.iter().map(|layer| (layer.digest.clone(), None)).collect();
        Self { layers, kept: Vec::new() }
    }
}

/// Makes recipes of an image's layers, one after the other, where there are none yet.
pub(crate) async fn make(
    catalog: &dyn Catalog,
    scope: &Scope,
    image: &Loaded,
    snapshotter: &SnapshotterName,
) -> Result<LetGo> {
    if !can_differ(catalog, RECIPES).await {
        return Ok(LetGo::all(image));
    }
    let mut done = LetGo::default();
    let store = catalog.content(scope);
    let labels = store.info(&image.descriptor.digest).await?.labels;
    let snapshots = vec![catalog.snapshotter(snapshotter, scope)?];
    for part in parts(&image.manifest.layers, &image.config.rootfs.diff_ids, catalog, scope, &snapshots)? {
        let layer = part.layer.digest.clone();
        if done.layers.contains_key(&layer) {
            continue;
        }
        let known = labels.get(&label(&layer)).and_then(|digest| digest.parse::<Digest>().ok());
        if let Some(known) = known
            && content::exists(&*store, &known).await?
        {
            done.layers.insert(layer, Some(known));
        } else if !content::exists(&*store, &layer).await? {
            done.layers.insert(layer, None);
        } else {
            match part.recipe().await {
                Ok(made) => drop(done.layers.insert(layer, Some(made))),
                Err(error) if error.kind() == ErrorKind::Cancelled => return Err(error),
                Err(error) => {
                    tracing::info!(%layer, error = error.chain(), "a layer's blob is kept");
                    done.kept.push((layer, error.chain()));
                }
            }
        }
    }
    Ok(done)
}

/// Layers of these documents that are not here and whose recipes are.
pub(crate) async fn find(
    catalog: &dyn Catalog,
    scope: &Scope,
    nodes: &[Node],
) -> Result<HashMap<Digest, Remakable>> {
    let store = catalog.content(scope);
    let mut found = HashMap::new();
    for Node { descriptor, children } in nodes {
        if !media::is_manifest(&descriptor.media_type) {
            continue;
        }
        let labels = store.info(&descriptor.digest).await?.labels;
        let mut wanted = HashMap::new();
        for child in children {
            if let Some(recipe) = labels.get(&label(&child.digest))
                && !content::exists(&*store, &child.digest).await?
            {
                wanted.insert(child.digest.clone(), recipe.parse::<Digest>()?);
            }
        }
        if wanted.is_empty() {
            continue;
        }
        let data = content::document(&*store, descriptor, Limits::default().document).await?;
        let Document::Manifest(manifest) = Document::parse(&descriptor.media_type, &data)? else { continue };
        let config = config_of(&*store, &manifest).await?;
        let labels = store.info(&manifest.config.digest).await?.labels;
        let names = labels.keys().filter_map(|label| label.strip_prefix(GC_SNAPSHOT));
        let names: HashSet<&str> = names.map(|name| name.split('/').next().unwrap_or(name)).collect();
        let mut snapshots = Vec::new();
        for name in names {
            snapshots.push(catalog.snapshotter(&name.parse()?, scope)?);
        }
        for part in parts(&manifest.layers, &config.rootfs.diff_ids, catalog, scope, &snapshots)? {
            if let Some(recipe) = wanted.remove(&part.layer.digest) {
                found.insert(part.layer.digest.clone(), Remakable { part, recipe });
            }
        }
    }
    Ok(found)
}

/// Makes every layer of these documents that is not here and whose recipe is.
pub(crate) async fn restore(catalog: &dyn Catalog, scope: &Scope, nodes: &[Node]) -> Result<()> {
    for remakable in find(catalog, scope, nodes).await?.into_values() {
        remakable.remake().await?;
    }
    Ok(())
}

/// The same for one image.
pub(crate) async fn restore_image(catalog: &dyn Catalog, scope: &Scope, image: &Loaded) -> Result<()> {
    let node = Node { descriptor: image.descriptor.clone(), children: image.manifest.layers.clone() };
    restore(catalog, scope, &[node]).await
}

fn parts(
    layers: &[Descriptor],
    diff_ids: &[Digest],
    catalog: &dyn Catalog,
    scope: &Scope,
    snapshots: &[Arc<dyn Snapshotter>],
) -> Result<Vec<Part>> {
    let all = layers.iter().zip(diff_ids).zip(chain_ids(diff_ids));
    let part = |((layer, diff_id), chain): ((&Descriptor, &Digest), Digest)| -> Result<Part> {
        Ok(Part {
            layer: layer.clone(),
            diff_id: diff_id.clone(),
            chain: chain.as_str().parse()?,
            differ: catalog.differ(scope),
            snapshots: snapshots.to_vec(),
        })
    };
    all.map(part).collect()
}

/// A layer, and the snapshots in which its files are.
struct Part {
    layer: Descriptor,
    diff_id: Digest,
    chain: SnapshotKey,
    differ: Arc<dyn Differ>,
    snapshots: Vec<Arc<dyn Snapshotter>>,
}

impl Part {
    /// Makes its recipe.
    async fn recipe(&self) -> Result<Digest> {
        let labels = Labels::from([(recipe::OF.to_owned(), self.layer.digest.to_string())]);
        Ok(self.compare(recipe::MEDIA_TYPE, labels).await?.digest)
    }

    /// Asks the differ, with a view of the tree right after this layer.
    async fn compare(&self, media_type: &str, labels: Labels) -> Result<Descriptor> {
        for snapshots in &self.snapshots {
            if !exists(&**snapshots, &self.chain).await? {
                continue;
            }
            let view: SnapshotKey = unique("remake").parse()?;
            let new =
                NewSnapshot { key: view.clone(), parent: Some(self.chain.clone()), labels: Labels::new() };
            let upper = snapshots.view(new).await?;
            let request = CompareRequest {
                upper,
                media_type: media_type.to_owned(),
                reference: Some(unique("remake").parse()?),
                labels,
                ..CompareRequest::default()
            };
            let compared = self.differ.compare(request).await;
            match snapshots.remove(&view).await {
                Err(error) if compared.is_ok() && error.kind() != ErrorKind::NotFound => return Err(error),
                _ => return compared,
            }
        }
        Err(Error::failed_precondition(format!("the snapshot {} with its files is gone", self.chain)))
    }
}

/// A layer that can be made again.
pub(crate) struct Remakable {
    part: Part,
    recipe: Digest,
}

impl Remakable {
    /// Makes the layer's blob.
    pub(crate) async fn remake(&self) -> Result<()> {
        let layer = &self.part.layer;
        let labels = Labels::from([
            (recipe::OF.to_owned(), layer.digest.to_string()),
            (recipe::BY.to_owned(), self.recipe.to_string()),
            (UNCOMPRESSED.to_owned(), self.part.diff_id.to_string()),
        ]);
        let made = self.part.compare(&layer.media_type, labels).await;
        made.map(drop).map_err(|error| {
            let text = format!(
                "layer {} is not kept compressed and cannot be made again; pull the image again without --discard",
                layer.digest
            );
            Error::failed_precondition(text).caused_by(error)
        })
    }
}

/// Whether a manifest has the recipe of a layer.
pub(crate) async fn has(store: &dyn ContentStore, manifest: &Descriptor, layer: &Digest) -> Result<bool> {
    Ok(store.info(&manifest.digest).await?.labels.contains_key(&label(layer)))
}
