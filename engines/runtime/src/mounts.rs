//! Root filesystems of which a shim cannot mount everything by itself.
//!
//! The daemon performs that part under the task's name, and the shim gets the rest. It is held by the container, ends
//! with the task, and is replaced if a task of that name was gone without anybody seeing it.

use std::path::Path;

use berth_core::{Extent, Mounts, NewActivation, Rollback, Scope};
use berth_proto as proto;
use berth_types::{Any, ErrorKind, Labels, Mount, Result};
use proto::containerd::types as wire;
use proto::prost::Message as _;

use crate::engine::Engine;
use crate::key::Key;

/// Holds an activation as long as the container of this name is there.
const BACK_REFERENCE: &str = "containerd.io/gc.bref.container";
/// The annotation of a shim with the types of mounts that it performs itself.
const BY_SHIM: &str = "containerd.io/runtime-allow-mounts";

impl Engine {
    /// The mounts that are left to the shim.
    pub(crate) async fn activate(
        &self,
        key: &Key,
        program: &Path,
        options: Option<&Any>,
        rootfs: Vec<Mount>,
        undo: &mut Rollback,
    ) -> Result<Vec<Mount>> {
        let Some(mounts) = &self.deps.mounts else { return Ok(rootfs) };
        if !rootfs.iter().any(is_special) {
            return Ok(rootfs);
        }
        let mounts = mounts(&Scope::new(key.namespace.clone()));
        let new = NewActivation {
            name: key.id.to_string(),
            mounts: rootfs.clone(),
            labels: Labels::from([(BACK_REFERENCE.to_owned(), key.id.to_string())]),
            extent: Extent::Needed,
            by_client: self.mounted_by(program, options).await,
        };
        let activated = match mounts.activate(new.clone()).await {
            Err(error) if error.kind() == ErrorKind::AlreadyExists && is_of(key, &*mounts).await => {
                mounts.deactivate(key.id.as_str()).await?;
                mounts.activate(new).await
            }
            other => other,
        };
        match activated {
            Ok(activation) => {
                let name = key.id.to_string();
                undo.push("the mounts", move || async move { mounts.deactivate(&name).await });
                Ok(activation.system)
            }
            Err(error) if error.kind() == ErrorKind::NotImplemented => Ok(rootfs),
            Err(error) => Err(error.context("failed to mount the root filesystem")),
        }
    }

    /// Ends what was activated for a task that is gone.
    pub(crate) async fn deactivate(&self, key: &Key) {
        let Some(mounts) = &self.deps.mounts else { return };
        let mounts = mounts(&Scope::new(key.namespace.clone()));
        if is_of(key, &*mounts).await
            && let Err(error) = mounts.deactivate(key.id.as_str()).await
            && error.kind() != ErrorKind::NotFound
        {
            tracing::error!(task = %key, "cannot end the mounts of its root filesystem: {}", error.chain());
        }
    }

    /// The types of mounts that a shim performs itself.
    async fn mounted_by(&self, program: &Path, options: Option<&Any>) -> Vec<String> {
        if program == self.config.own_shim {
            return vec!["erofs".to_owned()];
        }
        let told = match self.launcher.info(program, options).await {
            Ok(bytes) => wire::RuntimeInfo::decode(&*bytes).unwrap_or_default(),
            Err(error) => {
                tracing::debug!(program = %program.display(), "does not tell what it can do: {}", error.chain());
                wire::RuntimeInfo::default()
            }
        };
        let types = told.annotations.get(BY_SHIM).map(String::as_str).unwrap_or_default();
        types.split(',').filter(|kind| !kind.is_empty()).map(str::to_owned).collect()
    }
}

/// Whether a mount may be none that the kernel knows.
fn is_special(mount: &Mount) -> bool {
    mount.kind.contains('/') || matches!(mount.kind.as_str(), "erofs" | "loop")
}

/// Whether there is an activation under a task's name that was made for it.
async fn is_of(key: &Key, mounts: &dyn Mounts) -> bool {
    let found = mounts.info(key.id.as_str()).await;
    found.is_ok_and(|found| found.labels.get(BACK_REFERENCE).is_some_and(|held| held == key.id.as_str()))
}
