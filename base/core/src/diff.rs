//! From layers to trees and back.

use async_trait::async_trait;
use berth_types::{Any, Descriptor, IngestRef, Labels, Mount, Result};
use std::collections::BTreeMap;

/// A layer to be applied.
#[derive(Clone, Debug, PartialEq)]
pub struct ApplyRequest {
    /// The layer: a tar, compressed or not, as its media type says.
    pub layer: Descriptor,
    /// The ingest by which it comes, where it may not be there yet: then it is applied as it comes.
    pub arriving: Option<IngestRef>,
    /// The tree to change.
    pub mounts: Vec<Mount>,
    /// Options of stream processors, by media type.
    pub payloads: BTreeMap<String, Any>,
    /// Whether the written data has to be on disk before the answer.
    pub sync: bool,
}

/// Two trees to be compared.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CompareRequest {
    /// The tree before.
    pub lower: Vec<Mount>,
    /// The tree after.
    pub upper: Vec<Mount>,
    /// The wanted form; empty means a gzip-compressed OCI layer.
    pub media_type: String,
    /// The ingest to write through; generated when missing.
    pub reference: Option<IngestRef>,
    /// Labels of the blob.
    pub labels: Labels,
    /// The time that every entry gets, for reproducible layers.
    pub source_date_epoch: Option<std::time::SystemTime>,
}

/// Something that knows layers.
#[async_trait]
pub trait Differ: Send + Sync {
    /// Applies a layer to a tree and describes the uncompressed tar that it held: its digest is
    /// the layer's diff id. Writes only beneath the tree, whatever the layer says.
    ///
    /// Of a layer that was still arriving nobody has verified the bytes: the answer, and the tree, are worth nothing
    /// before its blob is there. [`Unavailable`](berth_types::ErrorKind::Unavailable) when it broke off.
    async fn apply(&self, request: ApplyRequest) -> Result<Descriptor>;

    /// Stores what changed from one tree to another as a layer and describes it. The blob has the
    /// label `containerd.io/uncompressed`.
    async fn compare(&self, request: CompareRequest) -> Result<Descriptor>;
}

/// How a comparison asks for the recipe of a layer, or for a layer by its recipe, of a differ that says it can.
///
/// A recipe is a blob with which a layer's own blob is made again, to the byte, from the tree that it was unpacked to.
/// The request's `upper` is that tree with nothing above it.
///
/// | media type | labels | what is stored |
/// |---|---|---|
/// | [`MEDIA_TYPE`](recipe::MEDIA_TYPE) | [`OF`](recipe::OF) | the recipe of that layer; verified, or an error |
/// | the layer's | [`OF`](recipe::OF), [`BY`](recipe::BY) | that layer, by that recipe |
///
/// A layer of which no recipe can be made, or none that is worth its room, and a tree that is another one now, are
/// [`FailedPrecondition`](berth_types::ErrorKind::FailedPrecondition).
pub mod recipe {
    /// The media type of a recipe.
    pub const MEDIA_TYPE: &str = "application/vnd.berth.layer.recipe.v1";

    /// The label that names the layer; the recipe has it from then on.
    pub const OF: &str = "berth.recipe/of";

    /// The label that names the recipe. The layer does not get it.
    pub const BY: &str = "berth.recipe/by";
}
