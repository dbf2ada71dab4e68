//! `containerd.services.snapshots.v1.Snapshots`, and berth's own call beside it.

use std::collections::HashMap;
use std::sync::Arc;

use berth_core::{Catalog, NewSnapshot, Scope, SnapshotCommit, Snapshotter};
use berth_proto as proto;
use berth_types::filter::Filters;
use berth_types::{SnapshotInfo, SnapshotKey, SnapshotterName};
use proto::berth::snapshots::v1::{self as own, snapshots_server as own_server};
use proto::containerd::services::snapshots::v1::{self as wire, snapshots_server};
use proto::convert::{from_field_mask, from_labels, mounts};
use tonic::{Request, Response, Status};

use crate::headers::scope;
use crate::mutations::Mutations;
use crate::shared::{Answers, Shared, existing, in_blocks, ok, optional, required};

/// Both services.
#[derive(Clone)]
pub(crate) struct Snapshots {
    source: Source,
    mutations: Mutations,
}

/// Where snapshotters come from.
#[derive(Clone)]
enum Source {
    /// Each by its name.
    Catalog(Arc<dyn Catalog>),
    /// There is one, and whatever name clients have for it is right.
    One(Arc<dyn Snapshotter>),
}

impl Snapshots {
    /// Those of a catalog.
    pub(crate) fn of(shared: Shared) -> Self {
        let Shared { catalog, mutations, .. } = shared;
        Self { source: Source::Catalog(catalog), mutations }
    }

    /// A single one.
    pub(crate) fn one(snapshotter: Arc<dyn Snapshotter>, mutations: Mutations) -> Self {
        Self { source: Source::One(snapshotter), mutations }
    }

    /// In whose name a request comes. A single snapshotter knows no namespaces, and containerd's collector, which walks
    /// all that there is, names none.
    fn scope<T>(&self, request: &Request<T>) -> Result<Scope, Status> {
        match &self.source {
            Source::Catalog(_) => scope(request),
            Source::One(_) => Ok(Scope::new("default".parse().expect("it is an identifier"))),
        }
    }

    /// The snapshotter of a request. One that is not there is InvalidArgument, as in containerd.
    fn snapshotter(&self, scope: &Scope, name: &str) -> Result<Arc<dyn Snapshotter>, Status> {
        let catalog = match &self.source {
            Source::Catalog(catalog) => catalog,
            Source::One(snapshotter) => return Ok(Arc::clone(snapshotter)),
        };
        if name.is_empty() {
            return Err(Status::invalid_argument("snapshotter argument missing: invalid argument"));
        }
        let name: SnapshotterName = name.parse().map_err(|_| {
            Status::invalid_argument(format!("snapshotter not loaded: {name}: invalid argument"))
        })?;
        ok(catalog.snapshotter(&name, scope))
    }
}

fn new_snapshot(key: &str, parent: &str, labels: HashMap<String, String>) -> Result<NewSnapshot, Status> {
    Ok(NewSnapshot { key: ok(key.parse())?, parent: optional(parent)?, labels: from_labels(labels) })
}

fn existing_key(key: &str) -> Result<SnapshotKey, Status> {
    existing("snapshot", key)
}

#[tonic::async_trait]
impl own_server::Snapshots for Snapshots {
    async fn commit_all(&self, request: Request<own::CommitAllRequest>) -> Result<Response<()>, Status> {
        let scope = self.scope(&request)?;
        let own::CommitAllRequest { snapshotter, commits } = request.into_inner();
        let snapshotter = self.snapshotter(&scope, &snapshotter)?;
        let commits = commits.into_iter().map(commit).collect::<Result<Vec<_>, _>>()?;
        self.mutations.run(async move { snapshotter.commit_all(commits).await }).await
    }
}

fn commit(commit: own::Commit) -> Result<SnapshotCommit, Status> {
    let own::Commit { name, key, parent, labels } = commit;
    Ok(SnapshotCommit {
        name: ok(name.parse())?,
        key: existing_key(&key)?,
        parent: optional(&parent)?,
        labels: from_labels(labels),
    })
}

#[tonic::async_trait]
impl snapshots_server::Snapshots for Snapshots {
    type ListStream = Answers<wire::ListSnapshotsResponse>;

    async fn prepare(
        &self,
        request: Request<wire::PrepareSnapshotRequest>,
    ) -> Result<Response<wire::PrepareSnapshotResponse>, Status> {
        let scope = self.scope(&request)?;
        let wire::PrepareSnapshotRequest { snapshotter, key, parent, labels } = request.into_inner();
        let snapshotter = self.snapshotter(&scope, &snapshotter)?;
        let new = new_snapshot(&key, &parent, labels)?;
        let change = async move {
            Ok(wire::PrepareSnapshotResponse { mounts: mounts(snapshotter.prepare(new).await?) })
        };
        self.mutations.run(change).await
    }

    async fn view(
        &self,
        request: Request<wire::ViewSnapshotRequest>,
    ) -> Result<Response<wire::ViewSnapshotResponse>, Status> {
        let scope = self.scope(&request)?;
        let wire::ViewSnapshotRequest { snapshotter, key, parent, labels } = request.into_inner();
        let snapshotter = self.snapshotter(&scope, &snapshotter)?;
        let new = new_snapshot(&key, &parent, labels)?;
        let change =
            async move { Ok(wire::ViewSnapshotResponse { mounts: mounts(snapshotter.view(new).await?) }) };
        self.mutations.run(change).await
    }

    async fn mounts(
        &self,
        request: Request<wire::MountsRequest>,
    ) -> Result<Response<wire::MountsResponse>, Status> {
        let scope = self.scope(&request)?;
        let wire::MountsRequest { snapshotter, key } = request.into_inner();
        let snapshotter = self.snapshotter(&scope, &snapshotter)?;
        let found = ok(snapshotter.mounts(&existing_key(&key)?).await)?;
        Ok(Response::new(wire::MountsResponse { mounts: mounts(found) }))
    }

    async fn commit(&self, request: Request<wire::CommitSnapshotRequest>) -> Result<Response<()>, Status> {
        let scope = self.scope(&request)?;
        let wire::CommitSnapshotRequest { snapshotter, name, key, labels, parent } = request.into_inner();
        let snapshotter = self.snapshotter(&scope, &snapshotter)?;
        let name: SnapshotKey = ok(name.parse())?;
        let key = existing_key(&key)?;
        let parent: Option<SnapshotKey> = optional(&parent)?;
        let change = async move {
            let labels = from_labels(labels);
            match parent {
                Some(parent) => snapshotter.commit_onto(&name, &key, &parent, labels).await,
                None => snapshotter.commit(&name, &key, labels).await,
            }
        };
        self.mutations.run(change).await
    }

    async fn remove(&self, request: Request<wire::RemoveSnapshotRequest>) -> Result<Response<()>, Status> {
        let scope = self.scope(&request)?;
        let wire::RemoveSnapshotRequest { snapshotter, key } = request.into_inner();
        let snapshotter = self.snapshotter(&scope, &snapshotter)?;
        let key = existing_key(&key)?;
        self.mutations.run(async move { snapshotter.remove(&key).await }).await
    }

    async fn stat(
        &self,
        request: Request<wire::StatSnapshotRequest>,
    ) -> Result<Response<wire::StatSnapshotResponse>, Status> {
        let scope = self.scope(&request)?;
        let wire::StatSnapshotRequest { snapshotter, key } = request.into_inner();
        let snapshotter = self.snapshotter(&scope, &snapshotter)?;
        let info = ok(snapshotter.stat(&existing_key(&key)?).await)?;
        Ok(Response::new(wire::StatSnapshotResponse { info: Some(info.into()) }))
    }

    async fn update(
        &self,
        request: Request<wire::UpdateSnapshotRequest>,
    ) -> Result<Response<wire::UpdateSnapshotResponse>, Status> {
        let scope = self.scope(&request)?;
        let wire::UpdateSnapshotRequest { snapshotter, info, update_mask } = request.into_inner();
        let snapshotter = self.snapshotter(&scope, &snapshotter)?;
        let wire::Info { name, labels, .. } = required("the snapshot", info)?;
        let key = existing_key(&name)?;
        let mask = from_field_mask(update_mask);
        let change = async move {
            let updated = snapshotter.update(&key, from_labels(labels), &mask).await?;
            Ok(wire::UpdateSnapshotResponse { info: Some(updated.into()) })
        };
        self.mutations.run(change).await
    }

    async fn list(
        &self,
        request: Request<wire::ListSnapshotsRequest>,
    ) -> Result<Response<Self::ListStream>, Status> {
        let scope = self.scope(&request)?;
        let wire::ListSnapshotsRequest { snapshotter, filters } = request.into_inner();
        let snapshotter = self.snapshotter(&scope, &snapshotter)?;
        let found = ok(snapshotter.list(&ok(Filters::parse(&filters))?).await)?;
        let blocks =
            in_blocks::<SnapshotInfo, wire::Info, _>(found, |info| wire::ListSnapshotsResponse { info });
        Ok(Response::new(blocks))
    }

    async fn usage(
        &self,
        request: Request<wire::UsageRequest>,
    ) -> Result<Response<wire::UsageResponse>, Status> {
        let scope = self.scope(&request)?;
        let wire::UsageRequest { snapshotter, key } = request.into_inner();
        let snapshotter = self.snapshotter(&scope, &snapshotter)?;
        let usage = ok(snapshotter.usage(&existing_key(&key)?).await)?;
        Ok(Response::new(usage.into()))
    }

    async fn cleanup(&self, request: Request<wire::CleanupRequest>) -> Result<Response<()>, Status> {
        let scope = self.scope(&request)?;
        let snapshotter = self.snapshotter(&scope, &request.into_inner().snapshotter)?;
        self.mutations.run(async move { snapshotter.cleanup().await }).await
    }
}
