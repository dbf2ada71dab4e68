//! `containerd.services.content.v1.Content`. Its `Write` is in [`crate::write`].

use std::sync::Arc;

use berth_core::{BlobReader, ContentStore, Scope};
use berth_proto as proto;
use berth_types::filter::Filters;
use berth_types::{BlobInfo, Digest, IngestRef};
use proto::containerd::services::content::v1::{self as wire, content_server};
use proto::convert::{from_field_mask, from_labels, signed};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

use crate::headers::scope;
use crate::shared::{self, Answers, Shared, existing, in_blocks, ok, required};
use crate::write::Session;

/// The longest piece of a blob in one message of `Read`.
const PIECE: u64 = 256 << 10;

/// The service.
pub(crate) struct Content(pub(crate) Shared);

impl Content {
    fn store(&self, scope: &Scope) -> Arc<dyn ContentStore> {
        self.0.catalog.content(scope)
    }
}

fn digest(text: &str) -> Result<Digest, Status> {
    text.parse().map_err(|_| Status::invalid_argument(format!("{text:?} failed validation")))
}

fn reference(text: &str) -> Result<IngestRef, Status> {
    existing("ingest", text)
}

#[tonic::async_trait]
impl content_server::Content for Content {
    type ListStream = Answers<wire::ListContentResponse>;
    type ReadStream = Answers<wire::ReadContentResponse>;
    type WriteStream = Answers<wire::WriteContentResponse>;

    async fn info(
        &self,
        request: Request<wire::InfoRequest>,
    ) -> Result<Response<wire::InfoResponse>, Status> {
        let store = self.store(&scope(&request)?);
        let info = ok(store.info(&digest(&request.into_inner().digest)?).await)?;
        Ok(Response::new(wire::InfoResponse { info: Some(info.into()) }))
    }

    async fn update(
        &self,
        request: Request<wire::UpdateRequest>,
    ) -> Result<Response<wire::UpdateResponse>, Status> {
        let store = self.store(&scope(&request)?);
        let wire::UpdateRequest { info, update_mask } = request.into_inner();
        let wire::Info { digest: address, labels, .. } = required("the info", info)?;
        let address = digest(&address)?;
        let mask = from_field_mask(update_mask);
        let change = async move {
            let updated = store.update(&address, from_labels(labels), &mask).await?;
            Ok(wire::UpdateResponse { info: Some(updated.into()) })
        };
        self.0.mutations.run(change).await
    }

    async fn list(
        &self,
        request: Request<wire::ListContentRequest>,
    ) -> Result<Response<Self::ListStream>, Status> {
        let store = self.store(&scope(&request)?);
        let filters = ok(Filters::parse(&request.into_inner().filters))?;
        let found = ok(store.list(&filters).await)?;
        let blocks = in_blocks::<BlobInfo, wire::Info, _>(found, |info| wire::ListContentResponse { info });
        Ok(Response::new(blocks))
    }

    async fn delete(&self, request: Request<wire::DeleteContentRequest>) -> Result<Response<()>, Status> {
        let store = self.store(&scope(&request)?);
        let address = digest(&request.into_inner().digest)?;
        self.0.mutations.run(async move { store.delete(&address).await }).await
    }

    async fn read(
        &self,
        request: Request<wire::ReadContentRequest>,
    ) -> Result<Response<Self::ReadStream>, Status> {
        let store = self.store(&scope(&request)?);
        let wire::ReadContentRequest { digest: address, offset, size } = request.into_inner();
        let reader = ok(store.reader(&digest(&address)?).await)?;
        let total = reader.size();
        let offset = u64::try_from(offset).unwrap_or(0);
        if offset > total {
            return Err(Status::out_of_range(format!("read past object length {total} bytes")));
        }
        let rest = total - offset;
        let wanted = u64::try_from(size).ok().filter(|size| (1..rest).contains(size)).unwrap_or(rest);
        Ok(Response::new(pieces(reader, offset, wanted)))
    }

    async fn status(
        &self,
        request: Request<wire::StatusRequest>,
    ) -> Result<Response<wire::StatusResponse>, Status> {
        let store = self.store(&scope(&request)?);
        let name = request.into_inner().r#ref;
        let status = store.ingest(&reference(&name)?).await;
        let status =
            ok(status.map_err(|error| error.context(format!("could not get status for ref {name:?}"))))?;
        Ok(Response::new(wire::StatusResponse { status: Some(status.into()) }))
    }

    async fn list_statuses(
        &self,
        request: Request<wire::ListStatusesRequest>,
    ) -> Result<Response<wire::ListStatusesResponse>, Status> {
        let store = self.store(&scope(&request)?);
        let filters = ok(Filters::parse(&request.into_inner().filters))?;
        let found = ok(store.ingests(&filters).await)?;
        self.0.bounded(wire::ListStatusesResponse { statuses: found.into_iter().map(Into::into).collect() })
    }

    async fn write(
        &self,
        request: Request<Streaming<wire::WriteContentRequest>>,
    ) -> Result<Response<Self::WriteStream>, Status> {
        let store = self.store(&scope(&request)?);
        let (answers, stream) = mpsc::channel(1);
        self.0.mutations.start(Session::new(store, request.into_inner(), answers).run());
        Ok(Response::new(Box::pin(ReceiverStream::new(stream))))
    }

    async fn abort(&self, request: Request<wire::AbortRequest>) -> Result<Response<()>, Status> {
        let store = self.store(&scope(&request)?);
        let reference = reference(&request.into_inner().r#ref)?;
        self.0.mutations.run(async move { store.abort(&reference).await }).await
    }
}

/// `wanted` bytes of a blob from `start`. As containerd does it, the offsets of the messages count from the first
/// byte that was asked for.
fn pieces(reader: Arc<dyn BlobReader>, start: u64, wanted: u64) -> Answers<wire::ReadContentResponse> {
    let read = move |done: u64| {
        let reader = reader.clone();
        async move {
            let left = wanted - done;
            if left == 0 {
                return Ok(None);
            }
            let data = reader
                .read_at(start + done, left.min(PIECE) as usize)
                .await
                .map_err(|error| shared::status(&error))?;
            if data.is_empty() {
                return Err(Status::data_loss(format!("the blob ended {left} bytes before its size")));
            }
            let next = done + data.len() as u64;
            Ok(Some((wire::ReadContentResponse { offset: signed(done), data }, next)))
        }
    };
    Box::pin(futures::stream::try_unfold(0, read))
}
