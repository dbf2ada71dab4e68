//! How indexes of an image's layers lie in its registry: as an artifact whose subject is the image's manifest.
//!
//! ```text
//!   manifest   artifactType  application/vnd.berth.layer.indexes.v1
//!              subject       the image's manifest
//!              config        the empty document
//!              layers        for each layer of the image that has an index
//!                              application/vnd.berth.layer.index.v1        what berth_stargz::Index reads
//!                              application/vnd.berth.layer.reads.v1+json   what is read first, where that is known
//!                            each with the annotation io.berth.lazy.layer, the layer's digest
//! ```

use berth_archive::Hasher;
use berth_oci::image::{Manifest, media};
use berth_types::{Descriptor, Digest};

/// The artifact's type.
pub(crate) const KIND: &str = "application/vnd.berth.layer.indexes.v1";
/// The type of an index.
pub(crate) const INDEX: &str = "application/vnd.berth.layer.index.v1";
/// The type of a list of what is read first.
pub(crate) const READS: &str = "application/vnd.berth.layer.reads.v1+json";
/// Which layer a blob of the artifact is about.
const LAYER: &str = "io.berth.lazy.layer";

/// The configuration of an artifact that has none (image-spec 1.1, "Guidance for an empty descriptor").
pub(crate) const EMPTY: &[u8] = b"{}";
const EMPTY_TYPE: &str = "application/vnd.oci.empty.v1+json";

/// A blob of the artifact: of which type it is, and about which layer.
pub(crate) fn blob(kind: &str, layer: &Digest, bytes: &[u8]) -> Descriptor {
    let mut blob = Descriptor::new(kind, Hasher::digest(bytes), bytes.len() as u64);
    blob.annotations.insert(LAYER.to_owned(), layer.to_string());
    blob
}

/// The empty configuration.
pub(crate) fn empty() -> Descriptor {
    Descriptor::new(EMPTY_TYPE, Hasher::digest(EMPTY), EMPTY.len() as u64)
}

/// The artifact's manifest. The same blobs make the same one.
pub(crate) fn manifest(subject: &Descriptor, blobs: Vec<Descriptor>) -> Manifest {
    let of = Descriptor::new(subject.media_type.clone(), subject.digest.clone(), subject.size);
    Manifest {
        schema_version: 2,
        media_type: media::OCI_MANIFEST.to_owned(),
        artifact_type: Some(KIND.to_owned()),
        config: empty(),
        layers: blobs,
        subject: Some(of),
        annotations: Default::default(),
    }
}

/// What of one type an artifact has about a layer.
pub(crate) fn about<'m>(manifest: &'m Manifest, kind: &str, layer: &Digest) -> Option<&'m Descriptor> {
    let is = |blob: &&Descriptor| {
        blob.media_type == kind && blob.annotations.get(LAYER).is_some_and(|of| of == layer.as_str())
    };
    manifest.layers.iter().find(is)
}
