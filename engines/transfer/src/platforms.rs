//! Which images of an index an operation is about.

use berth_oci::image::PlatformMatch;
use berth_types::Descriptor;

/// The images of an index that are meant.
#[derive(Clone, Debug, Default)]
pub enum Platforms {
    /// Every one.
    #[default]
    All,
    /// Every one that runs on these platforms, and those that name none.
    Matching(PlatformMatch),
    /// The best for these platforms, and no other.
    Best(PlatformMatch),
}

impl Platforms {
    /// The best one for this machine.
    pub fn host() -> Self {
        Self::Best(PlatformMatch::host())
    }

    /// Those of a list of different images that are meant: a list has no best one.
    pub(crate) fn select_listed(&self, images: Vec<Descriptor>) -> Vec<Descriptor> {
        match self {
            Self::Best(platforms) => Self::Matching(platforms.clone()).select(images),
            _ => self.select(images),
        }
    }

    /// Those of an index's manifests that are meant, in its order.
    pub(crate) fn select(&self, manifests: Vec<Descriptor>) -> Vec<Descriptor> {
        match self {
            Self::All => manifests,
            Self::Matching(platforms) => manifests
                .into_iter()
                .filter(|one| one.platform.as_ref().is_none_or(|platform| platforms.rank(platform).is_some()))
                .collect(),
            Self::Best(platforms) => platforms.best(&manifests).cloned().into_iter().collect(),
        }
    }
}
