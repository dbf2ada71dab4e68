//! The upload of one blob, which goes on where it broke off (distribution-spec, "Pushing blobs").
//!
//! ```text
//!   POST ─▶ place ─┬─ small ─────────▶ PUT all of it ────────────────────────────┐
//!     ▲            └─ large ─▶ PATCH the rest ─▶ … ─▶ PUT nothing, with the digest ┴─▶ stored
//!     │                          │  ▲
//!     │                   breaks ▼  │ from where the registry says
//!     └─── knows nothing ──── GET the place
//! ```
//! A registry that takes no parts gets it in one piece; one for which a part is too large gets smaller ones.

use std::sync::Arc;

use berth_types::{Descriptor, Error, ErrorKind, Result};
use reqwest::header::{CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, HeaderMap, HeaderValue, LOCATION, RANGE};
use reqwest::{Body, Method, Response, StatusCode, Url};

use crate::attempt::Failure;
use crate::exchange::{self, Call, Content, Sent};
use crate::hosts::Host;
use crate::repository::Repository;
use crate::retry;
use crate::upload::{BlobSource, agrees};

/// Bytes of one piece of a body.
const PIECE: usize = 1 << 20;
/// A blob of more bytes is worth an upload that can go on.
const LARGE: u64 = 4 << 20;
/// Bytes of a part for a registry that takes no larger ones, at first and at least.
const PART: u64 = 32 << 20;
const SMALLEST_PART: u64 = 1 << 20;

/// How the bytes are sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Manner {
    /// In one request, with the digest.
    Whole,
    /// From where it stands, as parts of at most so many bytes.
    Parts(u64),
}

/// An upload.
pub(crate) struct Upload<'a> {
    repository: &'a Repository,
    descriptor: &'a Descriptor,
    source: Arc<dyn BlobSource>,
    source_repository: Option<&'a str>,
    manner: Manner,
    /// Where it goes on, and from which byte.
    place: Option<(Url, u64)>,
    tries: u32,
}

/// What an attempt came to.
enum Step {
    Stored { sent: bool },
    Onwards,
}

impl<'a> Upload<'a> {
    pub(crate) fn new(
        repository: &'a Repository,
        descriptor: &'a Descriptor,
        source: Arc<dyn BlobSource>,
        source_repository: Option<&'a str>,
    ) -> Self {
        let manner = if descriptor.size > LARGE { Manner::Parts(u64::MAX) } else { Manner::Whole };
        Self { repository, descriptor, source, source_repository, manner, place: None, tries: 0 }
    }

    /// Uploads it; false if the registry took it from another repository.
    pub(crate) async fn run(mut self) -> Result<bool> {
        loop {
            let reached = self.place.as_ref().map_or(0, |(_, offset)| *offset);
            match self.step().await? {
                Ok(Step::Stored { sent }) => return Ok(sent),
                Ok(Step::Onwards) => {}
                Err(failure) => self.after(failure).await?,
            }
            // A registry that takes a byte now and then makes no progress.
            let enough = reached + self.repository.shared().config.least;
            if self.place.as_ref().is_some_and(|(_, offset)| *offset >= enough) {
                self.tries = 0;
            }
        }
    }

    fn host(&self) -> Result<&'a Host> {
        self.repository.target()
    }

    async fn send(&self, call: &Call<'_>) -> Result<std::result::Result<Response, Failure>> {
        Ok(exchange::send(self.repository.party(self.host()?), call).await)
    }

    async fn step(&mut self) -> Result<std::result::Result<Step, Failure>> {
        let Some((place, offset)) = self.place.clone() else { return self.begin().await };
        match self.manner {
            Manner::Whole => self.put(place, Some(self.descriptor.size)).await,
            Manner::Parts(_) if offset >= self.descriptor.size => self.put(place, None).await,
            Manner::Parts(most) => self.patch(place, offset, most).await,
        }
    }

    async fn begin(&mut self) -> Result<std::result::Result<Step, Failure>> {
        let mut url = self.repository.url(self.host()?, "blobs/uploads/");
        if let Some(from) = self.source_repository {
            let mut pairs = url.query_pairs_mut();
            pairs.append_pair("mount", self.descriptor.digest.as_str()).append_pair("from", from);
        }
        let mut begin = Call::new(Method::POST, url.clone());
        begin.headers.insert(CONTENT_LENGTH, HeaderValue::from_static("0"));
        let response = match self.send(&begin).await? {
            Ok(response) => response,
            Err(failure) => return Ok(Err(failure)),
        };
        if response.status() == StatusCode::CREATED {
            return Ok(Ok(Step::Stored { sent: false }));
        }
        self.place = Some((location(&url, response.headers())?, 0));
        Ok(Ok(Step::Onwards))
    }

    /// The last request: with all bytes, or with none that are not there yet.
    async fn put(&mut self, place: Url, size: Option<u64>) -> Result<std::result::Result<Step, Failure>> {
        let mut url = place;
        url.query_pairs_mut().append_pair("digest", self.descriptor.digest.as_str());
        let mut put = Call::new(Method::PUT, url);
        put.headers.insert(CONTENT_LENGTH, HeaderValue::from(size.unwrap_or(0)));
        put.headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
        let (source, sent) = (Arc::clone(&self.source), Sent::default());
        let counted = sent.clone();
        let make = move || body(Arc::clone(&source), 0, size.unwrap_or(0), counted.clone());
        if size.is_some() {
            put.body = Content::Stream(&make, &sent);
        }
        let response = match self.send(&put).await? {
            Ok(response) => response,
            Err(failure) => return Ok(Err(failure)),
        };
        agrees(response.headers(), &self.descriptor.digest)?;
        Ok(Ok(Step::Stored { sent: true }))
    }

    async fn patch(
        &mut self,
        place: Url,
        offset: u64,
        most: u64,
    ) -> Result<std::result::Result<Step, Failure>> {
        let end = offset.saturating_add(most).min(self.descriptor.size);
        let mut patch = Call::new(Method::PATCH, place.clone());
        patch.headers.insert(CONTENT_LENGTH, HeaderValue::from(end - offset));
        patch.headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
        let range = HeaderValue::from_str(&format!("{offset}-{}", end - 1));
        patch.headers.insert(CONTENT_RANGE, range.map_err(|error| Error::internal(error.to_string()))?);
        let (source, sent) = (Arc::clone(&self.source), Sent::default());
        let counted = sent.clone();
        let make = move || body(Arc::clone(&source), offset, end, counted.clone());
        patch.body = Content::Stream(&make, &sent);
        let response = match self.send(&patch).await? {
            Ok(response) => response,
            Err(failure) => return Ok(Err(failure)),
        };
        let place = location(&place, response.headers())?;
        // A registry that says nothing has taken all.
        let reached = taken(response.headers()).unwrap_or(end);
        if reached > self.descriptor.size || reached <= offset {
            let text = format!("the registry has {reached} bytes of {} after {end}", self.descriptor.digest);
            return Err(Error::data_loss(text));
        }
        self.place = Some((place, reached));
        Ok(Ok(Step::Onwards))
    }

    /// Decides how it goes on after a failure, or that it does not.
    async fn after(&mut self, failure: Failure) -> Result<()> {
        let status = failure.status.map_or(0, |status| status.as_u16());
        if let Manner::Parts(most) = self.manner
            && self.place.is_some()
        {
            match status {
                // Another way of sending, which is no repetition.
                413 if most > SMALLEST_PART => {
                    self.manner = Manner::Parts(most.min(2 * PART) / 2);
                    return self.look().await;
                }
                400 | 404 | 405 | 415 | 501
                    if self.place.as_ref().is_some_and(|(_, offset)| *offset == 0) =>
                {
                    (self.manner, self.place) = (Manner::Whole, None);
                    return Ok(());
                }
                _ => {}
            }
        }
        let (retries, first) = self.repository.retries();
        let pause = failure.pause.or_else(|| retry::pause(first, self.tries, None)).unwrap_or(first);
        let forgotten = self.place.is_some() && matches!(status, 404 | 416);
        let passes = matches!(status, 401 | 408 | 429 | 500 | 502..=504)
            || failure.status.is_none() && failure.kind == ErrorKind::Unavailable;
        if !(passes || forgotten) || self.tries >= retries || !retry::is_granted(pause) {
            let what = format!("cannot push blob {}", self.descriptor.digest);
            return Err(self.repository.failed(&what, failure));
        }
        self.tries += 1;
        tokio::time::sleep(pause).await;
        self.look().await
    }

    /// Asks how far the upload has come; one that nobody knows any more begins anew.
    async fn look(&mut self) -> Result<()> {
        let Some((place, _)) = self.place.take() else { return Ok(()) };
        if self.manner == Manner::Whole {
            return Ok(());
        }
        let call = Call::new(Method::GET, place.clone());
        if let Ok(response) = self.send(&call).await? {
            let moved = response.headers().contains_key(LOCATION);
            let next = if moved { location(&place, response.headers())? } else { place };
            let reached = taken(response.headers()).unwrap_or(0);
            if reached <= self.descriptor.size {
                self.place = Some((next, reached));
            }
        }
        Ok(())
    }
}

/// Where an upload goes on. It may be on another host, which then gets no credentials.
fn location(from: &Url, headers: &HeaderMap) -> Result<Url> {
    let value = headers.get(LOCATION).and_then(|value| value.to_str().ok());
    let value = value.ok_or_else(|| Error::unknown("the registry does not say where to upload"))?;
    exchange::join(from, value)
}

/// How many bytes a registry has, as it says itself: `0-LAST`. One byte and none are the same in Docker's registry,
/// which says `0-0` of both.
fn taken(headers: &HeaderMap) -> Option<u64> {
    let range = headers.get(RANGE)?.to_str().ok()?;
    let range = range.trim().strip_prefix("bytes=").unwrap_or(range.trim());
    let last: u64 = range.strip_prefix("0-")?.parse().ok()?;
    Some(if last == 0 { 0 } else { last + 1 })
}

fn body(source: Arc<dyn BlobSource>, offset: u64, end: u64, sent: Sent) -> Body {
    let pieces = futures::stream::try_unfold((source, offset), move |(source, offset)| {
        let sent = sent.clone();
        async move {
            if offset >= end {
                return Ok(None);
            }
            let length = (end - offset).min(PIECE as u64) as usize;
            let piece = source.read_at(offset, length).await?;
            if piece.is_empty() {
                return Err(Error::data_loss(format!("the blob ended at byte {offset} of {end}")));
            }
            sent.add(piece.len());
            let next = offset + piece.len() as u64;
            Ok(Some((piece, (source, next))))
        }
    });
    Body::wrap_stream(pieces)
}
