//! The layers of images, by berth-transfer, for berth-workload which does not know it.

use std::sync::Arc;

use async_trait::async_trait;
use berth_core::{Catalog, Scope};
use berth_oci::image::PlatformMatch;
use berth_types::{Image, Platform, Result, SnapshotterName};
use berth_workload::Unpack;

use crate::output::progress::Bars;

/// Unpacks through a daemon.
pub(crate) struct Layers {
    catalog: Arc<dyn Catalog>,
    scope: Scope,
}

impl Layers {
    pub(crate) fn new(catalog: Arc<dyn Catalog>, scope: Scope) -> Self {
        Self { catalog, scope }
    }
}

#[async_trait]
impl Unpack for Layers {
    async fn unpack(&self, image: &Image, platform: &Platform, snapshotter: &SnapshotterName) -> Result<()> {
        let bars = Bars::new(false);
        let request = berth_transfer::Unpack {
            target: image.target.clone(),
            platform: PlatformMatch::only(platform),
            snapshotter: snapshotter.clone(),
            progress: bars.reporter(),
        };
        let unpacked = berth_transfer::unpack(&*self.catalog, &self.scope, &request).await;
        bars.finish();
        unpacked.map(drop)
    }
}
