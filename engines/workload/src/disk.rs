//! What takes the disk: `system df`.

use std::collections::BTreeSet;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use berth_types::Result;

use crate::{ImageRow, Row, Status, Workload};

/// One kind of thing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Part {
    /// How many there are.
    pub total: usize,
    /// How many are in use.
    pub active: usize,
    /// Bytes.
    pub size: u64,
    /// Bytes that removing what is not in use would free.
    pub reclaimable: u64,
}

/// Everything.
#[derive(Clone, Debug, Default)]
pub struct DiskUsage {
    /// Images.
    pub images: Part,
    /// Containers' own layers.
    pub containers: Part,
    /// Volumes.
    pub volumes: Part,
    /// Each image.
    pub image_rows: Vec<ImageRow>,
    /// Each container with its bytes.
    pub container_rows: Vec<(Row, u64)>,
    /// Each volume with its bytes and the number of containers that use it.
    pub volume_rows: Vec<(crate::Volume, u64, usize)>,
}

impl Workload {
    /// Adds up what images, containers and volumes take.
    pub async fn disk_usage(&self) -> Result<DiskUsage> {
        let mut usage = DiskUsage { image_rows: self.image_rows().await?, ..DiskUsage::default() };
        let rows = self.list().await?;
        let used: BTreeSet<&str> = rows.iter().map(|row| row.container.image.as_str()).collect();
        let mut seen = BTreeSet::new();
        for row in &usage.image_rows {
            let active = used.contains(row.image.name.as_str());
            usage.images.total += 1;
            usage.images.active += usize::from(active);
            if seen.insert(row.id().clone()) {
                let size = row.size.unwrap_or(0);
                usage.images.size += size;
                usage.images.reclaimable += if active { 0 } else { size };
            }
        }
        for row in rows {
            let size = self.size_of(&row.container).await.unwrap_or(0);
            let active = matches!(row.status, Status::Running | Status::Paused);
            usage.containers.total += 1;
            usage.containers.active += usize::from(active);
            usage.containers.size += size;
            usage.containers.reclaimable += if active { 0 } else { size };
            usage.container_rows.push((row, size));
        }
        let users = self.volume_users().await?;
        for volume in self.volumes()? {
            let links = users.iter().filter(|(name, _)| *name == volume.name).count();
            let size = folder_size(Path::new(&volume.mountpoint));
            usage.volumes.total += 1;
            usage.volumes.active += usize::from(links > 0);
            usage.volumes.size += size;
            usage.volumes.reclaimable += if links > 0 { 0 } else { size };
            usage.volume_rows.push((volume, size, links));
        }
        Ok(usage)
    }
}

/// Bytes on disk of a folder of ours; links are not followed.
pub(crate) fn folder_size(folder: &Path) -> u64 {
    let mut total = 0_u64;
    let mut pending = vec![folder.to_owned()];
    let mut seen = BTreeSet::new();
    while let Some(folder) = pending.pop() {
        for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
            let Ok(metadata) = entry.metadata() else { continue };
            if metadata.is_dir() {
                pending.push(entry.path());
            }
            if metadata.nlink() == 1 || seen.insert((metadata.dev(), metadata.ino())) {
                total = total.saturating_add(metadata.blocks() * 512);
            }
        }
    }
    total
}
