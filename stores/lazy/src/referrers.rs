//! What refers to an image in its registry, as far as it can be of use to a layer: indexes that somebody has published.

use berth_oci::image::{Document, Manifest};
use berth_registry::Repository;
use berth_types::{Descriptor, Digest, Error, Result};

/// Artifacts of one kind that are looked at for one image.
const LOOKED_AT: usize = 8;

/// The manifests of the artifacts of a type that refer to a manifest, those first that are listed last, for lists grow at
/// their ends. Each is verified by its digest and does say that it refers to that; what is wrong with one is no reason
/// not to look at the others.
pub(crate) async fn artifacts(
    repository: &Repository,
    subject: &Digest,
    kind: &str,
) -> Result<Vec<Manifest>> {
    let listed = repository.referrers(subject, Some(kind)).await?;
    let mut found = Vec::new();
    for descriptor in listed.iter().rev().take(LOOKED_AT) {
        match artifact(repository, subject, descriptor).await {
            Ok(manifest) => found.push(manifest),
            Err(error) => {
                tracing::info!(artifact = %descriptor.digest, error = error.chain(), "an artifact is passed over");
            }
        }
    }
    Ok(found)
}

async fn artifact(repository: &Repository, subject: &Digest, descriptor: &Descriptor) -> Result<Manifest> {
    let bytes = repository.manifest(descriptor).await?;
    let Document::Manifest(manifest) = Document::parse(&descriptor.media_type, &bytes)? else {
        return Err(Error::invalid_argument("the artifact is a list"));
    };
    match &manifest.subject {
        Some(said) if said.digest == *subject => Ok(manifest),
        _ => Err(Error::invalid_argument("the artifact refers to something else")),
    }
}
