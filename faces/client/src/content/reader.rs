//! Reading a blob over the channel.
//!
//! A read at some place asks for what it wants and no more. Reads that follow one another open a stream to the
//! blob's end and take from it, so that the daemon sends while the reader works; HTTP/2's window bounds how much.

use async_trait::async_trait;
use berth_core::BlobReader;
use berth_proto::containerd::services::content::v1 as proto;
use berth_proto::convert::signed;
use berth_types::{Digest, Error, Result};
use bytes::{Buf, Bytes, BytesMut};
use tokio::sync::Mutex;
use tonic::Streaming;

use super::Service;
use crate::bound::{Bound, FOREVER, service};

pub(super) struct Remote {
    bound: Bound,
    digest: Digest,
    size: u64,
    stream: Mutex<Option<Open>>,
}

/// A stream that goes on at `offset`.
struct Open {
    offset: u64,
    /// Nothing when only the place is known and the next read may open it.
    messages: Option<Streaming<proto::ReadContentResponse>>,
    /// Bytes that came and were not asked for yet.
    rest: Bytes,
}

impl Remote {
    pub(super) fn new(bound: Bound, digest: Digest, size: u64) -> Self {
        Self { bound, digest, size, stream: Mutex::new(None) }
    }

    /// Opens the blob at `offset`, for `length` bytes or to its end.
    async fn open(&self, offset: u64, length: u64) -> Result<Open> {
        let message = proto::ReadContentRequest {
            digest: self.digest.to_string(),
            offset: signed(offset),
            size: signed(length),
        };
        let request = self.bound.request(message, FOREVER)?;
        let answer = service!(Service, self.bound).read(request).await;
        let messages = Some(answer.map_err(|status| self.bound.error(status))?.into_inner());
        Ok(Open { offset, messages, rest: Bytes::new() })
    }

    /// The next bytes of a stream, at most `length`.
    async fn take(&self, open: &mut Open, length: usize) -> Result<Bytes> {
        while open.rest.is_empty() {
            let Some(messages) = &mut open.messages else { break };
            let message = messages.message().await.map_err(|status| self.bound.error(status))?;
            let Some(message) = message else {
                open.messages = None;
                break;
            };
            open.rest = message.data;
        }
        let part = open.rest.split_to(length.min(open.rest.len()));
        open.offset += part.len() as u64;
        Ok(part)
    }

    fn ended(&self, at: u64) -> Error {
        Error::data_loss(format!("blob {} ended after {at} of {} bytes", self.digest, self.size))
    }
}

#[async_trait]
impl BlobReader for Remote {
    fn size(&self) -> u64 {
        self.size
    }

    async fn read_at(&self, offset: u64, length: usize) -> Result<Bytes> {
        let length = (length as u64).min(self.size.saturating_sub(offset)) as usize;
        if length == 0 {
            return Ok(Bytes::new());
        }
        let mut stream = self.stream.lock().await;
        let goes_on = stream.as_ref().is_some_and(|open| open.offset == offset);
        let mut open = match stream.take().filter(|_| goes_on) {
            Some(open) if open.messages.is_some() || open.rest.has_remaining() => open,
            Some(_) => self.open(offset, 0).await?,
            None => self.open(offset, length as u64).await?,
        };
        let first = self.take(&mut open, length).await?;
        if first.is_empty() {
            return Err(self.ended(offset));
        }
        let part = if first.len() == length {
            first
        } else {
            let mut whole = BytesMut::with_capacity(length);
            whole.extend_from_slice(&first);
            while whole.len() < length {
                let more = self.take(&mut open, length - whole.len()).await?;
                if more.is_empty() {
                    return Err(self.ended(open.offset));
                }
                whole.extend_from_slice(&more);
            }
            whole.freeze()
        };
        if !goes_on {
            // What was asked for is there; the next read in order opens a stream.
            open.messages = None;
        }
        *stream = Some(open);
        Ok(part)
    }
}
