//! What images take on disk.

use std::time::SystemTime;

use berth_proto::runtime::v1 as proto;
use berth_types::filter::Filters;
use berth_types::{ErrorKind, Result, SnapshotKind, Usage};

use crate::Cri;

impl Cri {
    /// The sum of all layers that are unpacked, for the file system of the snapshotter. Trees of containers are not
    /// images'.
    pub(crate) async fn image_usage(&self) -> Result<proto::FilesystemUsage> {
        let snapshotter = self.catalog.snapshotter(&self.config.snapshotter, &self.scope)?;
        let mut sum = Usage::default();
        for snapshot in snapshotter.list(&Filters::default()).await? {
            if snapshot.kind != SnapshotKind::Committed {
                continue;
            }
            match snapshotter.usage(&snapshot.key).await {
                Ok(usage) => sum = sum + usage,
                Err(error) if error.kind() == ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        Ok(proto::FilesystemUsage {
            timestamp: i64::try_from(now.as_nanos()).unwrap_or(i64::MAX),
            fs_id: Some(proto::FilesystemIdentifier {
                mountpoint: self.config.image_folder.display().to_string(),
            }),
            used_bytes: Some(proto::UInt64Value { value: sum.size }),
            inodes_used: Some(proto::UInt64Value { value: sum.inodes }),
        })
    }
}
