//! A snapshotter over the channel.

use async_trait::async_trait;
use berth_core::{NewSnapshot, SnapshotCommit, Snapshotter, one_by_one};
use berth_proto::berth::snapshots::v1 as own;
use berth_proto::containerd::services::snapshots::v1 as proto;
use berth_proto::convert::{field_mask, labels, mounts_from, required};
use berth_types::filter::Filters;
use berth_types::{ErrorKind, FieldMask, Labels, Mount, Result, SnapshotInfo, SnapshotKey, Usage};

use crate::bound::{Bound, RECORDS, WORK, call, service};

type OwnService = own::snapshots_client::SnapshotsClient<tonic::transport::Channel>;
type Service = proto::snapshots_client::SnapshotsClient<tonic::transport::Channel>;

pub(crate) struct Remote {
    pub(crate) bound: Bound,
    pub(crate) name: String,
}

fn record(info: Option<proto::Info>) -> Result<SnapshotInfo> {
    required("the snapshot in the daemon's answer", info)?.try_into()
}

fn parent_text(parent: Option<SnapshotKey>) -> String {
    parent.map(String::from).unwrap_or_default()
}

#[async_trait]
impl Snapshotter for Remote {
    async fn stat(&self, key: &SnapshotKey) -> Result<SnapshotInfo> {
        let message = proto::StatSnapshotRequest { snapshotter: self.name.clone(), key: key.to_string() };
        record(call!(self.bound, Service, stat, message, RECORDS)?.info)
    }

    async fn update(&self, key: &SnapshotKey, marks: Labels, mask: &FieldMask) -> Result<SnapshotInfo> {
        let info = proto::Info { name: key.to_string(), labels: labels(marks), ..Default::default() };
        let message = proto::UpdateSnapshotRequest {
            snapshotter: self.name.clone(),
            info: Some(info),
            update_mask: field_mask(mask),
        };
        record(call!(self.bound, Service, update, message, RECORDS)?.info)
    }

    async fn usage(&self, key: &SnapshotKey) -> Result<Usage> {
        let message = proto::UsageRequest { snapshotter: self.name.clone(), key: key.to_string() };
        call!(self.bound, Service, usage, message, WORK)?.try_into()
    }

    async fn mounts(&self, key: &SnapshotKey) -> Result<Vec<Mount>> {
        let message = proto::MountsRequest { snapshotter: self.name.clone(), key: key.to_string() };
        Ok(mounts_from(call!(self.bound, Service, mounts, message, RECORDS)?.mounts))
    }

    async fn prepare(&self, new: NewSnapshot) -> Result<Vec<Mount>> {
        let message = proto::PrepareSnapshotRequest {
            snapshotter: self.name.clone(),
            key: new.key.into(),
            parent: parent_text(new.parent),
            labels: labels(new.labels),
        };
        Ok(mounts_from(call!(self.bound, Service, prepare, message, WORK)?.mounts))
    }

    async fn view(&self, new: NewSnapshot) -> Result<Vec<Mount>> {
        let message = proto::ViewSnapshotRequest {
            snapshotter: self.name.clone(),
            key: new.key.into(),
            parent: parent_text(new.parent),
            labels: labels(new.labels),
        };
        Ok(mounts_from(call!(self.bound, Service, view, message, WORK)?.mounts))
    }

    async fn commit(&self, name: &SnapshotKey, key: &SnapshotKey, marks: Labels) -> Result<()> {
        self.commit_with(name, key, String::new(), marks).await
    }

    async fn commit_onto(
        &self,
        name: &SnapshotKey,
        key: &SnapshotKey,
        parent: &SnapshotKey,
        marks: Labels,
    ) -> Result<()> {
        self.commit_with(name, key, parent.to_string(), marks).await
    }

    /// A daemon that does not know how is asked for one after the other.
    async fn commit_all(&self, commits: Vec<SnapshotCommit>) -> Result<()> {
        let own = |one: &SnapshotCommit| own::Commit {
            name: one.name.to_string(),
            key: one.key.to_string(),
            parent: parent_text(one.parent.clone()),
            labels: labels(one.labels.clone()),
        };
        let message = own::CommitAllRequest {
            snapshotter: self.name.clone(),
            commits: commits.iter().map(own).collect(),
        };
        match call!(self.bound, OwnService, commit_all, message, WORK) {
            Err(error) if error.kind() == ErrorKind::NotImplemented => one_by_one(self, commits).await,
            done => done.map(drop),
        }
    }

    async fn remove(&self, key: &SnapshotKey) -> Result<()> {
        let message = proto::RemoveSnapshotRequest { snapshotter: self.name.clone(), key: key.to_string() };
        call!(self.bound, Service, remove, message, WORK).map(drop)
    }

    async fn list(&self, filters: &Filters) -> Result<Vec<SnapshotInfo>> {
        let message =
            proto::ListSnapshotsRequest { snapshotter: self.name.clone(), filters: filters.texts().to_vec() };
        let request = self.bound.request(message, RECORDS)?;
        let answer = service!(Service, self.bound).list(request).await;
        let mut stream = answer.map_err(|status| self.bound.error(status))?.into_inner();
        let mut snapshots = Vec::new();
        while let Some(message) = stream.message().await.map_err(|status| self.bound.error(status))? {
            for info in message.info {
                snapshots.push(info.try_into()?);
            }
        }
        Ok(snapshots)
    }

    async fn cleanup(&self) -> Result<()> {
        let message = proto::CleanupRequest { snapshotter: self.name.clone() };
        call!(self.bound, Service, cleanup, message, WORK).map(drop)
    }
}

impl Remote {
    async fn commit_with(
        &self,
        name: &SnapshotKey,
        key: &SnapshotKey,
        parent: String,
        marks: Labels,
    ) -> Result<()> {
        let message = proto::CommitSnapshotRequest {
            snapshotter: self.name.clone(),
            name: name.to_string(),
            key: key.to_string(),
            labels: labels(marks),
            parent,
        };
        call!(self.bound, Service, commit, message, WORK).map(drop)
    }
}
