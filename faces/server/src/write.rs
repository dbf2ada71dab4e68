//! One `Content.Write`: messages in, an answer to each, until a commit or the end.
//!
//! ```text
//!   first message (ref, total, expected) ─▶ writer opened ─▶ STAT | WRITE ─┐
//!                                               ▲                          │ answer
//!                                               └──────────────────────────┘
//!                                                 COMMIT ─▶ blob, answer, end
//! ```
//!
//! The session is a task of its own: when the client goes away, what has been written stays an ingest that the
//! next session resumes, and a commit that has begun is finished.

use std::sync::Arc;

use berth_core::{CommitRequest, ContentStore, Ingest, IngestRequest};
use berth_proto as proto;
use berth_types::{Digest, IngestRef, IngestStatus};
use proto::containerd::services::content::v1::{WriteAction, WriteContentRequest, WriteContentResponse};
use proto::convert::{from_labels, signed, timestamp, unsigned};
use tokio::sync::mpsc;
use tonic::{Status, Streaming};

use crate::guard::too_long;
use crate::shared::ok;

/// A write under way.
pub(crate) struct Session {
    store: Arc<dyn ContentStore>,
    requests: Streaming<WriteContentRequest>,
    answers: mpsc::Sender<Result<WriteContentResponse, Status>>,
}

/// What is known of the blob to come, by what the client has said so far.
struct Upload {
    ingest: Box<dyn Ingest>,
    reference: IngestRef,
    total: u64,
    expected: Option<Digest>,
    /// Carried from answer to answer: a later one repeats what an earlier STAT has said.
    answer: WriteContentResponse,
}

enum Next {
    Message,
    End,
}

impl Session {
    pub(crate) fn new(
        store: Arc<dyn ContentStore>,
        requests: Streaming<WriteContentRequest>,
        answers: mpsc::Sender<Result<WriteContentResponse, Status>>,
    ) -> Self {
        Self { store, requests, answers }
    }

    pub(crate) async fn run(mut self) {
        if let Err(status) = self.serve().await {
            tracing::debug!(code = ?status.code(), error = status.message(), "content write failed");
            // A client that has gone needs no answer.
            let _ = self.answers.send(Err(status)).await;
        }
    }

    async fn serve(&mut self) -> Result<(), Status> {
        let Some(mut request) = self.receive().await? else {
            return Err(Status::unknown("EOF"));
        };
        let mut upload = self.open(&request).await?;
        loop {
            if let Some(expected) = expected(&request.expected)? {
                if self.store.info(&expected).await.is_ok() {
                    return Err(self.give_up(upload, &expected).await);
                }
                upload.expected = Some(expected);
            }
            let next = handle(&mut upload, request).await?;
            if self.answers.send(Ok(upload.answer.clone())).await.is_err() {
                return Ok(());
            }
            request = match next {
                Next::End => return Ok(()),
                Next::Message => match self.receive().await? {
                    Some(request) => request,
                    None => return Ok(()),
                },
            };
        }
    }

    async fn receive(&mut self) -> Result<Option<WriteContentRequest>, Status> {
        self.requests.message().await.map_err(|status| too_long(&status).unwrap_or(status))
    }

    /// Takes the writer, of which there is one at a time.
    async fn open(&self, first: &WriteContentRequest) -> Result<Upload, Status> {
        if first.r#ref.is_empty() {
            return Err(Status::invalid_argument("first message must have a reference"));
        }
        let reference: IngestRef = ok(first.r#ref.parse())?;
        let total = ok(unsigned("total of an ingest", first.total))?;
        let expected = expected(&first.expected)?;
        let request = IngestRequest { reference: reference.clone(), total, expected: expected.clone() };
        let ingest = ok(self.store.writer(request).await)?;
        Ok(Upload { ingest, reference, total, expected, answer: WriteContentResponse::default() })
    }

    /// Content that is there already needs no ingest.
    async fn give_up(&self, upload: Upload, expected: &Digest) -> Status {
        let Upload { ingest, reference, .. } = upload;
        drop(ingest);
        if let Err(error) = self.store.abort(&reference).await {
            tracing::debug!(%reference, error = error.chain(), "cannot abort a needless ingest");
        }
        Status::already_exists(format!("blob with expected digest {expected} exists"))
    }
}

async fn handle(upload: &mut Upload, request: WriteContentRequest) -> Result<Next, Status> {
    let status = ok(upload.ingest.status().await)?;
    let action = WriteAction::try_from(request.action)
        .map_err(|_| Status::invalid_argument(format!("unknown write action {}", request.action)))?;
    upload.answer.action = request.action;
    upload.answer.offset = signed(status.offset);
    if request.total > 0 {
        upload.total = ok(unsigned("total of an ingest", request.total))?;
    }
    match action {
        WriteAction::Stat => {
            upload.answer.started_at = timestamp(status.started_at);
            upload.answer.updated_at = timestamp(status.updated_at);
            upload.answer.total = signed(upload.total);
        }
        WriteAction::Write => append(upload, &status, request).await?,
        WriteAction::Commit => return commit(upload, &status, request).await,
    }
    upload.answer.digest = upload.ingest.digest().map(String::from).unwrap_or_default();
    Ok(Next::Message)
}

fn expected(text: &str) -> Result<Option<Digest>, Status> {
    if text.is_empty() { Ok(None) } else { ok(text.parse()).map(Some) }
}

/// Adds the bytes of a message. An offset has to be the present end; the offset 0 begins anew.
async fn append(
    upload: &mut Upload,
    status: &IngestStatus,
    request: WriteContentRequest,
) -> Result<(), Status> {
    let mut end = status.offset;
    let offset = ok(unsigned("offset of a write", request.offset))?;
    if offset > 0 && offset != end {
        return Err(Status::out_of_range(format!("write @{offset} must occur at current offset {end}")));
    }
    if offset == 0 && end > 0 {
        ok(upload.ingest.truncate(0).await.map_err(|error| error.context("truncate failed")))?;
        end = 0;
    }
    if !request.data.is_empty() {
        let length = request.data.len() as u64;
        ok(upload.ingest.write(end, request.data).await)?;
        end += length;
    }
    upload.answer.offset = signed(end);
    Ok(())
}

async fn commit(
    upload: &mut Upload,
    status: &IngestStatus,
    mut request: WriteContentRequest,
) -> Result<Next, Status> {
    let labels = from_labels(std::mem::take(&mut request.labels));
    append(upload, status, request).await?;
    let size = Some(upload.total).filter(|total| *total > 0);
    let request = CommitRequest { size, expected: upload.expected.clone(), labels };
    let digest = ok(upload.ingest.commit(request).await)?;
    upload.answer.digest = digest.into();
    Ok(Next::End)
}
