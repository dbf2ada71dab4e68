//! The graph of an image: index → manifests → config and layers, read from content and bounded.

use std::collections::{BTreeMap, HashSet};

use berth_core::ContentStore;
use berth_oci::image::{Document, media, platform_string};
use berth_types::{Descriptor, Digest, Error, ErrorKind, Labels, Result};

use crate::content;
use crate::platforms::Platforms;
use crate::recipes;

/// Bounds of what a graph may ask for.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Bytes of one index or manifest.
    pub document: u64,
    /// Indexes within indexes.
    pub depth: usize,
    /// Documents and blobs in all, each counted once.
    pub nodes: usize,
    /// Bytes of all documents.
    pub documents: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self { document: 4 << 20, depth: 8, nodes: 20_000, documents: 128 << 20 }
    }
}

/// Bytes of an image configuration.
pub(crate) const CONFIG_LIMIT: u64 = 8 << 20;

/// A label of containerd: the document `descriptor` keeps its children from the collector.
const GC_PREFIX: &str = "containerd.io/gc.ref.content";

/// Whether a descriptor says that it is an index or a manifest.
pub(crate) fn is_document(media_type: &str) -> bool {
    media::is_index(media_type) || media::is_manifest(media_type)
}

/// What a document refers to, in its order.
pub(crate) fn children(document: Document) -> Vec<Descriptor> {
    match document {
        Document::Index(index) => index.manifests,
        Document::Manifest(manifest) => std::iter::once(manifest.config).chain(manifest.layers).collect(),
    }
}

/// The labels with which a document keeps its children, named as containerd names them.
pub(crate) fn gc_labels(children: &[Descriptor]) -> Labels {
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    let mut labels = Labels::new();
    for child in children {
        let kind = if media::is_config(&child.media_type) {
            ".config"
        } else if media::is_manifest(&child.media_type) {
            ".m."
        } else if media::is_layer(&child.media_type) {
            ".l."
        } else {
            "."
        };
        let count = counts.entry(kind).or_default();
        let key = match (kind.ends_with('.'), *count) {
            (false, 0) => format!("{GC_PREFIX}{kind}"),
            (_, number) => format!("{GC_PREFIX}{kind}{number}"),
        };
        *count += 1;
        labels.insert(key, child.digest.to_string());
    }
    labels
}

/// A document that a walk came to, with those of its children that are meant.
#[derive(Clone, Debug)]
pub(crate) struct Node {
    pub(crate) descriptor: Descriptor,
    pub(crate) children: Vec<Descriptor>,
}

/// What to do where a document or a blob of the graph is not in content.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Missing {
    /// It is an error.
    Refuse,
    /// A manifest of which something is missing is passed over, as long as another one is whole.
    Skip,
    /// The same, but a layer whose recipe is there can be made again.
    SkipUnlessRemade,
}

/// Reads the graph below `root`, every document once, parents before children.
pub(crate) async fn walk(
    store: &dyn ContentStore,
    root: &Descriptor,
    platforms: &Platforms,
    missing: Missing,
    limits: Limits,
) -> Result<Vec<Node>> {
    let mut budget = Budget::new(limits);
    let mut nodes = Vec::new();
    let mut skipped = None;
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
            let top = descriptor.digest == root.digest;
            match node(store, descriptor, platforms, missing, &mut budget).await {
                Ok(node) => {
                    let documents = node.children.iter().filter(|child| is_document(&child.media_type));
                    next.extend(documents.cloned());
                    nodes.push(node);
                }
                Err(error) if missing != Missing::Refuse && !top && error.kind() == ErrorKind::NotFound => {
                    skipped.get_or_insert(error);
                }
                Err(error) => return Err(error),
            }
        }
        level = next;
    }
    let whole = nodes.iter().any(|node| media::is_manifest(&node.descriptor.media_type));
    match skipped {
        Some(error) if !whole => Err(error),
        Some(_) => {
            // A parent must not promise what is not there.
            let kept: HashSet<Digest> = nodes.iter().map(|node| node.descriptor.digest.clone()).collect();
            for node in &mut nodes {
                node.children.retain(|child| !is_document(&child.media_type) || kept.contains(&child.digest));
            }
            Ok(nodes)
        }
        None => Ok(nodes),
    }
}

async fn node(
    store: &dyn ContentStore,
    descriptor: Descriptor,
    platforms: &Platforms,
    missing: Missing,
    budget: &mut Budget,
) -> Result<Node> {
    let data = content::document(store, &descriptor, budget.limits.document).await?;
    budget.spend(data.len() as u64)?;
    let document = Document::parse(&descriptor.media_type, &data)
        .map_err(|error| error.context(format!("document {} is refused", descriptor.digest)))?;
    let is_index = matches!(document, Document::Index(_));
    let mut children = children(document);
    if is_index {
        children = selected(&descriptor, children, platforms)?;
    } else if missing != Missing::Refuse {
        let remade = missing == Missing::SkipUnlessRemade;
        for child in &children {
            if !(content::exists(store, &child.digest).await?
                || remade && recipes::has(store, &descriptor, &child.digest).await?)
            {
                let text = format!(
                    "blob {} of manifest {} is missing; pull the image again",
                    child.digest, descriptor.digest
                );
                return Err(Error::not_found(text));
            }
        }
    }
    Ok(Node { descriptor, children })
}

/// Those of an index's manifests that are meant; it is an error if there is none.
pub(crate) fn selected(
    index: &Descriptor,
    manifests: Vec<Descriptor>,
    platforms: &Platforms,
) -> Result<Vec<Descriptor>> {
    let known: Vec<String> = manifests
        .iter()
        .filter_map(|one| one.platform.as_ref())
        .filter(|platform| platform.os != "unknown")
        .map(platform_string)
        .collect();
    let selected = platforms.select(manifests);
    if selected.is_empty() {
        let known = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
        let wanted = platforms.matching().map_or_else(|| "any platform".to_owned(), ToString::to_string);
        let text = format!("index {} has no image for {wanted}; it has {known}", index.digest);
        return Err(Error::not_found(text));
    }
    Ok(selected)
}

/// What is left of the limits.
pub(crate) struct Budget {
    limits: Limits,
    seen: HashSet<Digest>,
    bytes: u64,
}

impl Budget {
    pub(crate) fn new(limits: Limits) -> Self {
        Self { limits, seen: HashSet::new(), bytes: 0 }
    }

    /// Refuses to go deeper than is allowed.
    pub(crate) fn descend(&self, depth: usize, root: &Descriptor) -> Result<()> {
        if depth > self.limits.depth {
            return Err(Error::invalid_argument(format!(
                "the image {} has more than {} indexes within one another",
                root.digest, self.limits.depth
            )));
        }
        Ok(())
    }

    /// Counts a document; false for one that was read before.
    pub(crate) fn admit(&mut self, descriptor: &Descriptor) -> Result<bool> {
        let new = self.seen.insert(descriptor.digest.clone());
        if self.seen.len() > self.limits.nodes {
            return Err(Error::invalid_argument(format!(
                "the image has more than {} documents",
                self.limits.nodes
            )));
        }
        Ok(new)
    }

    pub(crate) fn spend(&mut self, bytes: u64) -> Result<()> {
        self.bytes += bytes;
        if self.bytes > self.limits.documents {
            return Err(Error::invalid_argument(format!(
                "the image's documents have more than {} bytes",
                self.limits.documents
            )));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn descriptor(media_type: &str, digit: char) -> Descriptor {
        let digest = format!("sha256:{}", digit.to_string().repeat(64)).parse().unwrap();
        Descriptor::new(media_type, digest, 1)
    }

    #[test]
    fn children_are_labelled_as_containerd_labels_them() {
        let children = [
            descriptor(media::OCI_CONFIG, '1'),
            descriptor(media::OCI_LAYER_GZIP, '2'),
            descriptor(media::DOCKER_LAYER, '3'),
            descriptor(media::OCI_MANIFEST, '4'),
            descriptor("other", '5'),
        ];
        let keys: Vec<String> = gc_labels(&children).into_keys().collect();
        assert_eq!(
            keys,
            [
                "containerd.io/gc.ref.content.0",
                "containerd.io/gc.ref.content.config",
                "containerd.io/gc.ref.content.l.0",
                "containerd.io/gc.ref.content.l.1",
                "containerd.io/gc.ref.content.m.0"
            ]
        );
    }
}
