//! What every snapshotter with local folders has in common.

use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use berth_core::{NewSnapshot, SnapshotCommit, Snapshotter};
use berth_types::filter::Filters;
use berth_types::{
    Error, FieldMask, Labels, Mount, Result, SnapshotInfo, SnapshotKey, SnapshotKind, Usage, validate_labels,
};

use crate::open::OpenError;
use crate::records::{Record, Records, Ticket};
use crate::trees::Trees;
use crate::usage;

/// When the files of a removed snapshot go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Removal {
    /// Before the removal answers.
    Now,
    /// With the next cleanup.
    AtCleanup,
}

/// A snapshot as its mounts depend on it.
#[derive(Debug)]
pub(crate) struct Place<'a> {
    pub(crate) id: u64,
    pub(crate) kind: SnapshotKind,
    pub(crate) purpose: Purpose,
    /// The numbers of the parents, nearest first.
    pub(crate) parents: &'a [u64],
    pub(crate) labels: &'a Labels,
}

/// What a new snapshot is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// To take a layer that is unpacked. Clients tell by the key: it begins with containerd's `extract-`.
    Layer,
    /// Anything else: what a container writes.
    Container,
}

impl Purpose {
    /// What a snapshot of that key is for. The daemon's keys have the namespace and a number before the client's.
    fn of(key: &SnapshotKey) -> Self {
        let named = key.as_str().splitn(3, '/').any(|part| part.starts_with("extract-"));
        if named { Self::Layer } else { Self::Container }
    }
}

/// What makes one snapshotter differ from another.
pub(crate) trait Shape: Send + Sync + 'static {
    /// Whether such a snapshot has a folder of its own.
    fn has_folder(&self, place: &Place<'_>) -> bool;

    /// The mode of that folder.
    fn folder_mode(&self) -> u32;

    /// Fills the folder of a new snapshot.
    fn fill(&self, trees: &Trees, folder: &OwnedFd, place: &Place<'_>) -> Result<()>;

    /// Readies that folder for what a container writes. Not done for a snapshot that takes a layer.
    fn make_room(&self, _folder: &OwnedFd, _place: &Place<'_>) -> Result<()> {
        Ok(())
    }

    /// Makes what the mounts name, if it does not stay by itself. Blocking, and idempotent.
    fn bring_up(&self, _trees: &Trees, _place: &Place<'_>) -> Result<()> {
        Ok(())
    }

    /// How to mount it.
    fn mounts(&self, trees: &Trees, place: &Place<'_>) -> Result<Vec<Mount>>;

    /// The tree whose usage is the snapshot's.
    fn tree(&self, trees: &Trees, id: u64) -> PathBuf;

    /// What a snapshot takes.
    fn measure(&self, trees: &Trees, id: u64) -> io::Result<Usage> {
        usage::measure(&self.tree(trees, id))
    }

    /// Makes what is kept of an active snapshot once it is committed. The commit may still fail, and the snapshot be
    /// written to and committed again.
    fn seal(&self, _trees: &Trees, _id: u64) -> Result<()> {
        Ok(())
    }

    /// Frees what a snapshot needed while it was active: its commit cannot fail any more.
    fn committed(&self, _trees: &Trees, _id: u64) {}

    /// Ends what [`Shape::bring_up`] made: the snapshot is gone, and its folder goes soon. Idempotent.
    fn take_down(&self, _trees: &Trees, _id: u64) {}

    /// Whether a tree holds nothing of its parents', so that they can be given to it when it is committed.
    fn rebases(&self) -> bool {
        false
    }

    /// Labels that the snapshotter adds to what it tells.
    fn add_labels(&self, _trees: &Trees, _id: u64, _labels: &mut Labels) {}
}

/// A snapshotter of some shape.
pub(crate) struct Local<S>(Arc<Inner<S>>);

struct Inner<S> {
    shape: S,
    trees: Trees,
    records: Mutex<Records>,
    removal: Removal,
    /// What the next cleanup has to do; one at a time cleans up.
    cleaning: Mutex<Cleaning>,
    /// Folders of removed snapshots, for the next cleanup.
    removed: Mutex<Vec<u64>>,
}

/// How much a cleanup has to look at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Cleaning {
    /// Every folder: an earlier process may have left some.
    Everything,
    /// What was removed since.
    Removed,
}

impl<S: Shape> Local<S> {
    pub(crate) fn open(root: &Path, shape: S, removal: Removal) -> Result<Self, OpenError> {
        let failed = |error| OpenError::failed(root, error);
        let trees = Trees::open(root).map_err(failed)?;
        let folder = trees.folder().map_err(|error| failed(Error::io("cannot open the folder", error)))?;
        let mut records = Records::open(folder).map_err(failed)?;
        if records.rebooted() {
            let present = |record: &Record| {
                let (kind, purpose) = (record.kind, Purpose::Container);
                let place = Place { id: record.id, kind, purpose, parents: PARENTS, labels: &record.labels };
                let place = if record.parent.is_some() { place } else { Place { parents: &[], ..place } };
                !shape.has_folder(&place) || trees.has(record.id)
            };
            records.keep_present(present).map_err(failed)?;
        }
        Ok(Self(Arc::new(Inner {
            shape,
            trees,
            records: Mutex::new(records),
            removal,
            cleaning: Mutex::new(Cleaning::Everything),
            removed: Mutex::default(),
        })))
    }

    /// Runs work on the trees where it may block, to its end even if the caller goes away.
    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Inner<S>) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let inner = Arc::clone(&self.0);
        tokio::task::spawn_blocking(move || work(&inner))
            .await
            .map_err(|error| Error::internal("work on a snapshot ended early").caused_by(error))?
    }
}

/// Stands for any parents where only their being there counts.
const PARENTS: &[u64] = &[0];

impl<S: Shape> Inner<S> {
    fn records(&self) -> MutexGuard<'_, Records> {
        // Every change of the records is one step after its line is written, so they are always whole.
        self.records.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn make(&self, new: NewSnapshot, kind: SnapshotKind) -> Result<Vec<Mount>> {
        validate_labels(&new.labels)?;
        let (labels, purpose) = (new.labels.clone(), Purpose::of(&new.key));
        let mut ticket = self.records().reserve(new, kind)?;
        let made = self
            .make_tree(&mut ticket, (kind, purpose), &labels)
            .and_then(|()| {
                let place = Place { id: ticket.id, kind, purpose, parents: &ticket.parents, labels: &labels };
                self.mounts_of(&place)
            })
            .and_then(|mounts| self.records().admit(&ticket).map(|()| mounts));
        if made.is_err() {
            // The name is free again only when the folder is gone, or a cleanup could meet a successor's.
            self.remove_tree(ticket.id);
            self.records().release(&ticket);
        }
        made
    }

    fn mounts(&self, key: &SnapshotKey) -> Result<Vec<Mount>> {
        let (record, parents) = {
            let records = self.records();
            let record = records.record(key)?;
            if record.kind == SnapshotKind::Committed {
                return Err(Error::failed_precondition(format!(
                    "snapshot {key} is neither active nor a view"
                )));
            }
            (record.clone(), records.chain(record.parent.as_ref())?)
        };
        let (kind, purpose) = (record.kind, Purpose::of(key));
        self.mounts_of(&Place { id: record.id, kind, purpose, parents: &parents, labels: &record.labels })
    }

    fn mounts_of(&self, place: &Place<'_>) -> Result<Vec<Mount>> {
        self.shape.bring_up(&self.trees, place)?;
        self.shape.mounts(&self.trees, place)
    }

    fn make_tree(
        &self,
        ticket: &mut Ticket,
        (kind, purpose): (SnapshotKind, Purpose),
        labels: &Labels,
    ) -> Result<()> {
        loop {
            let place = Place { id: ticket.id, kind, purpose, parents: &ticket.parents, labels };
            if !self.shape.has_folder(&place) {
                return Ok(());
            }
            match self.trees.make(ticket.id, self.shape.folder_mode()) {
                Ok(folder) => {
                    self.shape.fill(&self.trees, &folder, &place)?;
                    let writes = kind == SnapshotKind::Active && purpose == Purpose::Container;
                    return if writes { self.shape.make_room(&folder, &place) } else { Ok(()) };
                }
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => self.records().renumber(ticket),
                Err(error) => {
                    let path = self.trees.path(ticket.id);
                    return Err(Error::io(format!("cannot make {}", path.display()), error));
                }
            }
        }
    }

    /// Commits in this order: trees on disk → lines → lines on disk, each once for all.
    fn commit(&self, mut commits: Vec<SnapshotCommit>) -> Result<()> {
        for commit in &mut commits {
            validate_labels(&commit.labels)?;
            self.rebase(commit)?;
        }
        let ids = self.records().begin_commits(&commits)?;
        let usages = self.settle(&ids).inspect_err(|_| self.records().abandon_commits(&commits))?;
        let journal = {
            let mut records = self.records();
            records.end_commits(commits, usages)?;
            records.journal()
        };
        let flushed = journal.and_then(|journal| journal.sync_data());
        flushed.map_err(|error| Error::io("cannot flush the records of snapshots", error))?;
        ids.iter().for_each(|id| self.shape.committed(&self.trees, *id));
        Ok(())
    }

    /// Commits those whose names are free; the others' active snapshots go.
    fn commit_all(&self, mut commits: Vec<SnapshotCommit>) -> Result<()> {
        let needless = {
            let records = self.records();
            commits.extract_if(.., |commit| records.record(&commit.name).is_ok()).collect::<Vec<_>>()
        };
        if !commits.is_empty() {
            self.commit(commits)?;
        }
        needless.iter().try_for_each(|commit| self.remove(&commit.key))
    }

    /// Seals trees, and measures them while everything in them goes to disk.
    fn settle(&self, ids: &[u64]) -> Result<Vec<Usage>> {
        ids.iter().try_for_each(|id| self.shape.seal(&self.trees, *id))?;
        let (flushed, usages) = std::thread::scope(|scope| {
            let flush = scope.spawn(|| self.trees.sync());
            let usages: Result<Vec<Usage>> = ids.iter().map(|id| self.measure(*id)).collect();
            (flush.join(), usages)
        });
        let lost = |_| io::Error::other("the thread that flushes has panicked");
        flushed
            .map_err(lost)
            .flatten()
            .map_err(|error| Error::io("cannot flush the files of snapshots", error))?;
        usages
    }

    /// Leaves the parent of a commit only where the snapshot gets it with the commit.
    fn rebase(&self, commit: &mut SnapshotCommit) -> Result<()> {
        let Some(onto) = &commit.parent else { return Ok(()) };
        let key = &commit.key;
        match &self.records().record(key)?.parent {
            Some(parent) if parent == onto => commit.parent = None,
            Some(parent) => {
                return Err(Error::invalid_argument(format!(
                    "snapshot {key} was prepared on {parent} and cannot be committed onto {onto}"
                )));
            }
            None if self.shape.rebases() => {}
            None => {
                return Err(Error::not_implemented(format!(
                    "snapshot {key} cannot get the parent {onto} when it is committed: prepare it on that parent"
                )));
            }
        }
        Ok(())
    }

    fn measure(&self, id: u64) -> Result<Usage> {
        let failed = |error| Error::io(format!("cannot measure {}", self.trees.path(id).display()), error);
        self.shape.measure(&self.trees, id).map_err(failed)
    }

    fn remove(&self, key: &SnapshotKey) -> Result<()> {
        let id = self.records().remove(key)?;
        self.shape.take_down(&self.trees, id);
        match self.removal {
            Removal::Now => self.remove_tree(id),
            Removal::AtCleanup => self.removed().push(id),
        }
        Ok(())
    }

    /// Removes a folder that no record names. The snapshot is gone for everybody already, so that a failure
    /// only leaves files for the next cleanup.
    fn remove_tree(&self, id: u64) {
        self.shape.take_down(&self.trees, id);
        if let Err(error) = self.trees.remove(id) {
            tracing::warn!(id, %error, "cannot remove the files of a snapshot");
            self.removed().push(id);
        }
    }

    fn removed(&self) -> MutexGuard<'_, Vec<u64>> {
        self.removed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn cleanup(&self) -> Result<()> {
        let mut cleaning = self.cleaning.lock().unwrap_or_else(PoisonError::into_inner);
        let failed = |error| Error::io("cannot clean up snapshots", error);
        let removed = std::mem::take(&mut *self.removed());
        for id in removed {
            self.remove_tree(id);
        }
        if *cleaning == Cleaning::Everything {
            self.sweep().map_err(failed)?;
            *cleaning = Cleaning::Removed;
        }
        self.records().compact().map_err(failed)
    }

    /// Removes every folder that is nobody's.
    fn sweep(&self) -> io::Result<()> {
        // Names first: a folder made after this look is in nobody's way.
        let names = self.trees.names()?;
        let known = self.records().names();
        for name in names {
            match name.parse::<u64>() {
                Ok(id) if known.contains(&id) => {}
                Ok(id) => self.remove_tree(id),
                Err(_) => {
                    if let Err(error) = self.trees.remove_name(&name) {
                        tracing::warn!(name, %error, "cannot remove what is among the snapshots");
                    }
                }
            }
        }
        Ok(())
    }

    fn decorated(&self, record: &Record, info: &mut SnapshotInfo) {
        self.shape.add_labels(&self.trees, record.id, &mut info.labels);
    }
}

#[async_trait]
impl<S: Shape> Snapshotter for Local<S> {
    async fn stat(&self, key: &SnapshotKey) -> Result<SnapshotInfo> {
        let records = self.0.records();
        let record = records.record(key)?;
        let mut info = record.info(key);
        self.0.decorated(record, &mut info);
        Ok(info)
    }

    async fn update(&self, key: &SnapshotKey, labels: Labels, mask: &FieldMask) -> Result<SnapshotInfo> {
        validate_labels(&labels)?;
        let mut records = self.0.records();
        let mut info = records.update(key, labels, mask)?;
        self.0.decorated(records.record(key)?, &mut info);
        Ok(info)
    }

    async fn usage(&self, key: &SnapshotKey) -> Result<Usage> {
        let (id, kind, usage) = {
            let records = self.0.records();
            let record = records.record(key)?;
            (record.id, record.kind, record.usage())
        };
        if kind != SnapshotKind::Active {
            return Ok(usage.unwrap_or_default());
        }
        self.blocking(move |inner| inner.measure(id)).await
    }

    async fn mounts(&self, key: &SnapshotKey) -> Result<Vec<Mount>> {
        let key = key.clone();
        self.blocking(move |inner| inner.mounts(&key)).await
    }

    async fn prepare(&self, new: NewSnapshot) -> Result<Vec<Mount>> {
        self.blocking(move |inner| inner.make(new, SnapshotKind::Active)).await
    }

    async fn view(&self, new: NewSnapshot) -> Result<Vec<Mount>> {
        self.blocking(move |inner| inner.make(new, SnapshotKind::View)).await
    }

    async fn commit(&self, name: &SnapshotKey, key: &SnapshotKey, labels: Labels) -> Result<()> {
        let commit = SnapshotCommit { name: name.clone(), key: key.clone(), parent: None, labels };
        self.blocking(move |inner| inner.commit(vec![commit])).await
    }

    async fn commit_onto(
        &self,
        name: &SnapshotKey,
        key: &SnapshotKey,
        parent: &SnapshotKey,
        labels: Labels,
    ) -> Result<()> {
        let parent = Some(parent.clone());
        let commit = SnapshotCommit { name: name.clone(), key: key.clone(), parent, labels };
        self.blocking(move |inner| inner.commit(vec![commit])).await
    }

    async fn commit_all(&self, commits: Vec<SnapshotCommit>) -> Result<()> {
        self.blocking(move |inner| inner.commit_all(commits)).await
    }

    async fn remove(&self, key: &SnapshotKey) -> Result<()> {
        let key = key.clone();
        self.blocking(move |inner| inner.remove(&key)).await
    }

    async fn list(&self, filters: &Filters) -> Result<Vec<SnapshotInfo>> {
        let inner = &self.0;
        Ok(inner.records().list(filters, |record, info| inner.decorated(record, info)))
    }

    async fn cleanup(&self) -> Result<()> {
        self.blocking(Inner::cleanup).await
    }
}
