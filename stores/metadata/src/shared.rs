//! What every view works on.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use berth_core::{ContentStore, Deletion, MountKeeper, Snapshotter};
use berth_types::{Namespace, Result, SnapshotterName};
use tokio::sync::watch;

use crate::backup::Backup;
use crate::config::Sharing;
use crate::gc::Schedule;
use crate::ledger::Ledger;
use crate::locks::Locks;
use crate::sequence::Sequence;

pub(crate) struct Shared {
    pub(crate) ledger: Ledger,
    pub(crate) content: Arc<dyn ContentStore>,
    pub(crate) snapshotters: BTreeMap<SnapshotterName, Arc<dyn Snapshotter>>,
    pub(crate) mounts: Option<Arc<dyn MountKeeper>>,
    pub(crate) sharing: Sharing,
    pub(crate) locks: Locks,
    pub(crate) sequence: Sequence,
    pub(crate) schedule: Arc<Schedule>,
    /// Whether commits that a crash interrupted have been finished.
    pub(crate) recovered: watch::Sender<bool>,
    /// Where the records are copied to.
    pub(crate) backup: Option<Backup>,
    /// How many changes there were when that was done last.
    pub(crate) saved: AtomicU64,
}

impl Shared {
    /// A key for a backend: `namespace/N/name`, as containerd has them.
    pub(crate) async fn backend_key(&self, namespace: &Namespace, name: &str) -> Result<String> {
        let number = self.sequence.next(&self.ledger).await?;
        Ok(format!("{namespace}/{number}/{name}"))
    }

    /// Does what a deletion has to do after its record is gone.
    pub(crate) async fn after(&self, deletion: Deletion) -> Result<()> {
        match deletion {
            Deletion::Later => Ok(()),
            Deletion::Synchronous => self.schedule.collect().await.map(drop),
        }
    }

    /// Copies the records, if anything changed since and the copy is older than `age`.
    pub(crate) async fn save(&self, age: Duration) {
        let Some(backup) = &self.backup else { return };
        let revision = self.schedule.revision();
        if revision == self.saved.load(Ordering::Relaxed) || backup.age().is_some_and(|old| old < age) {
            return;
        }
        let backup = backup.clone();
        match self.ledger.walk(move |read| backup.write(read)).await {
            Ok(()) => self.saved.store(revision, Ordering::Relaxed),
            Err(error) => tracing::warn!(error = error.chain(), "the metadata has no new backup"),
        }
    }

    /// Waits until the snapshots are as the records say.
    pub(crate) async fn recovered(&self) {
        if !*self.recovered.borrow() {
            // The sender lives as long as `self`.
            let _ = self.recovered.subscribe().wait_for(|done| *done).await;
        }
    }
}
