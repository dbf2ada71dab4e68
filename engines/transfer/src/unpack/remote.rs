//! Layers that a snapshotter has without their bytes.
//!
//! containerd's protocol for remote snapshotters: a snapshot is prepared with labels that say which layer of which
//! image it is for, and the snapshotter either answers that it is there already, under the name that a label says, or
//! prepares it for somebody to unpack the layer into.

use std::collections::HashSet;

use berth_core::{Catalog, NewSnapshot, Scope, Snapshotter};
use berth_types::{Descriptor, Digest, ErrorKind, ImageRef, Labels, PluginInfo, Result, SnapshotKey};

use super::work::{below, keep, reference};
use super::{Layer, Unpack, exists, layers};
use crate::hold::unique;
use crate::image::load;

/// What a snapshotter exports that wants the labels, in `[proxy_plugins.NAME.exports]`.
const WANTS_LABELS: &str = "enable_remote_snapshot_annotations";

/// Labels and annotations that are meant for a snapshotter begin so.
const FOR_SNAPSHOTTERS: &str = "containerd.io/snapshot/";
const IMAGE: &str = "containerd.io/snapshot/cri.image-ref";
const MANIFEST: &str = "containerd.io/snapshot/cri.manifest-digest";
const LAYER: &str = "containerd.io/snapshot/cri.layer-digest";
const LAYERS: &str = "containerd.io/snapshot/cri.image-layers";

/// containerd's limit of a label's key and value together.
const LABEL_LIMIT: usize = 4096;

/// Offers the layers of an image, whose manifest and configuration are there, to the snapshotter, from the lowest on.
/// Those whose digests are answered are there, under the lease, and need not be fetched.
pub(crate) async fn offer(
    catalog: &dyn Catalog,
    scope: &Scope,
    request: &Unpack,
    image: &ImageRef,
) -> Result<HashSet<Digest>> {
    let mut there = HashSet::new();
    let loaded = load(&*catalog.content(scope), &request.target, &request.platform).await?;
    let snapshots = catalog.snapshotter(&request.snapshotter, scope)?;
    let layers = layers(&loaded)?;
    for (at, layer) in layers.iter().enumerate() {
        if exists(&*snapshots, &layer.chain).await? {
            keep(catalog, scope, &request.snapshotter, &layer.chain).await?;
        } else if !takes(
            &*snapshots,
            &layers,
            at,
            labels(image, &loaded.descriptor.digest, &loaded.manifest.layers, at),
        )
        .await?
        {
            break;
        }
        there.insert(layer.descriptor.digest.clone());
    }
    Ok(there)
}

/// Whether the snapshotter has the layer. If not, nothing is left of the question.
async fn takes(snapshots: &dyn Snapshotter, layers: &[Layer], at: usize, mut labels: Labels) -> Result<bool> {
    let layer = &layers[at];
    labels.extend(reference(layer));
    let key: SnapshotKey = format!("{} {}", unique("extract"), layer.chain).parse()?;
    let new = NewSnapshot { key: key.clone(), parent: below(layers, at), labels };
    match snapshots.prepare(new).await {
        Ok(_) => {
            snapshots.remove(&key).await?;
            Ok(false)
        }
        Err(error) if error.kind() == ErrorKind::AlreadyExists => exists(snapshots, &layer.chain).await,
        Err(error) => Err(error),
    }
}

/// What the manifest says to snapshotters of a layer, and which layer of what it is.
fn labels(image: &ImageRef, manifest: &Digest, all: &[Descriptor], at: usize) -> Labels {
    let layer = &all[at];
    let said = layer.annotations.iter().filter(|(key, _)| key.starts_with(FOR_SNAPSHOTTERS));
    let mut labels: Labels = said.map(|(key, value)| (key.clone(), value.clone())).collect();
    // A list that is too long for a label is cut, as in containerd.
    let room = LABEL_LIMIT - LAYERS.len();
    let rest =
        all[at..].iter().map(|layer| layer.digest.as_str()).fold(String::new(), |list, digest| {
            match (list.is_empty(), list.len() + 1 + digest.len() <= room) {
                (true, _) => digest.to_owned(),
                (false, true) => format!("{list},{digest}"),
                (false, false) => list,
            }
        });
    labels.extend([
        (IMAGE.to_owned(), image.to_string()),
        (MANIFEST.to_owned(), manifest.to_string()),
        (LAYER.to_owned(), layer.digest.to_string()),
        (LAYERS.to_owned(), rest),
    ]);
    labels
}

/// Whether the snapshotter is one to which layers are offered.
pub(crate) async fn wants_labels(catalog: &dyn Catalog, request: &Unpack) -> bool {
    let filter = format!("type==io.containerd.snapshotter.v1,id=={}", request.snapshotter);
    let found = catalog.introspection().plugins(&[filter]).await.unwrap_or_default();
    found
        .iter()
        .any(|plugin: &PluginInfo| plugin.exports.get(WANTS_LABELS).is_some_and(|value| value == "true"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn digest(number: usize) -> Digest {
        format!("sha256:{number:064x}").parse().unwrap()
    }

    /// So many layers, of which the first one's manifest says something.
    fn layers(count: usize) -> Vec<Descriptor> {
        let mut all: Vec<Descriptor> = (1..=count).map(|n| Descriptor::new("layer", digest(n), 1)).collect();
        let said = [
            ("containerd.io/snapshot/stargz/toc.digest", "a"),
            ("containerd.io/snapshot/cri.layer-digest", "a lie"),
            ("containerd.io/gc.root", "for ever"),
        ];
        all[0].annotations = said.map(|(key, value)| (key.to_owned(), value.to_owned())).into();
        all
    }

    #[test]
    fn a_manifest_says_what_is_meant_for_snapshotters_and_not_which_layer_it_is() {
        let image = "registry.test/a/b:1".parse().unwrap();
        let labels = labels(&image, &digest(99), &layers(2), 0);
        assert_eq!(labels["containerd.io/snapshot/stargz/toc.digest"], "a");
        assert_eq!(labels[LAYER], digest(1).as_str());
        assert_eq!(labels[MANIFEST], digest(99).as_str());
        assert_eq!(labels[IMAGE], "registry.test/a/b:1");
        assert_eq!(labels[LAYERS], format!("{},{}", digest(1), digest(2)));
        assert_eq!(labels.len(), 5, "{labels:?}");
    }

    #[test]
    fn a_list_of_layers_that_is_too_long_is_cut_between_two() {
        let image = "registry.test/a/b:1".parse().unwrap();
        let labels = labels(&image, &digest(99), &layers(200), 10);
        berth_types::validate_labels(&labels).unwrap();
        let listed: Vec<&str> = labels[LAYERS].split(',').collect();
        assert!(listed.len() > 50 && listed.len() < 190);
        assert!(listed.iter().enumerate().all(|(at, text)| *text == digest(11 + at).as_str()));
    }
}
