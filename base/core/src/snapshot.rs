//! Snapshots: filesystem trees that build on one another.

use async_trait::async_trait;
use berth_types::filter::Filters;
use berth_types::{Error, ErrorKind, FieldMask, Labels, Mount, Result, SnapshotInfo, SnapshotKey, Usage};

/// What [`Snapshotter::prepare`] and [`Snapshotter::view`] start from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewSnapshot {
    /// The key, which nothing may have yet.
    pub key: SnapshotKey,
    /// A committed snapshot, or none for an empty tree.
    pub parent: Option<SnapshotKey>,
    /// Labels. `containerd.io/snapshot.ref` and others have a meaning to remote snapshotters.
    pub labels: Labels,
}

/// An active snapshot that is to be committed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SnapshotCommit {
    /// Its name from then on.
    pub name: SnapshotKey,
    /// The active snapshot.
    pub key: SnapshotKey,
    /// What it stands on. As in [`Snapshotter::commit_onto`], it may get it only now.
    pub parent: Option<SnapshotKey>,
    /// Labels of the committed one.
    pub labels: Labels,
}

/// A snapshotter.
///
/// ```text
///             prepare(key, parent)                commit(name, key)
///   committed ────────────────────▶ active ────────────────────────▶ committed
///       │                             │ remove(key)                     │ remove(name)
///       └── view(key, parent) ▶ view ─┴──────────▶ gone ◀───────────────┘
/// ```
///
/// Active and committed snapshots share one space of names: after a commit the active key is
/// free again. A parent must be committed; a snapshot with children cannot be removed
/// ([`FailedPrecondition`](berth_types::ErrorKind::FailedPrecondition)). Mounts are descriptions:
/// the snapshotter mounts nothing itself, the same snapshot may be mounted again after a restart.
/// Methods block for I/O of their own backend at most, never for a client.
#[async_trait]
pub trait Snapshotter: Send + Sync {
    /// The record of a snapshot.
    async fn stat(&self, key: &SnapshotKey) -> Result<SnapshotInfo>;

    /// Changes labels as the mask says; nothing else of a snapshot can change.
    async fn update(&self, key: &SnapshotKey, labels: Labels, mask: &FieldMask) -> Result<SnapshotInfo>;

    /// What a snapshot takes, without its parents. For an active one this walks its tree.
    async fn usage(&self, key: &SnapshotKey) -> Result<Usage>;

    /// How to mount an active snapshot or a view.
    async fn mounts(&self, key: &SnapshotKey) -> Result<Vec<Mount>>;

    /// Makes a writable snapshot and says how to mount it.
    async fn prepare(&self, new: NewSnapshot) -> Result<Vec<Mount>>;

    /// Makes a read-only snapshot and says how to mount it.
    async fn view(&self, new: NewSnapshot) -> Result<Vec<Mount>>;

    /// Turns the active snapshot `key` into the committed `name`, with these labels and no others.
    async fn commit(&self, name: &SnapshotKey, key: &SnapshotKey, labels: Labels) -> Result<()>;

    /// Commits, on top of the committed snapshot `parent`. An active snapshot that was prepared without a parent
    /// gets it here, so that trees can be filled at once whose order is only known by name; one that was prepared on
    /// another parent is [`InvalidArgument`](berth_types::ErrorKind::InvalidArgument).
    ///
    /// Only where a tree holds nothing of what is below it. Any other snapshotter answers
    /// [`NotImplemented`](berth_types::ErrorKind::NotImplemented) unless the parent is the one that it has; those
    /// that can are known by their capability `rebase`.
    async fn commit_onto(
        &self,
        name: &SnapshotKey,
        key: &SnapshotKey,
        parent: &SnapshotKey,
        labels: Labels,
    ) -> Result<()> {
        if self.stat(key).await?.parent.as_ref() == Some(parent) {
            return self.commit(name, key, labels).await;
        }
        Err(Error::not_implemented(format!(
            "snapshot {key} cannot get the parent {parent} when it is committed: prepare it on that parent"
        )))
    }

    /// Commits several, in their order: a parent may be the name of an earlier one. It is as if each was committed by
    /// itself, but that they may share what it costs to make them durable.
    ///
    /// A name that is there already is as good as its own commit, and its active snapshot goes. After another error
    /// some of the first may have been committed, and those that were not are still active.
    async fn commit_all(&self, commits: Vec<SnapshotCommit>) -> Result<()> {
        one_by_one(self, commits).await
    }

    /// Removes a snapshot without children.
    async fn remove(&self, key: &SnapshotKey) -> Result<()>;

    /// Every snapshot that passes the filters.
    async fn list(&self, filters: &Filters) -> Result<Vec<SnapshotInfo>>;

    /// Frees what removed snapshots left on disk.
    async fn cleanup(&self) -> Result<()>;
}

/// [`Snapshotter::commit_all`] by single commits.
pub async fn one_by_one<S: Snapshotter + ?Sized>(
    snapshotter: &S,
    commits: Vec<SnapshotCommit>,
) -> Result<()> {
    for SnapshotCommit { name, key, parent, labels } in commits {
        let done = match parent {
            Some(parent) => snapshotter.commit_onto(&name, &key, &parent, labels).await,
            None => snapshotter.commit(&name, &key, labels).await,
        };
        match done {
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {
                snapshotter.stat(&name).await.map_err(|_| error)?;
                snapshotter.remove(&key).await?;
            }
            done => done?,
        }
    }
    Ok(())
}
