//! Layers over the channel.

use async_trait::async_trait;
use berth_core::{ApplyRequest, CompareRequest, Differ};
use berth_proto::containerd::services::diff::v1 as proto;
use berth_proto::convert::{ARRIVING, any, arriving, labels, mounts, required};
use berth_types::{Descriptor, Result};

use crate::bound::{Bound, WORK, call};

type Service = proto::diff_client::DiffClient<tonic::transport::Channel>;

pub(crate) struct Remote(pub(crate) Bound);

#[async_trait]
impl Differ for Remote {
    async fn apply(&self, request: ApplyRequest) -> Result<Descriptor> {
        let ApplyRequest { layer, arriving: ingest, mounts: tree, payloads, sync } = request;
        let ingest = ingest.map(|reference| (ARRIVING.to_owned(), arriving(&reference)));
        let payloads = payloads.into_iter().map(|(name, value)| (name, any(value)));
        let message = proto::ApplyRequest {
            diff: Some(layer.into()),
            mounts: mounts(tree),
            payloads: payloads.chain(ingest).collect(),
            sync_fs: sync,
        };
        let answer = call!(self.0, Service, apply, message, WORK)?;
        required("the applied layer in the daemon's answer", answer.applied)?.try_into()
    }

    async fn compare(&self, request: CompareRequest) -> Result<Descriptor> {
        let CompareRequest { lower, upper, media_type, reference, labels: marks, source_date_epoch } =
            request;
        let message = proto::DiffRequest {
            left: mounts(lower),
            right: mounts(upper),
            media_type,
            r#ref: reference.map(String::from).unwrap_or_default(),
            labels: labels(marks),
            source_date_epoch: source_date_epoch.map(Into::into),
        };
        let answer = call!(self.0, Service, diff, message, WORK)?;
        required("the new layer in the daemon's answer", answer.diff)?.try_into()
    }
}
