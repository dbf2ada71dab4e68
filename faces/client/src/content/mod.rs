//! Content over the channel.

mod reader;
mod writer;

use std::sync::Arc;

use async_trait::async_trait;
use berth_core::{BlobReader, ContentStore, Ingest, IngestRequest};
use berth_proto::containerd::services::content::v1 as proto;
use berth_proto::convert::{field_mask, labels, required};
use berth_types::filter::Filters;
use berth_types::{BlobInfo, Digest, Error, FieldMask, IngestRef, IngestStatus, Labels, Result};

use crate::bound::{Bound, RECORDS, WORK, call, service};

type Service = proto::content_client::ContentClient<tonic::transport::Channel>;

pub(crate) struct Remote(pub(crate) Bound);

fn record(info: Option<proto::Info>) -> Result<BlobInfo> {
    required("the blob in the daemon's answer", info)?.try_into()
}

#[async_trait]
impl ContentStore for Remote {
    async fn info(&self, digest: &Digest) -> Result<BlobInfo> {
        let message = proto::InfoRequest { digest: digest.to_string() };
        record(call!(self.0, Service, info, message, RECORDS)?.info)
    }

    async fn update(&self, digest: &Digest, marks: Labels, mask: &FieldMask) -> Result<BlobInfo> {
        let info = proto::Info { digest: digest.to_string(), labels: labels(marks), ..Default::default() };
        let message = proto::UpdateRequest { info: Some(info), update_mask: field_mask(mask) };
        record(call!(self.0, Service, update, message, RECORDS)?.info)
    }

    async fn list(&self, filters: &Filters) -> Result<Vec<BlobInfo>> {
        let message = proto::ListContentRequest { filters: filters.texts().to_vec() };
        let request = self.0.request(message, RECORDS)?;
        let answer = service!(Service, self.0).list(request).await;
        let mut stream = answer.map_err(|status| self.0.error(status))?.into_inner();
        let mut blobs = Vec::new();
        while let Some(message) = stream.message().await.map_err(|status| self.0.error(status))? {
            for info in message.info {
                blobs.push(info.try_into()?);
            }
        }
        Ok(blobs)
    }

    async fn delete(&self, digest: &Digest) -> Result<()> {
        let message = proto::DeleteContentRequest { digest: digest.to_string() };
        call!(self.0, Service, delete, message, WORK).map(drop)
    }

    async fn reader(&self, digest: &Digest) -> Result<Arc<dyn BlobReader>> {
        let size = self.info(digest).await?.size;
        Ok(Arc::new(reader::Remote::new(self.0.clone(), digest.clone(), size)))
    }

    /// One round trip: the daemon sends to the end, and what is too much is not waited for.
    async fn document(&self, digest: &Digest, limit: u64) -> Result<Vec<u8>> {
        let message = proto::ReadContentRequest { digest: digest.to_string(), offset: 0, size: 0 };
        let request = self.0.request(message, RECORDS)?;
        let answer = service!(Service, self.0).read(request).await;
        let mut stream = answer.map_err(|status| self.0.error(status))?.into_inner();
        let mut data = Vec::new();
        while let Some(message) = stream.message().await.map_err(|status| self.0.error(status))? {
            data.extend_from_slice(&message.data);
            if data.len() as u64 > limit {
                return Err(Error::resource_exhausted(format!(
                    "blob {digest} has more than the {limit} bytes allowed here"
                )));
            }
        }
        Ok(data)
    }

    async fn ingest(&self, reference: &IngestRef) -> Result<IngestStatus> {
        let message = proto::StatusRequest { r#ref: reference.to_string() };
        let answer = call!(self.0, Service, status, message, RECORDS)?;
        required("the ingest in the daemon's answer", answer.status)?.try_into()
    }

    async fn ingests(&self, filters: &Filters) -> Result<Vec<IngestStatus>> {
        let message = proto::ListStatusesRequest { filters: filters.texts().to_vec() };
        let answer = call!(self.0, Service, list_statuses, message, RECORDS)?;
        answer.statuses.into_iter().map(TryInto::try_into).collect()
    }

    async fn abort(&self, reference: &IngestRef) -> Result<()> {
        let message = proto::AbortRequest { r#ref: reference.to_string() };
        call!(self.0, Service, abort, message, RECORDS).map(drop)
    }

    async fn writer(&self, request: IngestRequest) -> Result<Box<dyn Ingest>> {
        Ok(Box::new(writer::Remote::open(self.0.clone(), request).await?))
    }
}
