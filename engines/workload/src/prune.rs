//! Removing what is not in use.

use std::collections::BTreeSet;
use std::time::SystemTime;

use berth_core::Deletion;
use berth_types::Result;

use crate::disk::folder_size;
use crate::remove::absent_is_fine;
use crate::{Found, RemoveOptions, Status, Workload};

/// What was removed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pruned {
    /// Names or ids.
    pub removed: Vec<String>,
    /// Bytes that this freed, as far as is known.
    pub freed: u64,
}

impl Workload {
    /// Removes containers that do not run and were made before `until`.
    pub async fn prune_containers(&self, until: Option<SystemTime>) -> Result<Pruned> {
        let mut pruned = Pruned::default();
        for row in self.list().await? {
            let old = until.is_none_or(|until| row.container.created_at < until);
            if !old || !matches!(row.status, Status::Created | Status::Exited) {
                continue;
            }
            let size = self.size_of(&row.container).await.unwrap_or(0);
            let id = row.container.id.to_string();
            let found = Found { container: row.container };
            self.remove(&found, RemoveOptions::default()).await?;
            pruned.removed.push(id);
            pruned.freed += size;
        }
        Ok(pruned)
    }

    /// Removes images that no container was made from: all, or only those without a tag.
    pub async fn prune_images(&self, all: bool, until: Option<SystemTime>) -> Result<Pruned> {
        let used: BTreeSet<String> = self.list().await?.into_iter().map(|row| row.container.image).collect();
        let mut pruned = Pruned::default();
        for row in self.image_rows().await? {
            let old = until.is_none_or(|until| row.created < until);
            if !old || used.contains(row.image.name.as_str()) || !(all || row.tag == "<none>") {
                continue;
            }
            let images = self.catalog.images(&self.scope);
            absent_is_fine(images.delete(&row.image.name, None, Deletion::Synchronous).await)?;
            pruned.removed.push(row.image.name.to_string());
            pruned.freed += row.size.unwrap_or(0);
        }
        self.forget_old_facts().await?;
        Ok(pruned)
    }

    /// Removes volumes that no container uses: anonymous ones, or all.
    pub async fn prune_volumes(&self, all: bool) -> Result<Pruned> {
        let used: BTreeSet<String> = self.volume_users().await?.into_iter().map(|(name, _)| name).collect();
        let mut pruned = Pruned::default();
        for volume in self.volumes()? {
            if used.contains(&volume.name) || !(all || volume.anonymous) {
                continue;
            }
            pruned.freed += folder_size(std::path::Path::new(&volume.mountpoint));
            self.drop_volume(&volume.name)?;
            pruned.removed.push(volume.name);
        }
        Ok(pruned)
    }
}
