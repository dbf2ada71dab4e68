//! The handle.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use berth_core::{Catalog, Scope};
use berth_rootfs::look_into;
use berth_sys::beneath::Root;
use berth_types::{Image, Mount, Platform, Result, SnapshotterName};

use crate::Home;
use crate::home::make;

/// Puts the layers of an image into a snapshotter, however that is done.
#[async_trait]
pub trait Unpack: Send + Sync {
    /// Unpacks for one platform; what is there already is fine.
    async fn unpack(&self, image: &Image, platform: &Platform, snapshotter: &SnapshotterName) -> Result<()>;
}

/// How output that nobody watches becomes a log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Logging {
    /// The shim writes it and serves those who attach: berth's own shim.
    Shim,
    /// This program is started beside the shim and writes it (`PROGRAM internal-logger URI`): other shims.
    Program(PathBuf),
}

/// What holds for every container of a handle unless it says otherwise.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Where root filesystems come from.
    pub snapshotter: SnapshotterName,
    /// The shim.
    pub runtime: String,
    /// What runs as first process with `--init`.
    pub init: PathBuf,
    /// How logs are kept.
    pub logging: Logging,
    /// What images are to be for.
    pub platform: Platform,
}

/// The containers, images and volumes of one namespace of one daemon.
#[derive(Clone)]
pub struct Workload {
    pub(crate) catalog: Arc<dyn Catalog>,
    pub(crate) scope: Scope,
    pub(crate) home: Home,
    pub(crate) settings: Settings,
    pub(crate) unpack: Arc<dyn Unpack>,
}

impl Workload {
    /// A handle. Nothing is asked of the daemon and nothing is made on disk yet.
    pub fn new(
        catalog: Arc<dyn Catalog>,
        scope: Scope,
        home: Home,
        settings: Settings,
        unpack: Arc<dyn Unpack>,
    ) -> Self {
        Self { catalog, scope, home, settings, unpack }
    }

    /// The same with another way of keeping logs.
    pub fn with_logging(mut self, logging: Logging) -> Self {
        self.settings.logging = logging;
        self
    }

    /// The daemon.
    pub fn catalog(&self) -> &Arc<dyn Catalog> {
        &self.catalog
    }

    /// The namespace.
    pub fn scope(&self) -> &Scope {
        &self.scope
    }

    /// Our folders.
    pub fn home(&self) -> &Home {
        &self.home
    }

    /// What holds unless a container says otherwise.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// Mounts a list and gives its root to `look`. Blocking.
    pub(crate) fn in_mounts<T: Send>(
        &self,
        mounts: &[Mount],
        look: impl FnOnce(&Root, &Path) -> Result<T> + Send,
    ) -> Result<T> {
        let at = self.home.images().with_file_name("rootfs");
        make(&at)?;
        look_into(mounts, &at, look)
    }
}
