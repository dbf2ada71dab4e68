//! How a daemon does transfers, where a client says nothing: containerd's `io.containerd.transfer.v1.local`.

use std::sync::Arc;

use berth_oci::image::PlatformMatch;
use berth_types::{Platform, SnapshotterName};
use tokio::sync::Semaphore;

/// The settings. The default is the engine's own choice of everything.
#[derive(Clone, Debug, Default)]
pub struct Settings {
    /// Blobs of one image that are fetched at once.
    pub downloads: Option<usize>,
    /// Blobs of one image that are sent at once.
    pub uploads: Option<usize>,
    /// Room for layers of all images that are unpacked at once.
    pub unpacks: Option<Arc<Semaphore>>,
    /// Where images may be unpacked; anywhere if it is none.
    pub destinations: Option<Vec<Destination>>,
}

/// A snapshotter for images of a platform.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Destination {
    /// Whose images.
    pub platform: Platform,
    /// Whether another architecture's are refused.
    pub architecture: Architecture,
    /// Into what.
    pub snapshotter: SnapshotterName,
}

/// Whether the architecture of an image matters to who unpacks it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Architecture {
    /// It has to be one that the platform runs.
    Checked,
    /// Any will do.
    Any,
}

impl Destination {
    fn takes(&self, platform: &Platform) -> bool {
        match self.architecture {
            Architecture::Checked => PlatformMatch::only(&self.platform).rank(platform).is_some(),
            Architecture::Any => self.platform.os == platform.os,
        }
    }
}

impl Settings {
    /// Where images of a platform go; none if they may not go there. Without a wish it is the usual snapshotter where
    /// that is one of them, else the first.
    pub(super) fn snapshotter(
        &self,
        platform: &Platform,
        wish: Option<&SnapshotterName>,
        usual: &SnapshotterName,
    ) -> Option<SnapshotterName> {
        let Some(destinations) = &self.destinations else {
            return Some(wish.unwrap_or(usual).clone());
        };
        let fitting: Vec<_> = destinations.iter().filter(|one| one.takes(platform)).collect();
        let named = |name: &SnapshotterName| fitting.iter().find(|one| one.snapshotter == *name);
        match wish {
            Some(wish) => named(wish),
            None => named(usual).or(fitting.first()),
        }
        .map(|one| one.snapshotter.clone())
    }
}

#[cfg(test)]
mod tests {
    use berth_oci::image::parse_platform;

    use super::*;

    fn destination(platform: &str, architecture: Architecture, snapshotter: &str) -> Destination {
        let platform = parse_platform(platform).unwrap();
        Destination { platform, architecture, snapshotter: snapshotter.parse().unwrap() }
    }

    #[test]
    fn images_go_only_where_the_configuration_lets_them() {
        use Architecture::{Any, Checked};
        let usual = "overlayfs".parse().unwrap();
        let found = |settings: &Settings, platform: &str, wish: Option<&str>| {
            let wish = wish.map(|name| name.parse().unwrap());
            let platform = parse_platform(platform).unwrap();
            settings.snapshotter(&platform, wish.as_ref(), &usual).map(|name| name.to_string())
        };
        let all = Settings::default();
        assert_eq!(found(&all, "linux/amd64", Some("native")).as_deref(), Some("native"));
        assert_eq!(found(&all, "linux/amd64", None).as_deref(), Some("overlayfs"));
        let one = [destination("linux/amd64", Checked, "native"), destination("linux/arm64", Any, "other")];
        let some = Settings { destinations: Some(one.into()), ..Settings::default() };
        assert_eq!(found(&some, "linux/amd64", Some("overlayfs")), None);
        assert_eq!(found(&some, "linux/amd64", None).as_deref(), Some("native"));
        assert_eq!(found(&some, "linux/s390x", None).as_deref(), Some("other"));
        assert_eq!(found(&some, "windows/amd64", None), None);
        let none = Settings { destinations: Some(Vec::new()), ..Settings::default() };
        assert_eq!(found(&none, "linux/amd64", None), None);
    }
}
