//! `containerd.services.diff.v1.Diff`.

use berth_core::{ApplyRequest, CompareRequest};
use berth_proto as proto;
use proto::containerd::services::diff::v1::{self as wire, diff_server};
use proto::convert::{ARRIVING, from_any, from_arriving, from_labels, mounts_from, time};
use tonic::{Request, Response, Status};

use crate::headers::scope;
use crate::shared::{Shared, ok, optional, required};

/// The service.
pub(crate) struct Diff(pub(crate) Shared);

#[tonic::async_trait]
impl diff_server::Diff for Diff {
    async fn apply(
        &self,
        request: Request<wire::ApplyRequest>,
    ) -> Result<Response<wire::ApplyResponse>, Status> {
        let differ = self.0.catalog.differ(&scope(&request)?);
        let wire::ApplyRequest { diff, mounts, mut payloads, sync_fs } = request.into_inner();
        let arriving = payloads.remove(ARRIVING).map(from_arriving);
        let apply = ApplyRequest {
            layer: ok(required("the diff", diff)?.try_into())?,
            arriving: ok(arriving.transpose())?,
            mounts: mounts_from(mounts),
            payloads: payloads.into_iter().map(|(kind, payload)| (kind, from_any(payload))).collect(),
            sync: sync_fs,
        };
        let change = async move {
            let applied = differ.apply(apply).await?;
            Ok(wire::ApplyResponse { applied: Some(applied.into()) })
        };
        self.0.mutations.run(change).await
    }

    async fn diff(
        &self,
        request: Request<wire::DiffRequest>,
    ) -> Result<Response<wire::DiffResponse>, Status> {
        let differ = self.0.catalog.differ(&scope(&request)?);
        let wire::DiffRequest { left, right, media_type, r#ref, labels, source_date_epoch } =
            request.into_inner();
        let compare = CompareRequest {
            lower: mounts_from(left),
            upper: mounts_from(right),
            media_type,
            reference: optional(&r#ref)?,
            labels: from_labels(labels),
            source_date_epoch: source_date_epoch.map(|epoch| time(Some(epoch))),
        };
        let change = async move {
            let diff = differ.compare(compare).await?;
            Ok(wire::DiffResponse { diff: Some(diff.into()) })
        };
        self.0.mutations.run(change).await
    }
}
