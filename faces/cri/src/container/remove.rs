//! `RemoveContainer`.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use berth_types::{Error, ErrorKind, Result, SnapshotKey};

use super::Container;
use crate::Cri;
use crate::blocking::blocking;

impl Cri {
    /// Removes a container, and kills it first if it runs. Idempotent.
    pub(crate) async fn remove_container(self: &Arc<Self>, id: &str) -> Result<()> {
        let container = match self.container(id) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
            found => found?,
        };
        let cri = self.clone();
        let key = format!("remove {}", container.id);
        let work = async move {
            let _pause = cri.pause_joins().await;
            cri.take_away_container(&container).await.map(|()| String::new())
        };
        self.nursery.join(key, work).await.map(drop)
    }

    pub(crate) async fn take_away_container(self: &Arc<Self>, container: &Arc<Container>) -> Result<()> {
        let _work = container.work.lock().await;
        self.end_container(container, Duration::ZERO).await?;
        self.tell_container_removal(container).await;
        self.erase_container(container)
            .await
            .map_err(|error| error.context(format!("cannot remove container {}", container.id)))?;
        if let Ok(pod) = self.pod(&container.pod) {
            self.events.deleted(self, &pod, container.id.as_str());
        }
        Ok(())
    }

    /// Removes task, snapshots, files and record of a container that does not run. Each step finds its work done when
    /// it comes again.
    pub(super) async fn erase_container(&self, container: &Arc<Container>) -> Result<()> {
        self.remove_task(container).await?;
        self.unmount_images(container).await?;
        let record = self.containers_store().container(&container.id).await;
        let snapshotter = match &record {
            Ok(record) => record.snapshotter.parse()?,
            Err(_) => self.config.snapshotter.clone(),
        };
        let key: SnapshotKey = container.id.as_str().parse()?;
        gone(self.catalog.snapshotter(&snapshotter, &self.scope)?.remove(&key).await)?;
        let folders = [container.root.clone(), self.volatile(container)];
        blocking(move || folders.iter().try_for_each(|folder| remove_folder(folder))).await?;
        gone(self.containers_store().delete(&container.id).await)?;
        self.containers.remove(container);
        Ok(())
    }
}

/// What is not there has been removed.
fn gone(removed: Result<()>) -> Result<()> {
    match removed {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Removes a folder of ours; one that is not there is fine.
pub(super) fn remove_folder(folder: &Path) -> Result<()> {
    match std::fs::remove_dir_all(folder) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(Error::io(format!("cannot remove {}", folder.display()), error))
        }
        _ => Ok(()),
    }
}
