//! Where the bytes of a layer come from.

use std::ops::Range;

use async_trait::async_trait;
use berth_archive::Hasher;
use berth_registry::{Access, Blob, Registries, Repository};
use berth_types::{Descriptor, Digest, Error, ImageRef, Result};
use bytes::Bytes;

/// A blob that can be read in ranges. Its bytes are not verified: whoever uses them does that.
#[async_trait]
pub trait Source: Send + Sync {
    /// Bytes of the blob, as it says itself.
    fn size(&self) -> u64;

    /// Exactly the bytes of a range.
    async fn read(&self, range: Range<u64>) -> Result<Bytes>;
}

/// A blob in a registry.
#[derive(Debug)]
pub struct RegistrySource {
    repository: Repository,
    blob: Descriptor,
}

impl RegistrySource {
    /// Finds a blob of an image's repository.
    pub async fn open(registries: &Registries, image: &ImageRef, digest: &Digest) -> Result<Self> {
        let repository = registries.repository(image, Access::Pull)?;
        let size = repository.blob_size(digest).await?;
        Ok(Self::of(repository, digest, size))
    }

    /// A blob of known size, without asking for it.
    pub fn known(registries: &Registries, image: &ImageRef, digest: &Digest, size: u64) -> Result<Self> {
        Ok(Self::of(registries.repository(image, Access::Pull)?, digest, size))
    }

    /// Sees to it that the registry gives ranges.
    pub(crate) async fn gives_ranges(&self) -> Result<()> {
        self.read(0..self.size().min(1)).await.map(drop)
    }

    /// The whole blob as it arrives, not verified either.
    pub(crate) async fn stream(&self) -> Result<Blob> {
        self.repository.blob(&self.blob, 0).await
    }

    fn of(repository: Repository, digest: &Digest, size: u64) -> Self {
        let blob = Descriptor::new("application/octet-stream".to_owned(), digest.clone(), size);
        Self { repository, blob }
    }
}

#[async_trait]
impl Source for RegistrySource {
    fn size(&self) -> u64 {
        self.blob.size
    }

    async fn read(&self, range: Range<u64>) -> Result<Bytes> {
        let length = range.end.saturating_sub(range.start);
        let bytes = self.repository.blob_range(&self.blob, range).await?;
        if bytes.len() as u64 != length {
            let text =
                format!("the registry gave {} bytes of {} and not {length}", bytes.len(), self.blob.digest);
            return Err(Error::data_loss(text));
        }
        Ok(bytes)
    }
}

/// A blob of an image's repository, all of it and verified, if it has no more than so many bytes.
pub(crate) async fn whole(
    registries: &Registries,
    image: &ImageRef,
    blob: &Descriptor,
    limit: u64,
) -> Result<Vec<u8>> {
    let digest = &blob.digest;
    let mut coming = registries.repository(image, Access::Pull)?.blob(blob, 0).await?;
    let mut bytes = Vec::new();
    while let Some(part) = coming.next().await? {
        bytes.extend_from_slice(&part);
        if bytes.len() as u64 > limit {
            let text = format!("blob {digest} is too large to be read here: it has more than {limit} bytes");
            return Err(Error::resource_exhausted(text));
        }
    }
    let mut hasher = Hasher::new(digest.algorithm());
    hasher.update(&bytes);
    let actual = hasher.finish();
    if actual != *digest {
        return Err(Error::data_loss(format!("blob {digest} arrived as {actual}")));
    }
    Ok(bytes)
}
