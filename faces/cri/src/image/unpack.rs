//! Images that came otherwise than by a pull: unpacked when their first container is made.

use berth_core::UnpackInto;
use berth_oci::image::host_platform;
use berth_types::{Error, Result, SnapshotterName};

use super::list::Present;
use crate::Cri;

impl Cri {
    /// Unpacks an image into a snapshotter; one that is unpacked already is left as it is.
    pub(crate) async fn unpack(&self, image: &Present, snapshotter: &SnapshotterName) -> Result<()> {
        let transfers = self.catalog.transfers(&self.scope).ok_or_else(|| {
            Error::not_implemented("the image cannot be unpacked: this daemon has no transfers")
        })?;
        let name = image.names.first().ok_or_else(|| Error::not_found("the image has no record"))?;
        let target = self.images().image(name).await?.target;
        let into = UnpackInto { platform: Some(host_platform()), snapshotter: Some(snapshotter.clone()) };
        transfers.unpack(&target, &into).await
    }
}
