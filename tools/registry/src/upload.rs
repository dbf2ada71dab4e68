//! Blobs and manifests into a repository.

use std::sync::Arc;

use berth_types::{Descriptor, Digest, Error, Result};
use bytes::Bytes;
use futures::future::BoxFuture;
use reqwest::Method;
use reqwest::header::{CONTENT_TYPE, HeaderMap};

use crate::exchange::{self, Call, Content};
use crate::repository::Repository;
use crate::session::Upload;

/// Bytes to be uploaded, which can be read again when an upload has to begin anew.
pub trait BlobSource: Send + Sync {
    /// Up to `length` bytes from `offset`; none at the end.
    fn read_at(&self, offset: u64, length: usize) -> BoxFuture<'_, Result<Bytes>>;
}

impl Repository {
    /// Uploads a blob. A registry that has it already is not asked to take it again; `false` says that it had.
    ///
    /// A small one goes in one piece, a large one so that the upload goes on where it broke off, where the registry
    /// can do that. `source_repository` is one of the same registry which is known to have it: the registry may take
    /// it from there.
    pub async fn push_blob(
        &self,
        descriptor: &Descriptor,
        source: Arc<dyn BlobSource>,
        source_repository: Option<&str>,
    ) -> Result<bool> {
        if self.has_blob(&descriptor.digest).await? {
            return Ok(false);
        }
        Upload::new(self, descriptor, source, source_repository).run().await
    }

    /// Puts a manifest or an index, under a tag or under its digest.
    pub async fn push_manifest(
        &self,
        descriptor: &Descriptor,
        bytes: Bytes,
        tag: Option<&str>,
    ) -> Result<()> {
        self.put_manifest(descriptor, bytes, tag).await.map(drop)
    }

    /// The same; what the registry says of it is in the headers.
    pub(crate) async fn put_manifest(
        &self,
        descriptor: &Descriptor,
        bytes: Bytes,
        tag: Option<&str>,
    ) -> Result<HeaderMap> {
        let what = format!("cannot push the manifest {}", descriptor.digest);
        let host = self.target()?;
        let name = tag.unwrap_or(descriptor.digest.as_str());
        let mut put = Call::new(Method::PUT, self.url(host, &format!("manifests/{name}")));
        let kind = descriptor.media_type.parse();
        put.headers.insert(
            CONTENT_TYPE,
            kind.map_err(|_| Error::invalid_argument("a media type that cannot be sent"))?,
        );
        put.body = Content::Whole(bytes);
        let response = exchange::send(self.party(host), &put).await;
        let response = response.map_err(|failure| self.failed(&what, failure))?;
        agrees(response.headers(), &descriptor.digest)?;
        Ok(response.headers().clone())
    }
}

/// A registry that says what it stored must have stored the same.
pub(crate) fn agrees(headers: &HeaderMap, digest: &Digest) -> Result<()> {
    match headers.get("docker-content-digest").and_then(|value| value.to_str().ok()) {
        Some(said) if said != digest.as_str() => {
            Err(Error::data_loss(format!("pushed {digest}, the registry stored {said:?}")))
        }
        _ => Ok(()),
    }
}
