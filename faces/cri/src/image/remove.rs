//! Removing.

use berth_core::Deletion;
use berth_types::{ErrorKind, Result};

use crate::Cri;

impl Cri {
    /// Removes every name of an image. One that is not there is removed already.
    pub(crate) async fn remove(&self, wanted: &str) -> Result<()> {
        let Some(image) = self.find(wanted).await? else { return Ok(()) };
        let images = self.images();
        let last = image.names.len().saturating_sub(1);
        for (index, name) in image.names.iter().enumerate() {
            let deletion = if index == last { Deletion::Synchronous } else { Deletion::Later };
            match images.delete(name, None, deletion).await {
                Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        Ok(())
    }
}
