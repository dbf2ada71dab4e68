//! Writing a blob over the channel.
//!
//! Each message is answered, in order. Writes go out without waiting for the answers of those before, up to
//! [`AHEAD`]; whoever needs the state (a commit, a status) waits for them all.

use std::time::Duration;

use async_trait::async_trait;
use berth_core::{CommitRequest, Ingest, IngestRequest};
use berth_proto::containerd::services::content::v1 as proto;
use berth_proto::convert::{labels, signed, time, unsigned};
use berth_types::{Digest, Error, IngestStatus, Result};
use bytes::Bytes;
use futures::FutureExt;
use proto::WriteAction;
use tokio::runtime::Handle;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;

use super::Service;
use crate::bound::{Bound, FOREVER, service};

/// Bytes of one message.
const MESSAGE: usize = 1 << 20;

/// Messages that may be without an answer.
const AHEAD: usize = 8;

/// How long the answers to the last messages of an abandoned ingest are waited for.
const LINGER: Duration = Duration::from_secs(10);

pub(super) struct Remote {
    bound: Bound,
    request: IngestRequest,
    /// As the daemon described it at the beginning.
    opened: IngestStatus,
    /// Nothing after the commit, whose answer was the last.
    outbound: Option<mpsc::Sender<proto::WriteContentRequest>>,
    /// Nothing once it is dropped.
    inbound: Option<Streaming<proto::WriteContentResponse>>,
    /// Where the next byte goes, counting those that are on their way.
    offset: u64,
    unanswered: usize,
}

impl Remote {
    /// Opens or takes up the ingest.
    pub(super) async fn open(bound: Bound, request: IngestRequest) -> Result<Self> {
        let (outbound, messages) = mpsc::channel(AHEAD);
        let first = proto::WriteContentRequest {
            r#ref: request.reference.to_string(),
            total: signed(request.total),
            expected: request.expected.as_ref().map(Digest::to_string).unwrap_or_default(),
            ..Default::default()
        };
        // The first message has to be there before the call: the daemon says nothing until it has read it.
        outbound.try_send(first).map_err(|_| Error::internal("the channel's first place is free"))?;
        let call = bound.request(ReceiverStream::new(messages), FOREVER)?;
        let answer = service!(Service, bound).write(call).await;
        let mut inbound = answer.map_err(|status| bound.error(status))?.into_inner();
        let answer = inbound.message().await.map_err(|status| bound.error(status))?;
        let opened = opened(&request, &answer.ok_or_else(|| closed(&request))?)?;
        let offset = opened.offset;
        Ok(Self {
            bound,
            request,
            opened,
            outbound: Some(outbound),
            inbound: Some(inbound),
            offset,
            unanswered: 0,
        })
    }

    /// The next answer, nothing at their end.
    async fn next(&mut self) -> Result<Option<proto::WriteContentResponse>> {
        let Some(inbound) = &mut self.inbound else { return Ok(None) };
        inbound.message().await.map_err(|status| self.bound.error(status))
    }

    /// Waits for the next answer.
    async fn answer(&mut self) -> Result<proto::WriteContentResponse> {
        let message = self.next().await?;
        self.unanswered = self.unanswered.saturating_sub(1);
        message.ok_or_else(|| {
            let text = format!("the daemon ended the ingest {} early", self.request.reference);
            Error::unavailable(text)
        })
    }

    /// Waits for the answers of all messages but `left`; gives the last.
    async fn settle(&mut self, left: usize) -> Result<Option<proto::WriteContentResponse>> {
        let mut last = None;
        while self.unanswered > left {
            last = Some(self.answer().await?);
        }
        Ok(last)
    }

    async fn send(&mut self, message: proto::WriteContentRequest) -> Result<()> {
        // Answers that have come are taken at once, so that a failure is seen as early as can be.
        while self.unanswered > 0 {
            match self.answer().now_or_never() {
                Some(answer) => drop(answer?),
                None => break,
            }
        }
        self.settle(AHEAD - 1).await?;
        let Some(outbound) = &self.outbound else { return Err(closed(&self.request)) };
        if outbound.send(message).await.is_err() {
            // The daemon has ended the call; its answer says why.
            self.unanswered = usize::MAX;
            self.settle(0).await?;
            return Err(closed(&self.request));
        }
        self.unanswered += 1;
        Ok(())
    }

    fn message(&self, action: WriteAction) -> proto::WriteContentRequest {
        proto::WriteContentRequest {
            action: action as i32,
            offset: signed(self.offset),
            ..Default::default()
        }
    }
}

fn closed(request: &IngestRequest) -> Error {
    Error::failed_precondition(format!("the ingest {} is closed", request.reference))
}

/// What the daemon says of an ingest as it opens it.
fn opened(request: &IngestRequest, answer: &proto::WriteContentResponse) -> Result<IngestStatus> {
    Ok(IngestStatus {
        reference: request.reference.clone(),
        offset: unsigned("offset of an ingest", answer.offset)?,
        total: unsigned("total of an ingest", answer.total)?,
        expected: request.expected.clone(),
        started_at: time(answer.started_at),
        updated_at: time(answer.updated_at),
    })
}

/// Resetting the stream would throw away what is on its way. So the writing half is closed, and the answers are
/// read to their end, for as long as a local daemon may reasonably take.
impl Drop for Remote {
    fn drop(&mut self) {
        if self.outbound.take().is_none() || self.unanswered == 0 {
            return;
        }
        let (Some(mut inbound), Ok(runtime)) = (self.inbound.take(), Handle::try_current()) else { return };
        runtime.spawn(tokio::time::timeout(LINGER, async move {
            while let Ok(Some(_)) = inbound.message().await {}
        }));
    }
}

#[async_trait]
impl Ingest for Remote {
    async fn status(&self) -> Result<IngestStatus> {
        Ok(IngestStatus { offset: self.offset, ..self.opened.clone() })
    }

    async fn write(&mut self, offset: u64, data: Bytes) -> Result<()> {
        if offset != self.offset {
            return Err(Error::out_of_range(format!(
                "write at {offset} of the ingest {} must occur at its end {}",
                self.request.reference, self.offset
            )));
        }
        let mut data = data;
        while !data.is_empty() {
            let part = data.split_to(data.len().min(MESSAGE));
            let length = part.len() as u64;
            let message = proto::WriteContentRequest { data: part, ..self.message(WriteAction::Write) };
            self.send(message).await?;
            self.offset += length;
        }
        Ok(())
    }

    /// The wire can only cut an ingest to nothing.
    async fn truncate(&mut self, size: u64) -> Result<()> {
        if size == self.offset {
            return Ok(());
        }
        if size > self.offset {
            return Err(Error::out_of_range(format!(
                "the ingest {} has {} bytes, fewer than {size}",
                self.request.reference, self.offset
            )));
        }
        if size > 0 {
            return Err(Error::not_implemented(format!(
                "containerd's protocol cannot cut the ingest {} to {size} bytes, only to none",
                self.request.reference
            )));
        }
        self.offset = 0;
        let message = self.message(WriteAction::Write);
        self.send(message).await
    }

    async fn commit(&mut self, request: CommitRequest) -> Result<Digest> {
        let expected = request.expected.or_else(|| self.request.expected.clone());
        let message = proto::WriteContentRequest {
            total: request.size.map(signed).unwrap_or_default(),
            expected: expected.as_ref().map(Digest::to_string).unwrap_or_default(),
            labels: labels(request.labels),
            ..self.message(WriteAction::Commit)
        };
        self.send(message).await?;
        let last = self.settle(0).await?;
        self.outbound = None;
        // Reading to the end tells the daemon's last word.
        while self.next().await?.is_some() {}
        let digest = last.map(|answer| answer.digest).unwrap_or_default();
        digest.parse()
    }
}
