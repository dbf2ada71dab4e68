//! What a client says about a layer when it prepares a snapshot for it.

use berth_stargz::annotation::TOC_DIGEST;
use berth_types::{Digest, ImageRef, Labels, SnapshotKey};

use crate::index::Trust;

/// How the snapshot will be called (containerd's remote snapshotters).
const REFERENCE: &str = "containerd.io/snapshot.ref";
/// Set on a snapshot that is a mount of its layer, with stargz-snapshotter's value.
const REMOTE: (&str, &str) = ("containerd.io/snapshot/remote", "remote snapshot");
/// Where the snapshots below keep their trees (overlayfs' `upperdir_label`).
const UPPERDIR: &str = "containerd.io/snapshot/overlay.upperdir";

/// The image, by containerd's CRI and transfer service, or by `ctr-remote`.
const IMAGE: [&str; 2] =
    ["containerd.io/snapshot/cri.image-ref", "containerd.io/snapshot/remote/stargz.reference"];
/// The layer, by the same.
const LAYER: [&str; 2] =
    ["containerd.io/snapshot/cri.layer-digest", "containerd.io/snapshot/remote/stargz.digest"];
/// By what a table of zstd:chunked is trusted: the digest of its compressed bytes and where they are. berth's own.
const COMPRESSED: &str = "containerd.io/snapshot/berth.zstd-chunked";
/// By what a zTOC is trusted: its digest, and how many bytes it has. berth's own.
const ZTOC: &str = "containerd.io/snapshot/berth.ztoc";
/// The layer has no table; the index that was made here is meant. berth's own.
const OWN: (&str, &str) = ("containerd.io/snapshot/berth.index", "own");
/// The image's layers from this one on, separated by commas, by the same.
const LAYERS: [&str; 2] =
    ["containerd.io/snapshot/cri.image-layers", "containerd.io/snapshot/remote/stargz.layers"];
/// The image's manifest, by containerd 2.
const MANIFEST: &str = "containerd.io/snapshot/cri.manifest-digest";

/// A layer of an image, and by what its table of contents can be trusted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Wanted {
    /// In which repository it is.
    pub(crate) image: ImageRef,
    /// The layer.
    pub(crate) layer: Digest,
    /// By what its table is trusted, where that is known.
    pub(crate) trust: Option<Trust>,
    /// The manifest, which leads to that.
    pub(crate) manifest: Option<Digest>,
    /// Layers of the same image.
    pub(crate) others: Vec<Digest>,
}

impl Wanted {
    /// Reads labels; none where they name no layer.
    pub(crate) fn of(labels: &Labels) -> Option<Self> {
        let value = |key: &str| labels.get(key).filter(|value| !value.is_empty());
        let digest = |key: &str| value(key)?.parse().ok();
        Some(Self {
            image: IMAGE.into_iter().find_map(value)?.parse().ok()?,
            layer: LAYER.into_iter().find_map(digest)?,
            trust: trust(labels),
            manifest: digest(MANIFEST),
            others: LAYERS.into_iter().find_map(value).map_or_else(Vec::new, |list| {
                list.split(',').filter_map(|digest| digest.parse().ok()).collect()
            }),
        })
    }
}

fn trust(labels: &Labels) -> Option<Trust> {
    if let Some(digest) = labels.get(TOC_DIGEST) {
        return Some(Trust::Document(digest.parse().ok()?));
    }
    if let Some(text) = labels.get(COMPRESSED) {
        let (digest, position) = text.split_once(' ')?;
        return Some(Trust::Compressed { digest: digest.parse().ok()?, position: position.to_owned() });
    }
    if let Some(text) = labels.get(ZTOC) {
        let (digest, size) = text.split_once(' ')?;
        return Some(Trust::Ztoc { digest: digest.parse().ok()?, size: size.parse().ok()? });
    }
    // Which layers are fetched whole is not for images to say, whose annotations clients pass on.
    (is_marked(labels) && labels.contains_key(OWN.0)).then_some(Trust::Own)
}

/// How a snapshot will be called, if that is known before it is filled.
pub(crate) fn target(labels: &Labels) -> Option<SnapshotKey> {
    labels.get(REFERENCE)?.parse().ok()
}

/// Marks a snapshot as a mount of a layer whose table is trusted by this.
pub(crate) fn mark(labels: &mut Labels, trust: &Trust) {
    labels.insert(REMOTE.0.to_owned(), REMOTE.1.to_owned());
    match trust {
        Trust::Document(digest) => labels.insert(TOC_DIGEST.to_owned(), digest.to_string()),
        Trust::Compressed { digest, position } => {
            labels.insert(COMPRESSED.to_owned(), format!("{digest} {position}"))
        }
        Trust::Ztoc { digest, size } => labels.insert(ZTOC.to_owned(), format!("{digest} {size}")),
        Trust::Own => labels.insert(OWN.0.to_owned(), OWN.1.to_owned()),
    };
}

/// Takes the mark away: clients pass labels on that they have from images.
pub(crate) fn unmark(labels: &mut Labels) {
    labels.remove(REMOTE.0);
}

/// Leaves what makes a snapshot a mount, and says which layer it is of, as it is.
pub(crate) fn keep_mark(there: &Labels, labels: &mut Labels) {
    unmark(labels);
    if is_marked(there) {
        let own =
            [REMOTE.0, TOC_DIGEST, COMPRESSED, ZTOC, OWN.0, MANIFEST].into_iter().chain(IMAGE).chain(LAYER);
        labels.extend(own.filter_map(|key| Some((key.to_owned(), there.get(key)?.clone()))));
    }
}

/// Whether a snapshot is a mount.
pub(crate) fn is_marked(labels: &Labels) -> bool {
    labels.contains_key(REMOTE.0)
}

/// The folder of a snapshot's own tree.
pub(crate) fn folder(labels: &Labels) -> Option<std::path::PathBuf> {
    labels.get(UPPERDIR).map(std::path::PathBuf::from)
}
