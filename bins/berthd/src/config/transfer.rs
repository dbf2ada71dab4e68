//! `[plugins.'io.containerd.transfer.v1.local']`: containerd's keys, as berth's engine takes them.

use std::sync::Arc;

use anyhow::{Result, bail, ensure};
use berth_oci::image::{host_platform, parse_platform};
use berth_transfer::{Architecture, Destination, Settings};
use serde::{Deserialize, Serialize};
use tokio::sync::Semaphore;

/// The table's name in errors.
const TABLE: &str = "io.containerd.transfer.v1.local";
/// Up to so many bytes of a part, containerd fetches a blob over one connection.
const SMALLEST: u64 = 512;
/// Bytes of a part at most: several are held in memory.
const LARGEST: u64 = 64 << 20;

/// Transfers. A number of 0 leaves the choice to the engine.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct TransferLocal {
    /// Blobs of one image that are fetched at once.
    pub(crate) max_concurrent_downloads: usize,
    /// Bytes of one part of a large layer; 1 to 512 for one connection.
    pub(crate) concurrent_layer_fetch_buffer: u64,
    /// Blobs of one image that are sent at once.
    pub(crate) max_concurrent_uploaded_layers: usize,
    /// Layers of all images that are unpacked at once.
    pub(crate) max_concurrent_unpacks: usize,
    /// Whether images of another architecture are left packed.
    pub(crate) check_platform_supported: bool,
    /// Folders of hosts.toml files, with a colon between them; empty for the usual ones.
    pub(crate) config_path: String,
    /// Where images may be unpacked; anywhere if it is empty.
    pub(crate) unpack_config: Vec<UnpackConfig>,
}

/// A snapshotter for images of a platform.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct UnpackConfig {
    /// Such as `linux/amd64`; empty for this machine's.
    pub(crate) platform: String,
    /// Into what.
    pub(crate) snapshotter: String,
    /// By whom; empty for the differs of the diff service.
    pub(crate) differ: String,
    /// The type of images' configurations.
    pub(crate) config_type: String,
    /// The types of layers.
    pub(crate) layer_types: Vec<String>,
    /// Whether it is passed over where it cannot be had.
    pub(crate) optional: bool,
}

impl TransferLocal {
    /// The engine's settings. `snapshotters` are those that are there, `differs` the diff service's in their order.
    pub(crate) fn settings(
        &self,
        snapshotters: &dyn Fn(&str) -> bool,
        differs: &[String],
    ) -> Result<Settings> {
        let chosen = |number: usize| (number > 0).then_some(number);
        ensure!(
            self.concurrent_layer_fetch_buffer <= LARGEST,
            "concurrent_layer_fetch_buffer of [plugins.'{TABLE}'] is more than {LARGEST}: parts are held in memory"
        );
        let mut destinations = Vec::new();
        for entry in &self.unpack_config {
            match entry.destination(self.check_platform_supported, snapshotters, differs) {
                Ok(destination) => destinations.push(destination),
                Err(error) if entry.optional => {
                    tracing::info!("an optional unpack_config of {TABLE} is passed over: {error:#}");
                }
                Err(error) => return Err(error.context(format!("unpack_config of [plugins.'{TABLE}']"))),
            }
        }
        if self.unpack_config.is_empty() && self.check_platform_supported {
            bail!(
                "check_platform_supported of [plugins.'{TABLE}'] needs an unpack_config that names the platforms"
            );
        }
        Ok(Settings {
            downloads: chosen(self.max_concurrent_downloads),
            uploads: chosen(self.max_concurrent_uploaded_layers),
            unpacks: chosen(self.max_concurrent_unpacks).map(|number| Arc::new(Semaphore::new(number))),
            destinations: (!self.unpack_config.is_empty()).then_some(destinations),
        })
    }

    /// How registries are spoken to where a client says nothing.
    pub(crate) fn registries(&self) -> berth_registry::Config {
        // Credentials are the clients'; the daemon has none of its own.
        let mut config = berth_registry::Config::system(None);
        if !self.config_path.is_empty() {
            config.hosts = std::env::split_paths(&self.config_path).collect();
        }
        match self.concurrent_layer_fetch_buffer {
            0 => {}
            1..=SMALLEST => config.connections = 1,
            part => config.part = part,
        }
        config
    }
}

impl UnpackConfig {
    fn destination(
        &self,
        check: bool,
        snapshotters: &dyn Fn(&str) -> bool,
        differs: &[String],
    ) -> Result<Destination> {
        let Self { platform, snapshotter, differ, config_type, layer_types, .. } = self;
        let platform = if platform.is_empty() { host_platform() } else { parse_platform(platform)? };
        ensure!(snapshotters(snapshotter), "snapshotter {snapshotter:?} not found");
        let first = differs.first().map_or("", String::as_str);
        ensure!(
            differ.is_empty() || differ == first,
            "differ {differ:?} is not the one that unpacks here, which is {first:?}: put it first in the `default` of \
             [plugins.'io.containerd.service.v1.diff-service']"
        );
        ensure!(
            config_type.is_empty() && layer_types.is_empty(),
            "config_type and layer_types are not known here: layers are unpacked by their own media types, and \
             [stream_processors] take others"
        );
        let architecture = if check { Architecture::Checked } else { Architecture::Any };
        Ok(Destination { platform, architecture, snapshotter: snapshotter.parse()? })
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;

    fn entry(snapshotter: &str) -> UnpackConfig {
        UnpackConfig {
            platform: "linux/amd64".into(),
            snapshotter: snapshotter.into(),
            differ: "walking".into(),
            ..UnpackConfig::default()
        }
    }

    fn settings(local: &TransferLocal) -> Result<Settings, String> {
        let differs = ["walking".to_owned()];
        local.settings(&|name| name == "native", &differs).map_err(|error| format!("{error:#}"))
    }

    #[test]
    fn every_key_has_its_effect() {
        let local = TransferLocal {
            max_concurrent_downloads: 2,
            concurrent_layer_fetch_buffer: 1 << 20,
            max_concurrent_uploaded_layers: 5,
            max_concurrent_unpacks: 1,
            check_platform_supported: true,
            config_path: "/a:/b".into(),
            unpack_config: vec![entry("native"), UnpackConfig { optional: true, ..entry("erofs") }],
        };
        let made = settings(&local).unwrap();
        assert_eq!((made.downloads, made.uploads), (Some(2), Some(5)));
        assert_eq!(made.unpacks.unwrap().available_permits(), 1);
        let destinations = made.destinations.unwrap();
        assert_eq!(destinations.len(), 1);
        assert_eq!(destinations[0].architecture, Architecture::Checked);
        let registries = local.registries();
        assert_eq!(registries.hosts, [PathBuf::from("/a"), PathBuf::from("/b")]);
        assert_eq!(registries.part, 1 << 20);
        let one = TransferLocal { concurrent_layer_fetch_buffer: 512, ..local };
        assert_eq!(one.registries().connections, 1);
        let none = settings(&TransferLocal::default()).unwrap();
        assert!(none.downloads.is_none() && none.unpacks.is_none() && none.destinations.is_none());
    }

    #[test]
    fn what_cannot_be_done_is_refused_with_the_way_out() {
        let with =
            |entry: UnpackConfig| TransferLocal { unpack_config: vec![entry], ..TransferLocal::default() };
        for (local, why) in [
            (with(entry("absent")), "snapshotter \"absent\" not found"),
            (with(UnpackConfig { differ: "erofs".into(), ..entry("native") }), "diff-service"),
            (with(UnpackConfig { layer_types: vec!["x".into()], ..entry("native") }), "[stream_processors]"),
            (with(UnpackConfig { platform: "a/b/c/d".into(), ..entry("native") }), "a/b/c/d"),
            (
                TransferLocal { concurrent_layer_fetch_buffer: 1 << 40, ..TransferLocal::default() },
                "held in memory",
            ),
            (TransferLocal { check_platform_supported: true, ..TransferLocal::default() }, "unpack_config"),
        ] {
            let error = settings(&local).unwrap_err();
            assert!(error.contains(why), "{error}");
        }
    }
}
