//! Blobs and manifests into a repository.

use std::sync::Arc;

use berth_types::{Descriptor, Digest, Error, Result};
use bytes::Bytes;
use futures::future::BoxFuture;
use reqwest::header::{CONTENT_LENGTH, CONTENT_TYPE, HeaderMap, HeaderValue, LOCATION};
use reqwest::{Body, Method, StatusCode, Url};

use crate::exchange::{self, Call, Content};
use crate::repository::{Repository, passes};
use crate::retry;

/// Bytes of one piece of a body.
const PIECE: usize = 1 << 20;

/// Bytes to be uploaded, which can be read again when an upload has to begin anew.
pub trait BlobSource: Send + Sync {
    /// Up to `length` bytes from `offset`; none at the end.
    fn read_at(&self, offset: u64, length: usize) -> BoxFuture<'_, Result<Bytes>>;
}

impl Repository {
    /// Uploads a blob, in one piece. A registry that has it already is not asked to take it again; `false` says
    /// that it had.
    ///
    /// `source_repository` is one of the same registry which is known to have it: the registry may take it from
    /// there.
    pub async fn push_blob(
        &self,
        descriptor: &Descriptor,
        source: Arc<dyn BlobSource>,
        source_repository: Option<&str>,
    ) -> Result<bool> {
        if self.has_blob(&descriptor.digest).await? {
            return Ok(false);
        }
        let (retries, pause) = self.retries();
        let mut tries = 0;
        loop {
            match self.upload(descriptor, &source, source_repository).await {
                Err(error) if passes(error.kind()) && tries < retries => {
                    let pause = retry::pause(pause, tries, None).unwrap_or(pause);
                    tries += 1;
                    tokio::time::sleep(pause).await;
                }
                result => return result,
            }
        }
    }

    async fn upload(
        &self,
        descriptor: &Descriptor,
        source: &Arc<dyn BlobSource>,
        source_repository: Option<&str>,
    ) -> Result<bool> {
        let what = format!("cannot push blob {}", descriptor.digest);
        let host = self.target()?;
        let mut url = self.url(host, "blobs/uploads/");
        if let Some(from) = source_repository {
            let mut pairs = url.query_pairs_mut();
            pairs.append_pair("mount", descriptor.digest.as_str()).append_pair("from", from);
        }
        let mut begin = Call::new(Method::POST, url.clone());
        begin.headers.insert(CONTENT_LENGTH, HeaderValue::from_static("0"));
        let response = exchange::send(self.party(host), &begin).await;
        let response = response.map_err(|failure| self.failed(&what, failure))?;
        if response.status() == StatusCode::CREATED {
            return Ok(false);
        }
        let mut place = location(&url, response.headers())?;
        place.query_pairs_mut().append_pair("digest", descriptor.digest.as_str());

        let size = descriptor.size;
        let make = || body(Arc::clone(source), size);
        let mut put = Call::new(Method::PUT, place);
        put.headers.insert(CONTENT_LENGTH, HeaderValue::from(size));
        put.headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
        put.body = Content::Stream(&make);
        let response = exchange::send(self.party(host), &put).await;
        let response = response.map_err(|failure| self.failed(&what, failure))?;
        agrees(response.headers(), &descriptor.digest)?;
        Ok(true)
    }

    /// Puts a manifest or an index, under a tag or under its digest.
    pub async fn push_manifest(
        &self,
        descriptor: &Descriptor,
        bytes: Bytes,
        tag: Option<&str>,
    ) -> Result<()> {
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
        agrees(response.headers(), &descriptor.digest)
    }
}

/// Where an upload goes on. It may be on another host, which then gets no credentials.
fn location(from: &Url, headers: &HeaderMap) -> Result<Url> {
    let value = headers.get(LOCATION).and_then(|value| value.to_str().ok());
    let value = value.ok_or_else(|| Error::unknown("the registry does not say where to upload"))?;
    exchange::join(from, value)
}

/// A registry that says what it stored must have stored the same.
fn agrees(headers: &HeaderMap, digest: &Digest) -> Result<()> {
    match headers.get("docker-content-digest").and_then(|value| value.to_str().ok()) {
        Some(said) if said != digest.as_str() => {
            Err(Error::data_loss(format!("pushed {digest}, the registry stored {said:?}")))
        }
        _ => Ok(()),
    }
}

fn body(source: Arc<dyn BlobSource>, size: u64) -> Body {
    let pieces = futures::stream::try_unfold((source, 0), move |(source, offset)| async move {
        if offset >= size {
            return Ok(None);
        }
        let length = (size - offset).min(PIECE as u64) as usize;
        let piece = source.read_at(offset, length).await?;
        if piece.is_empty() {
            return Err(Error::data_loss(format!("the blob ended at byte {offset} of {size}")));
        }
        let next = offset + piece.len() as u64;
        Ok(Some((piece, (source, next))))
    });
    Body::wrap_stream(pieces)
}
