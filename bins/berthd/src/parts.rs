//! The open sets: parts of one kind under their names, each of which comes up ready, skipped or failed.
//!
//! A new snapshotter is a module in its crate and a line in [`snapshotters`].

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use berth_core::Snapshotter;
use berth_oci::image::host_platform;
use berth_snapshot::{OpenError, blockfile, btrfs, erofs, native, overlayfs};
use berth_types::{Platform, PluginInfo, PluginState, SnapshotterName};

use crate::config::Config;
use crate::introspection::{plugin_uri, ready};
use crate::proxy;

/// How a part came up.
pub(crate) enum Opened<T: ?Sized> {
    /// It works, and this is what introspection tells of it.
    Ready { part: Arc<T>, exports: BTreeMap<String, String>, capabilities: Vec<String> },
    /// It does not apply here.
    Skipped(String),
    /// It should work and does not.
    Failed(String),
}

type Factory<T> = Box<dyn FnOnce(&Path) -> Opened<T>>;

/// Parts of one kind that are yet to be opened.
pub(crate) struct Set<T: ?Sized> {
    kind: &'static str,
    factories: Vec<(String, Factory<T>)>,
}

impl<T: ?Sized> Set<T> {
    fn new(kind: &'static str) -> Self {
        Self { kind, factories: Vec::new() }
    }

    /// Adds a part. Its factory gets the folder that is its own below the daemon's root.
    fn with(mut self, name: impl Into<String>, factory: impl FnOnce(&Path) -> Opened<T> + 'static) -> Self {
        self.factories.push((name.into(), Box::new(factory)));
        self
    }

    /// Opens every part that is not disabled: those that work by name, and the records of all.
    pub(crate) fn open(
        self,
        root: &Path,
        disabled: &[String],
    ) -> (BTreeMap<String, Arc<T>>, Vec<PluginInfo>) {
        let (mut parts, mut records) = (BTreeMap::new(), Vec::new());
        for (name, factory) in self.factories {
            let mut record = ready(self.kind, &name, &[]);
            let uri = plugin_uri(&record);
            if disabled.contains(&uri) {
                continue;
            }
            record.platforms = platforms(&name);
            match factory(&root.join(&uri)) {
                Opened::Ready { part, exports, capabilities } => {
                    parts.insert(name, part);
                    record.exports = exports;
                    record.capabilities = capabilities;
                }
                Opened::Skipped(why) => {
                    tracing::info!(id = uri, error = why, "skip loading plugin");
                    record.state = PluginState::Skipped(why);
                }
                Opened::Failed(why) => {
                    tracing::warn!(id = uri, error = why, "failed to load plugin");
                    record.state = PluginState::Failed(why);
                }
            }
            records.push(record);
        }
        (parts, records)
    }
}

/// What a part's images may be for: this machine, and for erofs also a system that takes layers which are file systems.
/// Clients look there before they unpack an image that asks for that.
fn platforms(name: &str) -> Vec<Platform> {
    let host = host_platform();
    let with_images = Platform { os_features: vec!["erofs".to_owned()], ..host.clone() };
    if name == "erofs" { vec![host, with_images] } else { vec![host] }
}

/// Every snapshotter that there may be.
pub(crate) fn snapshotters(config: &Config) -> Set<dyn Snapshotter> {
    let (native, overlay) = (config.plugins.native.clone(), config.plugins.overlayfs.clone());
    let (images, files) = (config.plugins.erofs.clone(), config.plugins.blockfile.clone());
    let subvolumes = config.plugins.btrfs.clone();
    let own = Set::new("io.containerd.snapshotter.v1")
        .with("blockfile", |root| {
            let folder = folder(root, &files.root_path);
            local(folder, blockfile::open(root, files), Vec::new())
        })
        .with("btrfs", |root| {
            let folder = folder(root, &subvolumes.root_path);
            local(folder, btrfs::open(root, subvolumes), Vec::new())
        })
        .with("erofs", |root| {
            let folder = folder(root, &images.root_path);
            local(folder, erofs::open(root, images), erofs::capabilities())
        })
        .with("native", |root| {
            let folder = folder(root, &native.root_path);
            local(folder, native::open(root, native), Vec::new())
        })
        .with("overlayfs", |root| {
            let folder = folder(root, &overlay.root_path);
            let capabilities = overlayfs::capabilities(&overlay);
            local(folder, overlayfs::open(root, overlay), capabilities)
        });
    proxy::snapshotters(config).fold(own, |set, (name, opened)| set.with(name, |_| opened))
}

/// The names that the records know them by; one that cannot be a name is left out.
pub(crate) fn named(
    parts: BTreeMap<String, Arc<dyn Snapshotter>>,
) -> BTreeMap<SnapshotterName, Arc<dyn Snapshotter>> {
    parts.into_iter().filter_map(|(name, part)| Some((name.parse().ok()?, part))).collect()
}

fn folder(root: &Path, configured: &Path) -> PathBuf {
    if configured.as_os_str().is_empty() { root.to_owned() } else { configured.to_owned() }
}

fn local(
    folder: PathBuf,
    opened: Result<Arc<dyn Snapshotter>, OpenError>,
    capabilities: Vec<&str>,
) -> Opened<dyn Snapshotter> {
    match opened {
        Ok(part) => Opened::Ready {
            part,
            exports: [("root".to_owned(), folder.display().to_string())].into(),
            capabilities: capabilities.into_iter().map(str::to_owned).collect(),
        },
        Err(OpenError::Skipped(why)) => Opened::Skipped(why),
        Err(error @ OpenError::Failed { .. }) => Opened::Failed(format!("{:#}", anyhow::Error::from(error))),
    }
}

/// A program beside another one, or in `PATH`; if it is in neither, where it should be.
pub(crate) fn beside(program: &Path, name: &str) -> PathBuf {
    let sibling = program.with_file_name(name);
    if sibling.is_file() {
        return sibling;
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .map(|folder| folder.join(name))
        .find(|found| found.is_file())
        .unwrap_or(sibling)
}
