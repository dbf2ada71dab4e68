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
    /// No more than so many of the others, the best ones.
    Limited(Box<Platforms>, usize),
}

impl Platforms {
    /// The best one for this machine.
    pub fn host() -> Self {
        Self::Best(PlatformMatch::host())
    }

    /// For which platforms an image has to be, if that matters.
    pub(crate) fn matching(&self) -> Option<&PlatformMatch> {
        match self {
            Self::All => None,
            Self::Matching(platforms) | Self::Best(platforms) => Some(platforms),
            Self::Limited(platforms, _) => platforms.matching(),
        }
    }

    /// Whether one that is for that platform, or for none in particular, is meant.
    pub(crate) fn includes(&self, one: &Descriptor) -> bool {
        let (Some(platforms), Some(platform)) = (self.matching(), &one.platform) else { return true };
        platforms.rank(platform).is_some()
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
            Self::Matching(_) => manifests.into_iter().filter(|one| self.includes(one)).collect(),
            Self::Best(platforms) => platforms.best(&manifests).cloned().into_iter().collect(),
            Self::Limited(platforms, count) => {
                let mut selected = platforms.select(manifests);
                if let Some(platforms) = self.matching() {
                    let rank = |one: &Descriptor| one.platform.as_ref().and_then(|one| platforms.rank(one));
                    selected.sort_by_key(|one| rank(one).unwrap_or(usize::MAX));
                }
                selected.truncate(*count);
                selected
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use berth_oci::image::parse_platform;

    use super::*;

    fn of(platform: &str) -> Descriptor {
        let digest = format!("sha256:{}", "a".repeat(64)).parse().unwrap();
        let platform = Some(parse_platform(platform).unwrap());
        Descriptor { platform, ..Descriptor::new("m", digest, 1) }
    }

    #[test]
    fn a_limit_takes_the_best_ones() {
        let images = ["linux/s390x", "linux/amd64", "linux/arm64"].map(of);
        let wanted = ["linux/arm64", "linux/amd64"].map(|text| parse_platform(text).unwrap());
        let matching = Platforms::Matching(PlatformMatch::any(&wanted));
        assert_eq!(matching.select(images.to_vec()), images[1..]);
        let one = Platforms::Limited(Box::new(matching), 1);
        assert_eq!(one.select(images.to_vec()), images[2..]);
        let two = Platforms::Limited(Box::new(Platforms::All), 2);
        assert_eq!(two.select(images.to_vec()), images[..2]);
    }
}
